"""What a sequence of tasks leaves behind: accuracy, forgetting, transfer.

A[t, tau] is measured on the queries of task tau after task t >= tau.
"""

import jax
import jax.numpy as jnp

from hyperudl.ops import losses


def matrices(way, logits, y):
  """A[t, tau] of cross-entropies and of accuracies.

  Args:
    way: N.
    logits: f32[T, tau, Q, T, N].
    y: i32[tau, Q].

  Returns:
    Two dicts by scenario: 'class', among all classes met so far, and 'task',
    among those of the query's own task; of f32[T, tau].
  """
  count, tasks = logits.shape[:2]
  number = jnp.arange(tasks)
  flat = logits.reshape(count, tasks, y.shape[1], -1)
  own = jnp.moveaxis(logits[:, number, :, number], 0, 1)
  fits, right = {}, {}
  for name, found, target in (
    ('class', flat, y + way * number[:, None]),
    ('task', own, y),
  ):
    each = lambda function: jax.vmap(jax.vmap(function), (0, None))
    fits[name] = each(losses.cross_entropy)(found, target)
    right[name] = each(losses.accuracy)(found, target)
  return fits, right


def summary(name, matrix):
  """Metrics of A f32[T, T] of one scenario, and A itself.

  Args:
    name: of the scenario.
    matrix: A; only its lower triangle counts.
  """
  diagonal, last = jnp.diagonal(matrix), matrix[-1]
  found = {
    f'matrix_{name}': jnp.tril(matrix),
    f'accuracy_{name}': jnp.mean(last),
    f'accuracy_{name}_when_met': jnp.mean(diagonal),
  }
  if matrix.shape[0] > 1:
    # The best before the last task, of what had been met by then.
    best = jnp.max(jnp.tril(matrix)[:-1], axis=0)[:-1]
    found[f'forgetting_{name}'] = jnp.mean(best - last[:-1])
    found[f'backward_transfer_{name}'] = jnp.mean(last[:-1] - diagonal[:-1])
  return found
