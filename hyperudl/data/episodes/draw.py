"""Episodes drawn from a data set as a pure function of their keys.

A draw has three parts: indices (jitted), the gather of uint8 pixels where they
live (in the same program when the set fits on the device, else from a memory
map by numpy), and the rest (jitted): pixels / 255, augmentation, shift. The
bytes are the same either way, and episode i depends on keys[i] alone.

Support rows are the labelled ones, class by class (in random order where
data.support_query is 'joint'), then the unlabelled ones (y = -1); unlabelled
rows and queries come in random order, so that a row's place tells nothing of
its class. The label of a class is its place among the drawn classes, which come
in random order. Unlabelled rows and queries of an episode share one shift;
labelled rows stay clean.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import memmap
from hyperudl.data.episodes import augment
from hyperudl.data.episodes import episode_augment
from hyperudl.data.episodes import sampling
from hyperudl.data.episodes import shifts
from hyperudl.data.episodes import spec
from hyperudl.data.language import episodes
from hyperudl.data.language import task_set

_MEAN_OF = 64  # supports whose emissions are averaged by emit_from='mean'


def make_draw(config, dataset, *, train, others=None):
  """Makes the function that draws episodes.

  Args:
    config: has `episode` and `data` as in design.md, see `protocol.read`; more
      pixels than `data.device_mb` MiB stay on the disk or in memory.
    dataset: an `arrays.Dataset`, or a `vqa.TaskSet` (see `vqa_episodes`).
    train: whether `config.data.augment` applies (see `protocol.read`).
    others: the training set, for `episode.emit_from` 'mean' and 'other'.

  Returns:
    draw: key[B] -> core.Episode (a second argument names the tasks of a
      `vqa.TaskSet`) whose leaves have the leading axis B, or B, T when
      `episode.tasks` is T. `extra` has unlabelled_y i32[U] (from N on for
      distractors), class_ids i32[N] and family i32[] (see
      `shifts.family_name`). `support.context` is None or has what is asked
      for: inner f32[U, H, W, C], cond f32[U, H, W, C] (U = 0 for 'none') and
      emit_from (Examples with the axis M = 64 or 1).

  Raises:
    core.BadInput: a choice that does not exist or does not fit the data.
  """
  if isinstance(dataset, task_set.TaskSet):
    return episodes.make_draw(config, dataset, train=train)
  rules = spec.read(config, train)
  spec.check(rules, dataset, 'the training set' if train else 'the data')
  sources = {'own': dataset}
  if 'other' in (rules.inner_data, rules.cond_data):
    sources['other'] = dataset
  if rules.emit_from != 'own':
    _check_others(rules, dataset, others)
    sources['emit'] = others
  plan = functools.partial(_plan, rules, sources)
  finish = functools.partial(_finish, rules)
  # 'own' and 'other' share one copy of the pixels.
  stores = {id(s.images): s.images for s in sources.values()}
  size = sum(images.nbytes for images in stores.values())
  if size > config.data.device_mb << 20:
    return _draw_from_host(plan, finish, sources)
  copies = {name: jnp.asarray(images) for name, images in stores.items()}
  stores = {name: copies[id(s.images)] for name, s in sources.items()}

  @jax.jit
  def draw(keys, stores):
    tasks = plan(keys)
    pixels = {name: _take(stores[name], tasks[name]) for name in tasks}
    # As if these were two programs, so that both routes round alike.
    return finish(*jax.lax.optimization_barrier((tasks, pixels)))

  return lambda keys, numbers=None: draw(keys, stores)


def train_keys(seed, step, batch):
  """The keys of the episodes of update `step`: key[batch].

  Args:
    seed: int, the seed of the run.
    step: int or i32[].
    batch: int; a larger one begins with the same keys.
  """
  return _stream(jax.random.key(seed), 0, step, 0, batch)


def eval_keys(split, start, count):
  """Keys of the fixed episodes start .. start + count - 1 of a split.

  They depend on no seed, so that every model meets the same episodes.

  Args:
    split: 'train', 'valid', 'test' or 'all'.
    start: int.
    count: int.

  Raises:
    core.BadInput: an unknown split.
  """
  splits = ('train', 'valid', 'test', 'all')
  if split not in splits:
    raise core.BadInput(
      f'unknown split {split!r}: choose one of {", ".join(splits)}'
    )
  # Streams 1 to 4 of a constant seed; training uses stream 0 of its own.
  return _stream(jax.random.key(2023), 1 + splits.index(split), 0, start, count)


def check_fits(config, dataset, split_name):
  """Raises core.BadInput if `dataset` cannot fill the episodes of `config`.

  Args:
    config: as for `make_draw`.
    dataset: an `arrays.Dataset`.
    split_name: str, what the message calls the data.
  """
  if isinstance(dataset, task_set.TaskSet):
    episodes.check(config, dataset, split_name)
  else:
    spec.check(spec.read(config, True), dataset, split_name)


@functools.partial(jax.jit, static_argnames=('count',))
def _stream(key, stream, step, start, count):
  key = jax.random.fold_in(jax.random.fold_in(key, stream), step)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(
    start + jnp.arange(count)
  )


def _check_others(rules, dataset, others):
  what = f'episode.emit_from={rules.emit_from!r}'
  if others is None:
    raise core.BadInput(f"{what} needs the training set, got none: use 'own'")
  if others.images.shape[1:] != dataset.images.shape[1:]:
    raise core.BadInput(
      f'{what}: training images are {others.images.shape[1:]}, those of the '
      f'episodes {dataset.images.shape[1:]}: set data.image_size'
    )
  spec.check(rules._replace(tasks=0), others, 'the training set')


def _draw_from_host(plan, finish, sources):
  plan, finish = jax.jit(plan), jax.jit(finish)

  def draw(keys, numbers=None):
    del numbers
    tasks = plan(keys)
    pixels = {name: _take(sources[name].images, tasks[name]) for name in tasks}
    return finish(tasks, pixels)

  return draw


def _take(images, tasks):
  """The uint8 pixels of support and targets, on the device or from numpy."""
  if isinstance(images, np.ndarray):
    rows = np.asarray(tasks.support), np.asarray(tasks.targets)
    return tuple(memmap.take(images, part) for part in rows)
  take = lambda rows: images.at[rows].get(mode='promise_in_bounds')
  return take(tasks.support), take(tasks.targets)


def _plan(rules, sources, keys):
  """`sampling.Tasks` by source, E = B x max(T, 1), times M for 'emit'."""
  count = max(rules.tasks, 1)
  copies = 1 if rules.emit_from == 'other' else _MEAN_OF

  def plan(key):
    keys = jax.random.split(key, 3 + count)
    tasks = {'own': sampling.draw_tasks(keys[2:], rules, sources['own'])}
    if 'other' in sources:
      keys_other = jax.random.split(keys[0], 1 + count)
      tasks['other'] = sampling.draw_tasks(keys_other, rules, sources['other'])
    if 'emit' in sources:
      keys_emit = jax.random.split(keys[1], (count * copies, 2))
      draw = lambda keys: sampling.draw_tasks(keys, rules, sources['emit'])
      emit = jax.vmap(draw)(keys_emit)
      tasks['emit'] = jax.tree.map(lambda leaf: leaf[:, 0], emit)
    return tasks

  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  return jax.tree.map(flat, _each(plan, keys))


def _finish(rules, tasks, pixels):
  """Makes the episodes of `sampling.Tasks` from their uint8 pixels."""
  finish = functools.partial(_finish_task, rules)
  support, query, extra = _each(finish, tasks['own'], pixels['own'])
  context = _context(rules, tasks, pixels, support.x.shape)
  episode = core.Episode(support._replace(context=context), query, extra)
  if not rules.tasks:
    return episode
  # No -1: without unlabelled rows there are arrays of size zero.
  group = lambda leaf: leaf.reshape(
    leaf.shape[0] // rules.tasks, rules.tasks, *leaf.shape[1:]
  )
  return jax.tree.map(group, episode)


def _finish_task(rules, task, pixels):
  """(support, query, extra) of one of `sampling.Tasks`, without axis E."""
  class_key, support_key, target_key, shift_key, _ = task.keys
  label_y = task.support_y
  # With one key for support and queries, so that a class is one class.
  augmented = functools.partial(_augmented, rules, class_key)
  labelled = augmented(support_key, pixels[0], label_y)
  targets = augmented(target_key, pixels[1], task.target_y)
  targets, family = shifts.apply(shift_key, targets, rules.shift)
  if rules.transductive:
    unlabelled, query = targets, targets
    unlabelled_y, query_y = task.target_y, task.target_y
  else:
    cut = lambda rows: jnp.split(rows, [rules.way * rules.query])
    query, unlabelled = cut(targets)
    query_y, unlabelled_y = cut(task.target_y)
  support = core.Examples(
    jnp.concatenate([labelled, unlabelled]),
    jnp.concatenate([label_y, jnp.full_like(unlabelled_y, -1)]),
  )
  extra = {
    'unlabelled_y': unlabelled_y,
    'class_ids': task.class_ids,
    'family': family,
  }
  return support, core.Examples(query, query_y), extra


def _augmented(rules, class_key, image_key, pixels, y):
  """f32[n, H, W, C] in [0, 1] of uint8 `pixels` with the classes i32[n]."""
  if rules.augment == 'rot90':
    pixels = augment.rot90_classes(class_key, pixels, y)
  images = pixels.astype(jnp.float32) / 255
  if rules.whole:
    images = episode_augment.transform(
      class_key, images, y, rules.episode_augment
    )
  if 'images' in rules.augment:
    images = augment.augment_images(
      image_key, images, rules.augment_individually
    )
  return images


def _each(function, *args):
  """Maps a function over the leading axis, each entry alone where it pays."""
  if jax.default_backend() != 'cpu':
    return jax.vmap(function)(*args)
  # On CPU a loop computes only the shift drawn, and an entry the same bytes
  # in any company, if XLA neither fuses the body with the loop (barriers) nor
  # dissolves a short one (at least four steps, seen with one and two).
  count = jax.tree.leaves(args)[0].shape[0]
  if count < 4:
    filled = np.minimum(np.arange(4), count - 1)
    args = jax.tree.map(lambda leaf: leaf[filled], args)
  barrier = jax.lax.optimization_barrier
  result = jax.lax.map(lambda entry: barrier(function(*barrier(entry))), args)
  return jax.tree.map(lambda leaf: leaf[:count], result)


def _context(rules, tasks, pixels, shape):
  """What the evaluation overrides ask for, or None; `shape` of support.x."""
  labelled = rules.way * rules.shot
  context = {}
  for name in ('inner', 'cond'):
    choice = getattr(rules, f'{name}_data')
    if choice == 'none':
      context[name] = jnp.zeros((shape[0], 0, *shape[2:]))
    elif choice == 'noise':
      noise_shape = (shape[1] - labelled, *shape[2:])
      noise = functools.partial(augment.noise_images, shape=noise_shape)
      context[name] = _each(noise, tasks['own'].keys[:, 4])
    elif choice == 'other':
      finish = functools.partial(_finish_task, rules)
      other, _, _ = _each(finish, tasks['other'], pixels['other'])
      context[name] = other.x[:, labelled:]
  if rules.emit_from != 'own':
    finish = functools.partial(_finish_task, rules)
    others, _, _ = _each(finish, tasks['emit'], pixels['emit'])
    group = lambda leaf: leaf.reshape(shape[0], -1, *leaf.shape[1:])
    context['emit_from'] = jax.tree.map(group, others)
  return context or None
