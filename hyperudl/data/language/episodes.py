"""Draws episodes of tasks with language, as a pure function of their keys.

Training draws tasks at random and divides the images of a task anew each time;
evaluation goes through the tasks in order and draws from each task's own
support and queries. The context of support and queries is a dict with
  question  i32[L] word ids (0 = padding) or f32[E]
  answers   i32[N, L] or f32[N, E]
  mask      f32[N], 0 for answers that the task does not have.
Rows that a task lacks have y = -1. In training there may also be
`extra['asked']` and `extra['captions']`, see `questions.py`.
"""

from collections.abc import Callable
import functools

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.datasets import memmap
from hyperudl.data.language import questions
from hyperudl.data.language import task_set

# Config fields that must have these values for tasks with language.
FIXED = {
  'episode.unlabelled': 0,
  'episode.distractors': 0,
  'episode.group': 'none',
  'episode.proportions': 'balanced',
  'episode.emit_from': 'own',
  'episode.inner_data': 'true',
  'episode.cond_data': 'true',
  'episode.transductive': False,
  'data.shift': 'none',
  'data.augment': 'none',
  'data.augment_individually': False,
  'data.augment_tests': False,
  'data.support_query': 'disjoint',
  'data.image_size': 0,
  'data.classes': '',
}


def check(config: ConfigDict, tasks: task_set.TaskSet, split_name: str) -> None:
  """Check that tasks can fill the episodes of a config.

  Raises:
    core.BadInput: they cannot; the message says which field to set to what.
  """
  rules, learner, words = config.episode, config.learner, len(tasks.words)
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
  for field, off in (('asked', 0), ('captions', False)):
    if config.language[field] and learner.name != 'contrastive':
      raise core.BadInput(
        f'config.language.{field} = {config.language[field]} is for the loss '
        f'of contrastive, not of {learner.name}: set it to {off}'
      )
  if words >= learner.get('vocabulary', words + 1):
    raise core.BadInput(
      f'config.learner.vocabulary = {learner.vocabulary}, but {split_name} has '
      f'{words} words: set it to {words + 1} or more'
    )
  for name, only in FIXED.items():
    section, field = name.split('.')
    value = config[section][field]
    if value != only:
      raise core.BadInput(
        f'config.{name} = {value!r} is not for tasks with language: set it '
        f'to {only!r}'
      )


def make_draw(
  config: ConfigDict, tasks: task_set.TaskSet, *, train: bool
) -> Callable:
  """Make the function that draws episodes of tasks.

  Args:
    config: has `episode.way`, `shot` and `query`, which give way x shot support
      rows and way x query queries, regardless of their classes.
    tasks: tasks to draw from.
    train: whether support and queries are drawn from all images of a task.

  Returns:
    draw: (keys key[B], numbers i32[B] or None) -> core.Episode with the axis
    B, or B, T if `episode.tasks` is T. Numbers choose tasks (or consecutive
    groups of T tasks), modulo the task count; None draws tasks at random.
    `extra` has task f32[total], one-hot; if the set has latents, a random one
    of the task, latent f32[Z]; and unlabelled_y i32[0], class_ids i32[N],
    family i32[] and group i32[].
  """
  check(config, tasks, 'the training set' if train else 'the data')
  rules = config.episode
  sizes = rules.way * rules.shot, rules.way * rules.query
  pools = _pools(rules, tasks, sizes, train)
  plan = jax.jit(functools.partial(_plan, pools, sizes))
  finish = jax.jit(functools.partial(_finish, tasks))
  make_extras = questions.make_extras(config.language, tasks) if train else {}
  take = _make_take(tasks.images, config.data.device_mb)
  group, count = max(rules.tasks, 1), len(tasks.names)

  def draw(keys, numbers=None):
    if numbers is None:
      numbers = _draw_tasks(keys, count, group).reshape(-1)
    elif group > 1:
      numbers = (numbers[:, None] * group + jnp.arange(group)).reshape(-1)
    if group > 1:
      split = jax.vmap(lambda key: jax.random.split(key, group))
      keys = split(keys).reshape(-1)
    plans = plan(keys, numbers % count)
    episode = finish(plans, [take(rows) for rows, _ in plans[1:]], keys)
    for name, make in make_extras.items():
      episode.extra[name] = make(keys, plans[2][0])
    if not rules.tasks:
      return episode
    regroup = lambda leaf: leaf.reshape(
      len(leaf) // group, group, *leaf.shape[1:]
    )
    return jax.tree.map(regroup, episode)

  return draw


