"""Episodes of tasks with language, a pure function of their keys.

Training draws tasks at random and parts the images of a task anew each time; an
evaluation asks task after task, with the support and the queries that the task
brings. The context of support and queries is a dict with
  question  i32[L] word ids (0 = none) or f32[E]
  answers   i32[N, L] or f32[N, E]
  mask      f32[N], 0 for answers that the task does not have.
Rows that a task lacks have y = -1. With `language.asked` = A > 0, `extra` of
training has, under 'asked', what A tasks (drawn with replacement) ask of the
queries: answers [A, N, L] or [A, N, E], mask f32[A, N] and y i32[A, Q], -1
where a query has no answer. With `language.captions` it has 'captions', one for
each query: strings i32[Q, L] and true bool[Q, Q] (of query i, caption j), false
on the diagonal where nothing can be said of a query.
"""

import functools

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import memmap
from hyperudl.data.language import task_set


def check(config, tasks, split_name):
  """Raises core.BadInput if `tasks` cannot fill the episodes of `config`."""
  rules = config.episode
  ways = tasks.mask.shape[1]
  if rules.way != ways:
    raise core.BadInput(
      f'config.episode.way = {rules.way}, but {split_name} has tasks of up to '
      f'{ways} answers: set config.episode.way={ways}'
    )
  if rules.tasks > len(tasks.names):
    raise core.BadInput(
      f'config.episode.tasks = {rules.tasks}, but {split_name} has only '
      f'{len(tasks.names)} tasks'
    )
  if config.language.asked and config.learner.name != 'contrastive':
    raise core.BadInput(
      f'config.language.asked = {config.language.asked} is of the loss of '
      f'contrastive, not of {config.learner.name}: set it to 0'
    )
  if config.language.captions and config.learner.name != 'contrastive':
    raise core.BadInput(
      'config.language.captions is of the loss of contrastive, not of '
      f'{config.learner.name}: set it to False'
    )
  vocabulary = config.learner.get('vocabulary', len(tasks.words) + 1)
  if len(tasks.words) >= vocabulary:
    raise core.BadInput(
      f'config.learner.vocabulary = {vocabulary}, but {split_name} has '
      f'{len(tasks.words)} words: set it to {len(tasks.words) + 1} or more'
    )
  for field in ('unlabelled', 'distractors'):
    if rules[field]:
      raise core.BadInput(
        f'config.episode.{field} = {rules[field]}: tasks with language have '
        'labelled images alone; set it to 0'
      )
  chosen = {
    'episode.proportions': (rules.proportions, 'balanced'),
    'episode.emit_from': (rules.emit_from, 'own'),
    'episode.inner_data': (rules.inner_data, 'true'),
    'episode.cond_data': (rules.cond_data, 'true'),
    'episode.transductive': (rules.transductive, False),
    'data.shift': (config.data.shift, 'none'),
    'data.augment': (config.data.augment, 'none'),
    'data.augment_individually': (config.data.augment_individually, False),
    'data.augment_tests': (config.data.augment_tests, False),
    'data.support_query': (config.data.support_query, 'disjoint'),
    'data.image_size': (config.data.image_size, 0),
    'data.classes': (config.data.classes, ''),
  }
  for field, (value, only) in chosen.items():
    if value != only:
      raise core.BadInput(
        f'config.{field} = {value!r} is not for tasks with language: set it '
        f'to {only!r}'
      )


