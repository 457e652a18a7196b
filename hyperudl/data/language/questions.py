"""Makes questions and captions about the queries, for training an encoder.

With `language.asked` = A > 0, `extra['asked']` of an episode applies A tasks
(drawn with replacement) to the queries: answers [A, N, L] or [A, N, E], mask
f32[A, N] and labels y i32[A, Q], -1 where a query has no answer. With
`language.captions`, `extra['captions']` has a caption for each query: strings
i32[Q, L] and true bool[Q, Q], whether caption j is true of query i. If no
caption is true of a query, it gets an arbitrary one, marked false throughout.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.language import task_set


def make_extras(
  language: ConfigDict, tasks: task_set.TaskSet
) -> dict[str, Callable]:
  """Return functions {name in `extra`: (keys key[B], rows i32[B, Q]) -> value}.

  Args:
    language: section of the config with `asked` and `captions`.
    tasks: training tasks.

  Raises:
    core.BadInput: captions are asked for, but the tasks have none.
  """
  extras = {}
  if language.asked:
    labelled = task_set.with_labels(tasks)
    extras['asked'] = functools.partial(_ask, labelled, language.asked)
  if language.captions:
    if tasks.captions is None:
      raise core.BadInput(
        'config.language.captions = True, but the training set has none (that '
        'of glyphvqa, size large, has): set it to False'
      )
    extras['captions'] = functools.partial(_caption, tasks.captions)
  return {
    name: jax.jit(jax.vmap(function)) for name, function in extras.items()
  }


def _ask(tasks, count, key, rows):
  """Make extra['asked'] for the queries in `rows` i32[Q]."""
  labels, label_rows = map(jnp.asarray, (tasks.labels, tasks.label_rows))
  key = jax.random.fold_in(key, 3)
  numbers = jax.random.randint(key, (count,), 0, len(tasks.names))
  y = labels[label_rows[numbers]][:, jnp.maximum(rows, 0)]
  return {
    'answers': jnp.asarray(tasks.answers)[numbers],
    'mask': jnp.asarray(tasks.mask, jnp.float32)[numbers],
    'y': jnp.where(rows >= 0, y.astype(jnp.int32), -1),
  }


def _caption(captions, key, rows):
  """Make extra['captions'] for the queries in `rows` i32[Q]."""
  strings, labels = map(jnp.asarray, captions)
  keys = jax.random.split(jax.random.fold_in(key, 4))
  values = labels[:, jnp.maximum(rows, 0)].astype(jnp.int32)  # [R, Q]
  values = jnp.where(rows >= 0, values, -1)
  scores = jnp.where(values.T >= 0, 0.0, -jnp.inf)
  # A query without a true caption gets any subject; `true` is then false.
  scores = jnp.where((values >= 0).any(axis=0)[:, None], scores, 0.0)
  subject = jax.random.categorical(keys[0], scores)
  form = jax.random.randint(keys[1], rows.shape, 0, strings.shape[1])
  value = values[subject, jnp.arange(len(rows))]
  true = (values[subject] == value[:, None]) & (value >= 0)[:, None]
  return {
    'strings': strings[subject, form, jnp.maximum(value, 0)],
    'true': true.T,
  }