def _make_take(images, device_mb):
  """Make a function rows i32[B, n] -> images; row -1 gives image 0."""
  if images.nbytes <= device_mb << 20:
    images = jnp.asarray(images)

  def take(rows):
    rows = np.maximum(np.asarray(rows), 0)
    if isinstance(images, np.ndarray):
      return memmap.take(images, rows)
    return images[rows]

  return take


def _pools(rules, tasks, sizes, train):
  """Return [(rows, y)] to draw from: one of all images, or support, queries."""
  pools = [(tasks.support, tasks.support_y), (tasks.query, tasks.query_y)]
  if train:
    pools = [[np.concatenate(parts, axis=1) for parts in zip(*pools)]]
    sizes = [sum(sizes)]
  else:
    _warn_of_missing_rows(rules, pools, sizes)
  return [
    tuple(_widened(part, size) for part in pool)
    for pool, size in zip(pools, sizes)
  ]


def _warn_of_missing_rows(rules, pools, sizes):
  """Log a warning if no task can fill the rows of an evaluation's episode."""
  for field, (rows, _), size in zip(('shot', 'query'), pools, sizes):
    if size > rows.shape[1]:
      logging.warning(
        'config.episode.%s = %d asks for %d images of a task, and the largest '
        'brings %d: episodes hold what there is',
        field,
        rules[field],
        size,
        rows.shape[1],
      )


@functools.partial(jax.jit, static_argnames=('count', 'group'))
def _draw_tasks(keys, count, group):
  """Draw i32[B, group], task numbers that differ within an episode."""

  def draw(key):
    scores = jax.random.uniform(jax.random.fold_in(key, 1), (count,))
    return jax.lax.top_k(scores, group)[1]

  return jax.vmap(draw)(keys)


def _widened(part, size):
  missing = max(0, size - part.shape[1])
  return np.pad(part, ((0, 0), (0, missing)), constant_values=-1)


def _plan(pools, sizes, keys, numbers):
  """Return (numbers, (rows, y) of the support, (rows, y) of the queries)."""

  def choose(key, number, pool, size):
    rows, y = (jnp.asarray(part)[number] for part in pool)
    scores = jax.random.uniform(key, rows.shape)
    # Missing rows (-1) come last.
    order = jax.lax.top_k(jnp.where(rows < 0, -1.0, scores), size)[1]
    return rows[order], y[order]

  def plan_one(key, number):
    keys = jax.random.split(key)
    if len(pools) == 2:
      return [choose(k, number, p, s) for k, p, s in zip(keys, pools, sizes)]
    return _divide(*choose(keys[0], number, pools[0], sum(sizes)), sizes)

  support, query = jax.vmap(plan_one)(keys, numbers)
  return numbers, support, query


def _divide(rows, y, sizes):
  """Divide drawn images into [(rows, y) of the support, (rows, y) of queries].

  If a task has too few images, both get them in proportion to their sizes,
  and there is at least one query.
  """
  present = jnp.sum(rows >= 0)
  queries = jnp.maximum(1, jnp.round(present * sizes[1] / sum(sizes)))
  cut = jnp.minimum(sizes[0], present - queries.astype(present.dtype))
  support = jnp.arange(sizes[0])
  query = cut + jnp.arange(sizes[1])
  in_support = support < cut
  clipped = jnp.minimum(query, rows.shape[0] - 1)
  return [
    (
      jnp.where(in_support, rows[support], -1),
      jnp.where(in_support, y[support], -1),
    ),
    (rows[clipped], jnp.where(query < present, y[clipped], -1)),
  ]


def _finish(tasks, plans, pixels, keys):
  numbers, (_, support_y), (query_rows, query_y) = plans
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
    'query_rows': query_rows,
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