def make_draw(config, tasks, *, train):
  """Makes the function that draws episodes of tasks.

  Args:
    config: `episode.way`, `shot` and `query`: way x shot support rows and
      way x query queries, whatever their classes.
    tasks: a `TaskSet`.
    train: whether support and queries are drawn from all images of a task.

  Returns:
    draw: (keys key[B], numbers i32[B] or None) -> core.Episode with the axis
    B (B, T where `episode.tasks` is T). Numbers name tasks, modulo their
    count; None draws them. `extra` has task f32[total], one-hot, and, where
    the set has latents, one of them as latent f32[Z], beside unlabelled_y
    i32[0], class_ids i32[N], family i32[] and group i32[].
  """
  check(config, tasks, 'the training set' if train else 'the data')
  rules = config.episode
  sizes = rules.way * rules.shot, rules.way * rules.query
  pools = _pools(rules, tasks, sizes, train)
  plan = jax.jit(functools.partial(_plan, tasks, pools, sizes))
  finish = jax.jit(functools.partial(_finish, tasks))
  extras = _extras(config, tasks) if train else {}
  images = tasks.images
  if images.nbytes <= config.data.device_mb << 20:
    images = jnp.asarray(images)
  group, count = max(rules.tasks, 1), len(tasks.names)

  def draw(keys, numbers=None):
    if group > 1:
      if numbers is None:
        numbers = _drawn(keys, count, group).reshape(-1)
      else:
        numbers = (numbers[:, None] * group + jnp.arange(group)).reshape(-1)
      keys = jax.vmap(lambda key: jax.random.split(key, group))(keys).reshape(
        -1
      )
    if numbers is None:
      numbers = _drawn(keys, count, 1)[:, 0]
    plans = plan(keys, numbers % count)
    rows = [np.maximum(np.asarray(part[0]), 0) for part in plans[1:]]
    if isinstance(images, np.ndarray):
      pixels = [memmap.take(images, part) for part in rows]
    else:
      pixels = [images[part] for part in rows]
    episode = finish(plans, pixels, keys)
    for name, make in extras.items():
      episode.extra[name] = make(keys, plans[2][0])
    if not rules.tasks:
      return episode
    split = lambda leaf: leaf.reshape(
      leaf.shape[0] // group, group, *leaf.shape[1:]
    )
    return jax.tree.map(split, episode)

  return draw


def _pools(rules, tasks, sizes, train):
  """[(rows, y)] to draw from: of all images, or of support and of queries."""
  both = (tasks.support, tasks.support_y), (tasks.query, tasks.query_y)
  if train:
    pool = [np.concatenate(parts, axis=1) for parts in zip(*both)]
    return [tuple(_widened(part, sum(sizes)) for part in pool)]
  _warn_of_rows(rules, tasks)
  return [
    tuple(_widened(part, size) for part in pool)
    for pool, size in zip(both, sizes)
  ]


def _extras(config, tasks):
  """{name: (keys key[B], rows i32[B, Q] of queries) -> part of `extra`}."""
  found, language = {}, config.language
  if language.asked:
    tabled = task_set.with_labels(tasks)
    found['asked'] = jax.jit(functools.partial(_ask, tabled, language.asked))
  if language.captions:
    if tasks.captions is None:
      raise core.BadInput(
        'config.language.captions = True, but the training set has none (of '
        'glyphvqa, size large has): set it to False'
      )
    found['captions'] = jax.jit(functools.partial(_caption, tasks.captions))
  return found


def _warn_of_rows(rules, tasks):
  """Says so where no task fills the rows that are asked for."""
  for field, rows in (('shot', tasks.support), ('query', tasks.query)):
    asked = rules.way * rules[field]
    if asked > rows.shape[1]:
      logging.warning(
        'config.episode.%s = %d asks for %d images of a task, and the largest '
        'brings %d: episodes hold what there is',
        field,
        rules[field],
        asked,
        rows.shape[1],
      )


@functools.partial(jax.jit, static_argnames=('count', 'group'))
def _drawn(keys, count, group):
  """i32[B, group], numbers of tasks, all different within an episode."""

  def draw(key):
    scores = jax.random.uniform(jax.random.fold_in(key, 1), (count,))
    return jax.lax.top_k(scores, group)[1]

  return jax.vmap(draw)(keys)


def _widened(part, size):
  missing = max(0, size - part.shape[1])
  return np.pad(part, ((0, 0), (0, missing)), constant_values=-1)


def _plan(tasks, pools, sizes, keys, numbers):
  """(numbers, (rows, y) of the support, (rows, y) of the queries)."""

  def choose(key, number, pool, size):
    rows, y = (jnp.asarray(part)[number] for part in pool)
    scores = jax.random.uniform(key, rows.shape)
    # What is missing comes last.
    order = jax.lax.top_k(jnp.where(rows < 0, -1.0, scores), size)[1]
    return rows[order], y[order]

  def one(key, number):
    keys = jax.random.split(key)
    if len(pools) == 2:
      return [choose(k, number, p, s) for k, p, s in zip(keys, pools, sizes)]
    return _parted(choose(keys[0], number, pools[0], sum(sizes)), sizes)

  support, query = jax.vmap(one)(keys, numbers)
  return numbers, support, query


