"""CNNs written for a sequence of tasks, and the prototypes that they leave.

`learners/continual.py` says what is written from what.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import config
from hyperudl.learners.hypertransformer import episode_network
from hyperudl.ops import losses


class Run(NamedTuple):
  """Static choices; see `learners/continual.py`."""

  s: config.Settings
  way: int
  kind: str
  scenario: str
  tasks: int
  change: float


def in_order(r, support):
  """The supports in their order, with a leading axis T."""
  if r.scenario != 'batches':
    if support.x.ndim != 5:
      raise core.BadInput(
        'continual learning takes sequences of tasks: set episode.tasks, or '
        "learner.scenario='batches'"
      )
    return core.Examples(support.x, support.y)
  rows = support.y.shape[0]
  if support.x.ndim != 4 or rows % (r.way * r.tasks):
    raise core.BadInput(
      f"scenario='batches' deals the support of one task to learner.tasks="
      f'{r.tasks} parts: set episode.tasks=0, and episode.shot and unlabelled '
      f'to multiples of {r.tasks}, or the {rows} rows cannot be dealt evenly'
    )
  # Rows come class by class, then unlabelled ones in random order.
  order = jnp.arange(rows).reshape(-1, r.tasks).T
  return core.Examples(support.x[order], support.y[order])


def adapt(r, params, support, key, train):
  """The CNNs theta_1..T, stacked, and the prototypes of every step."""
  parts = in_order(r, support)
  keys = jax.random.split(key, parts.y.shape[0])
  if r.kind == 'merged':
    cnns = _merged(r, params, parts, keys, train)
  else:
    cnns = _in_turn(r, params, parts, keys, train)
  means = lambda cnn, part: losses.class_means(
    episode_network.embed(r.s, cnn, part.x), part.y, r.way
  )
  if r.kind == 'merged':
    # It sees all supports, so it may compare with what it makes of them now.
    all_parts = lambda cnn: jax.lax.map(lambda part: means(cnn, part), parts)
    prototypes = jax.lax.map(all_parts, cnns)
  else:
    own = jax.lax.map(lambda pair: means(*pair), (cnns, parts))
    if r.scenario == 'batches':
      rows = jnp.sum(jax.nn.one_hot(parts.y, r.way), axis=1)[..., None]
      seen = jnp.maximum(jnp.cumsum(rows, axis=0), 1.0)
      own = jnp.cumsum(rows * own, axis=0) / seen
    prototypes = jnp.broadcast_to(own, (own.shape[0], *own.shape))
  return {'cnns': cnns, 'prototypes': prototypes, 'scale': _scale(r, params)}


def _scale(r, params):
  return jnp.exp(params['log_scale']) if r.s.logits_scale else jnp.float32(1.0)


def _in_turn(r, params, parts, keys, train):
  """theta_1..T, each written from its own support and the one before."""
  write = functools.partial(episode_network.write, r.s, params)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  shapes = jax.eval_shape(lambda: write(first, keys[0], train))
  start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)

  carried, changed = r.kind == 'continual', jnp.array([1.0, r.change])

  def step(before, inputs):
    part, key, number = inputs
    mix = None
    if carried and r.change:  # the first network is written as it is
      mix = jnp.where(number == 0, jnp.array([0.0, 1.0]), changed)
    cnn = write(part, key, train, previous=before if carried else None, mix=mix)
    return cnn, cnn

  numbers = jnp.arange(parts.y.shape[0])
  return jax.lax.scan(step, start, (parts, keys, numbers))[1]


def _merged(r, params, parts, keys, train):
  """theta_1..T, each written from all supports so far."""
  count, rows = parts.y.shape
  if count > r.tasks:
    raise core.BadInput(
      f"kind='merged' tells the classes of learner.tasks={r.tasks} tasks "
      f'apart, and got {count}: it cannot meet more than it was made for'
    )
  number = jnp.repeat(jnp.arange(count), rows)
  y = parts.y.reshape(-1)
  y = jnp.where(y < 0, -1, y + r.way * number)
  support = core.Examples(parts.x.reshape(-1, *parts.x.shape[2:]), y)

  def write(inputs):
    t, key = inputs
    later = (number > t).astype(jnp.float32)
    return episode_network.write(
      r.s, params, support, key, train, removed=later
    )

  return jax.lax.map(write, (jnp.arange(count), keys))
