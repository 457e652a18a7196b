"""Makes questions and captions about the queries, for training an encoder.

With `language.asked` = A > 0, `extra` of an episode has, under 'asked', the
questions of A tasks (drawn with replacement) about the queries: answers
[A, N, L] or [A, N, E], mask f32[A, N] and y i32[A, Q], -1 where a query has no
answer. With `language.captions` it has 'captions', one for each query: strings
i32[Q, L] and true bool[Q, Q] (of query i, caption j), false on the diagonal
where no caption is true of a query.
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
  """Return {name in `extra`: (keys key[B], rows i32[B, Q] of queries) -> it}.

  Args:
    language: section of the config, `asked` and `captions`.
    tasks: of the training.

  Raises:
    core.BadInput: captions of tasks without any.
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
  """extra['asked'] of the queries in i32[Q] `rows`."""
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
  """extra['captions'] of the queries in i32[Q] `rows`."""
  strings, labels = map(jnp.asarray, captions)
  keys = jax.random.split(jax.random.fold_in(key, 4))
  values = labels[:, jnp.maximum(rows, 0)].astype(jnp.int32)  # [R, Q]
  values = jnp.where(rows >= 0, values, -1)
  scores = jnp.where(values.T >= 0, 0.0, -jnp.inf)
  # Of a query without a true caption any is drawn, and is not true.
  scores = jnp.where((values >= 0).any(axis=0)[:, None], scores, 0.0)
  subject = jax.random.categorical(keys[0], scores)
  form = jax.random.randint(keys[1], rows.shape, 0, strings.shape[1])
  value = values[subject, jnp.arange(len(rows))]
  true = (values[subject] == value[:, None]) & (value >= 0)[:, None]
  return {
    'strings': strings[subject, form, jnp.maximum(value, 0)],
    'true': true.T,
  }
