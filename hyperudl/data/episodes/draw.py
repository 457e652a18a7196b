"""Draws episodes from a data set as a pure function of their keys.

A draw has three parts: indices (jitted), the gather of uint8 pixels where they
are stored (on the device if the set fits there, else by numpy, possibly from a
memory map), and the rest (jitted): pixels / 255, augmentation, shift. The bytes
are the same either way; episode i depends only on keys[i]. The program of the
indices takes longest to compile; it is shared by all draws of one process that
differ only in what happens to the pixels.

Support rows are the labelled ones, class by class (in random order where
data.support_query is 'joint'), then the unlabelled ones (y = -1); unlabelled
rows and queries come in random order, so that the place of a row does not
reveal its class. The label of a class is its place among the drawn classes,
which come in random order. Unlabelled rows and queries of an episode share one
shift; labelled rows stay clean. `varying.py` is about episodes of any size.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data.datasets import Dataset
from hyperudl.data.datasets import memmap
from hyperudl.data.episodes import augment
from hyperudl.data.episodes import groups
from hyperudl.data.episodes import sampling
from hyperudl.data.episodes import shifts
from hyperudl.data.episodes import spec as spec_lib
from hyperudl.data.episodes import varying
from hyperudl.data.language import episodes as language_episodes
from hyperudl.data.language import task_set
from hyperudl.ops import image as image_ops

_EMIT_MEAN_OF = 64  # number of supports of emit_from='mean'


def make_draw(
  config: Any,
  dataset: Dataset | task_set.TaskSet,
  *,
  train: bool,
  training_set: Dataset | None = None,
) -> Callable[..., core.Episode]:
  """Make the function that draws episodes.

  Args:
    config: has the sections `episode` and `data` of `core.config.RunConfig`.
      Sets of more than `data.device_mb` MiB stay on disk or in host memory.
    dataset: images or features, or tasks (see `data.language.episodes`).
    train: whether to draw for training; otherwise `data.augment` applies only
      if `data.augment_tests` is set.
    training_set: source of supports for `episode.emit_from` 'mean' and 'other'.

  Returns:
    draw: key[B] -> core.Episode whose leaves have the leading axis B, or B, T
      if `episode.tasks` is T; with a `TaskSet` a second argument chooses tasks.
      `extra` has unlabelled_y i32[U] (N or more for other classes), class_ids
      i32[N], query_rows i32[Q] (rows of the data set) and family i32[] (see
      `shifts.family_name`). `support.context` is None or has the controls that
      the config asks for: inner, cond and phi, all f32[U, H, W, C] (U = 0 for
      'none'), and emit_from (Examples with the axis M = 64 for 'mean', 1 for
      'other').

  Raises:
    core.BadInput: an unknown choice, or one that does not fit the data.
  """
  if isinstance(dataset, task_set.TaskSet):
    return language_episodes.make_draw(config, dataset, train=train)
  spec = spec_lib.read(config, train)
  spec_lib.check(spec, dataset, 'the training set' if train else 'the data')
  if spec.group == 'alphabet':
    groups.log_left_out(dataset, spec.classes)
  sources: dict[str, Any] = {'own': dataset}
  if 'other' in (spec.inner_data, spec.cond_data, spec.phi_from):
    sources['other'] = dataset
  if spec.emit_from != 'own':
    _check_training_set(spec, dataset, training_set)
    sources['emit'] = training_set
  plan = functools.partial(_plan_batch, *_plan_settings(spec, sources))
  finish = functools.partial(_finish_batch, spec)
  # Two sources of one data set share one copy of the pixels.
  stores = {id(s.images): s.images for s in sources.values()}
  size = sum(images.nbytes for images in stores.values())
  if size > config.data.device_mb << 20:
    return _draw_from_host(plan, finish, sources)
  return _draw_on_device(plan, finish, sources, stores)


def check_fits(
  config: Any, dataset: Dataset | task_set.TaskSet, split_name: str
) -> None:
  """Check that a data set can fill episodes of `way` classes.

  Args:
    config: as for `make_draw`.
    dataset: as for `make_draw`.
    split_name: name of the data in error messages.

  Raises:
    core.BadInput: the data set cannot fill them.
  """
  if isinstance(dataset, task_set.TaskSet):
    language_episodes.check(config, dataset, split_name)
  else:
    spec = spec_lib.read(config, True, ranges=False)
    spec_lib.check(spec, dataset, split_name)


def _check_training_set(spec, dataset, training_set):
  field = f'episode.emit_from={spec.emit_from!r}'
  if training_set is None:
    raise core.BadInput(f"{field} needs the training set, got none: use 'own'")
  shape, expected = training_set.images.shape[1:], dataset.images.shape[1:]
  if shape != expected:
    raise core.BadInput(
      f'{field}: training images are {shape}, those of the episodes '
      f'{expected}: set data.image_size'
    )
  single = dataclasses.replace(spec, tasks=0)
  spec_lib.check(single, training_set, 'the training set')


def _draw_on_device(plan, finish, sources, stores):
  copies = {key: jnp.asarray(images) for key, images in stores.items()}
  stores = {name: copies[id(s.images)] for name, s in sources.items()}

  @jax.jit
  def gather_and_finish(plans, stores):
    pixels = {name: _gather(stores[name], plans[name]) for name in plans}
    # Like two separate programs, so that this rounds as `_draw_from_host` does.
    return finish(plans, jax.lax.optimization_barrier(pixels))

  return lambda keys, numbers=None: gather_and_finish(plan(keys), stores)


def _draw_from_host(plan, finish, sources):
  finish = jax.jit(finish)

  def draw(keys, numbers=None):
    del numbers
    plans = plan(keys)
    pixels = {n: _gather(sources[n].images, plans[n]) for n in plans}
    return finish(plans, pixels)

  return draw


def _gather(images, plan):
  """Return uint8 pixels of support and targets, on the device or from numpy."""
  if isinstance(images, np.ndarray):
    rows = np.asarray(plan.support), np.asarray(plan.targets)
    return tuple(memmap.take(images, part) for part in rows)
  take = lambda rows: images.at[rows].get(mode='promise_in_bounds')
  return take(plan.support), take(plan.targets)


class _Classes(NamedTuple):
  """Where the images of each class are: what a plan reads of a `Dataset`."""

  counts: tuple[int, ...]
  starts: tuple[int, ...]
  alphabets: tuple[str, ...] | None  # None if they are not asked for


def _plan_settings(spec, sources):
  """Return what plans depend on, hashable: a `Spec`, {source: `_Classes`}."""
  data = config_lib.DataConfig(support_query=spec.data.support_query)
  integers = lambda numbers: tuple(map(int, numbers))
  grouped = spec.group == 'alphabet'
  classes = {
    name: _Classes(
      *(integers(s.counts), integers(s.starts)),
      tuple(s.alphabets) if grouped else None,
    )
    for name, s in sources.items()
  }
  controls = {'inner_data': 'true', 'cond_data': 'true', 'phi_from': 'own'}
  spec = dataclasses.replace(spec, data=data, **controls)
  return spec, tuple(sorted(classes.items()))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _plan_batch(spec, sources, keys):
  """Draw {source: `sampling.Plan`}, E = B x max(T, 1), times M for 'emit'."""
  count, sources = max(spec.tasks, 1), dict(sources)
  copies = 1 if spec.emit_from == 'other' else _EMIT_MEAN_OF

  def plan(key):
    keys = jax.random.split(key, 3 + count)
    draw_plan = sampling.draw_plan
    if spec.unlabelled_classes == 'other':
      draw_plan = sampling.draw_plan_of_other_classes
    plans = {'own': draw_plan(keys[2:], spec, sources['own'])}
    if 'other' in sources:
      keys_other = jax.random.split(keys[0], 1 + count)
      plans['other'] = draw_plan(keys_other, spec, sources['other'])
    if 'emit' in sources:
      keys_emit = jax.random.split(keys[1], (count * copies, 2))
      draw = lambda keys: sampling.draw_plan(keys, spec, sources['emit'])
      emit = jax.vmap(draw)(keys_emit)
      plans['emit'] = jax.tree.map(lambda leaf: leaf[:, 0], emit)
    return plans

  flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
  return jax.tree.map(flat, _map_episodes(plan, keys))


def _finish_batch(spec, plans, pixels):
  """Make a batch of episodes from plans and uint8 pixels, dicts by source."""
  finish = functools.partial(_finish_episode, spec)
  support, query, extra = _map_episodes(finish, plans['own'], pixels['own'])
  context = _make_context(spec, plans, pixels, support.x.shape)
  episode = core.Episode(support._replace(context=context), query, extra)
  if not spec.tasks:
    return episode
  # Not reshape(-1, ...): without unlabelled rows some arrays have size zero.
  group = lambda leaf: leaf.reshape(
    leaf.shape[0] // spec.tasks, spec.tasks, *leaf.shape[1:]
  )
  return jax.tree.map(group, episode)


def _finish_episode(spec, plan, pixels):
  """Make (support, query, extra) of one episode of a `Plan`, without axis E."""
  class_key, support_key, target_key, shift_key, _ = plan.keys
  # One class key, so that a class is augmented alike in support and queries.
  augmented = functools.partial(augment.apply, spec.data, class_key)
  labelled = augmented(support_key, pixels[0], plan.support_y)
  targets = augmented(target_key, pixels[1], plan.target_y)
  targets, family = shifts.apply(shift_key, targets, spec.data.shift)
  if spec.transductive:
    unlabelled, query = targets, targets
    y = plan.target_y, plan.target_y
    query_rows = plan.targets
  else:
    cut = lambda rows: jnp.split(rows, [spec.way * spec.query])
    query, unlabelled = cut(targets)
    y = cut(plan.target_y)
    query_rows, _ = cut(plan.targets)
  support = core.Examples(
    jnp.concatenate([labelled, unlabelled]),
    jnp.concatenate([plan.support_y, jnp.full_like(y[1], -1)]),
  )
  if plan.empty is not None:
    support, y = varying.remove_empty(support, y, plan.empty)
  extra = {
    'unlabelled_y': y[1],
    'class_ids': plan.class_ids,
    'query_rows': query_rows,
    'family': family,
  }
  return support, core.Examples(query, y[0]), extra


def _map_episodes(function, *args):
  """Map over the leading axis: vectorised, or one at a time on a CPU."""
  if jax.default_backend() != 'cpu':
    return jax.vmap(function)(*args)
  # On a CPU a loop computes only the shift that is drawn. An entry's bytes do
  # not depend on the others if XLA neither fuses the body with the loop (hence
  # barriers) nor unrolls a short one (as seen with one and two steps; hence at
  # least four).
  count = jax.tree.leaves(args)[0].shape[0]
  if count < 4:
    padded = np.minimum(np.arange(4), count - 1)
    args = jax.tree.map(lambda leaf: leaf[padded], args)
  barrier = jax.lax.optimization_barrier
  result = jax.lax.map(lambda entry: barrier(function(*barrier(entry))), args)
  return jax.tree.map(lambda leaf: leaf[:count], result)


def _make_context(spec, plans, pixels, shape):
  """Make the images for the controls, or None; `shape` is that of support.x."""
  finish = functools.partial(_finish_episode, spec)
  labelled = spec.way * spec.shot
  context = {}
  choices = ('inner', spec.inner_data), ('cond', spec.cond_data)
  for name, choice in (*choices, ('phi', spec.phi_from)):
    if choice == 'none':
      context[name] = jnp.zeros((shape[0], 0, *shape[2:]))
    elif choice == 'noise':
      noise_shape = (shape[1] - labelled, *shape[2:])
      noise = functools.partial(image_ops.noise_images, shape=noise_shape)
      context[name] = _map_episodes(noise, plans['own'].keys[:, 4])
    elif choice == 'other':
      other, _, _ = _map_episodes(finish, plans[choice], pixels[choice])
      context[name] = other.x[:, labelled:]
  if spec.emit_from != 'own':
    supports, _, _ = _map_episodes(finish, plans['emit'], pixels['emit'])
    group = lambda leaf: leaf.reshape(shape[0], -1, *leaf.shape[1:])
    context['emit_from'] = jax.tree.map(group, supports)
  return context or None
