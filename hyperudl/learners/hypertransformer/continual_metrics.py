"""Computes accuracy, forgetting and transfer over a sequence of tasks.

A[t, tau] is measured on the queries of task tau after task t >= tau.
"""

import jax
import jax.numpy as jnp

from hyperudl.ops import losses

Matrices = dict[str, jax.Array]  # scenario -> f32[T, tau]


def matrices(
  way: int, logits: jax.Array, y: jax.Array
) -> tuple[Matrices, Matrices]:
  """Return A[t, tau] of cross-entropies and of accuracies.

  Args:
    way: N.
    logits: f32[T, tau, Q, T, N]: after task t, of queries of task tau.
    y: i32[tau, Q].

  Returns:
    (cross-entropies, accuracies), each a dict from scenario to f32[T, tau]:
    'class', among all classes met so far; 'task', among those of the query's
    own task.
  """
  count, tasks = logits.shape[:2]
  number = jnp.arange(tasks)
  by_class = logits.reshape(count, tasks, y.shape[1], -1)
  by_task = jnp.moveaxis(logits[:, number, :, number], 0, 1)
  entropies, accuracies = {}, {}
  for scenario, scores, target in (
    ('class', by_class, y + way * number[:, None]),
    ('task', by_task, y),
  ):
    each = lambda function: jax.vmap(jax.vmap(function), (0, None))
    entropies[scenario] = each(losses.cross_entropy)(scores, target)
    accuracies[scenario] = each(losses.accuracy)(scores, target)
  return entropies, accuracies


def summarize(scenario: str, matrix: jax.Array) -> dict[str, jax.Array]:
  """Return metrics computed from A of one scenario, and A itself.

  Args:
    scenario: becomes part of the metrics' names.
    matrix: A, f32[T, T]; only its lower triangle counts.
  """
  diagonal, last = jnp.diagonal(matrix), matrix[-1]
  metrics = {
    f'matrix_{scenario}': jnp.tril(matrix),
    f'accuracy_{scenario}': jnp.mean(last),
    f'accuracy_{scenario}_when_met': jnp.mean(diagonal),
  }
  if matrix.shape[0] > 1:
    # For each task but the last: its best accuracy before the last task.
    best = jnp.max(jnp.tril(matrix)[:-1], axis=0)[:-1]
    metrics[f'forgetting_{scenario}'] = jnp.mean(best - last[:-1])
    metrics[f'backward_transfer_{scenario}'] = jnp.mean(
      last[:-1] - diagonal[:-1]
    )
  return metrics