def _parted(drawn, sizes):
  """[(rows, y) of the support, (rows, y) of the queries] of what was drawn.

  A task of few images gives both their share, and at least one query.
  """
  rows, y = drawn
  present = jnp.sum(rows >= 0)
  share = jnp.maximum(1, jnp.round(present * sizes[1] / sum(sizes)))
  cut = jnp.minimum(sizes[0], present - share.astype(present.dtype))
  here = jnp.arange(sizes[0])
  there = cut + jnp.arange(sizes[1])
  known = here < cut
  asked = jnp.minimum(there, rows.shape[0] - 1)
  return [
    (jnp.where(known, rows[here], -1), jnp.where(known, y[here], -1)),
    (rows[asked], jnp.where(there < present, y[asked], -1)),
  ]


def _ask(tasks, count, keys, rows):
  """extra['asked'] of the queries in i32[B, Q] `rows`."""
  labels, label_rows = map(jnp.asarray, (tasks.labels, tasks.label_rows))

  def one(key, rows):
    key = jax.random.fold_in(key, 3)
    numbers = jax.random.randint(key, (count,), 0, len(tasks.names))
    y = labels[label_rows[numbers]][:, jnp.maximum(rows, 0)]
    return {
      'answers': jnp.asarray(tasks.answers)[numbers],
      'mask': jnp.asarray(tasks.mask, jnp.float32)[numbers],
      'y': jnp.where(rows >= 0, y.astype(jnp.int32), -1),
    }

  return jax.vmap(one)(keys, rows)


def _caption(captions, keys, rows):
  """extra['captions'] of the queries in i32[B, Q] `rows`."""
  strings, labels = map(jnp.asarray, captions)

  def one(key, rows):
    keys = jax.random.split(jax.random.fold_in(key, 4))
    found = labels[:, jnp.maximum(rows, 0)].astype(jnp.int32)  # [R, Q]
    found = jnp.where(rows >= 0, found, -1)
    chances = jnp.where(found.T >= 0, 0.0, -jnp.inf)
    # Where nothing can be said any subject is drawn, and is not true.
    chances = jnp.where((found >= 0).any(axis=0)[:, None], chances, 0.0)
    subject = jax.random.categorical(keys[0], chances)
    form = jax.random.randint(keys[1], rows.shape, 0, strings.shape[1])
    what = found[subject, jnp.arange(len(rows))]
    true = (found[subject] == what[:, None]) & (what >= 0)[:, None]
    return {
      'strings': strings[subject, form, jnp.maximum(what, 0)],
      'true': true.T,
    }

  return jax.vmap(one)(keys, rows)


def _finish(tasks, plans, pixels, keys):
  numbers, (_, support_y), (_, query_y) = plans
  context = {
    'question': jnp.asarray(tasks.question)[numbers],
    'answers': jnp.asarray(tasks.answers)[numbers],
    'mask': jnp.asarray(tasks.mask, jnp.float32)[numbers],
  }
  batch, ways = numbers.shape[0], tasks.mask.shape[1]
  ids = jnp.asarray(tasks.ids)[numbers]
  extra = {
    'unlabelled_y': jnp.zeros((batch, 0), jnp.int32),
    'class_ids': jnp.tile(jnp.arange(ways), (batch, 1)),
    'family': jnp.zeros((batch,), jnp.int32),
    'group': jnp.asarray(tasks.groups)[numbers],
    'task': jax.nn.one_hot(ids, tasks.total),
  }
  if tasks.latents is not None:
    latents = jnp.asarray(tasks.latents)
    choose = lambda key: jax.random.randint(
      jax.random.fold_in(key, 2), (), 0, latents.shape[0]
    )
    extra['latent'] = latents[jax.vmap(choose)(keys), numbers]
  support, query = map(task_set.as_floats, pixels)
  return core.Episode(
    core.Examples(support, support_y, context),
    core.Examples(query, query_y, context),
    extra,
  )
