"""Generates a CNN for each task of a sequence, and stores class prototypes.

`learners/continual.py` has the equations.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import target_network
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.ops import losses


def in_order(
  config: config_lib.ContinualConfig, support: core.Examples
) -> core.Examples:
  """Return the supports of all tasks, in order along a leading axis T.

  Raises:
    core.BadInput: for a support of the wrong form.
  """
  if config.scenario != 'batches':
    if support.x.ndim != 5:
      raise core.BadInput(
        'continual learning takes sequences of tasks: set episode.tasks, or '
        "learner.scenario='batches'"
      )
    return core.Examples(support.x, support.y)
  rows = support.y.shape[0]
  if support.x.ndim != 4 or rows % (config.way * config.tasks):
    raise core.BadInput(
      f"scenario='batches' deals the support of one task to learner.tasks="
      f'{config.tasks} parts: set episode.tasks=0, and episode.shot and '
      f'unlabelled to multiples of {config.tasks}, or the {rows} rows cannot '
      'be dealt evenly'
    )
  # Rows are sorted by class, followed by the unlabelled ones in random order.
  order = jnp.arange(rows).reshape(-1, config.tasks).T
  return core.Examples(support.x[order], support.y[order])


def adapt(
  config: config_lib.ContinualConfig,
  params: core.PyTree,
  support: core.Examples,
  key: jax.Array,
  *,
  train: bool,
) -> dict[str, core.PyTree]:
  """Generate the CNNs theta_1..T, and all prototypes after every task.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: of all tasks.
    key: PRNG key of dropout.
    train: whether dropout is on.

  Returns:
    {'cnns': parameters with a leading axis T, 'prototypes': f32[T, T, N, D],
    those of task tau (second axis) after task t (first axis), 'scale': f32[]}.
  """
  network = config.network()
  parts = in_order(config, support)
  keys = jax.random.split(key, parts.y.shape[0])
  means = lambda cnn, part: losses.class_means(
    target_network.embed(network, cnn, part.x), part.y, config.way
  )
  if config.kind == 'merged':
    cnns = _merged(config, params, parts, keys, train)
    # It has all supports, so prototypes can use the features of the latest CNN.
    all_parts = lambda cnn: jax.lax.map(lambda part: means(cnn, part), parts)
    prototypes = jax.lax.map(all_parts, cnns)
  else:
    cnns = _in_turn(config, params, parts, keys, train)
    stored = jax.lax.map(lambda pair: means(*pair), (cnns, parts))
    if config.scenario == 'batches':
      rows = jnp.sum(jax.nn.one_hot(parts.y, config.way), axis=1)[..., None]
      counts = jnp.maximum(jnp.cumsum(rows, axis=0), 1.0)
      stored = jnp.cumsum(rows * stored, axis=0) / counts
    prototypes = jnp.broadcast_to(stored, (stored.shape[0], *stored.shape))
  scale = hypertransformer.distance_scale(network, params)
  return {'cnns': cnns, 'prototypes': prototypes, 'scale': scale}


def _in_turn(config, params, parts, keys, train):
  """Generate theta_1..T, each from its support and, by kind, the CNN before."""
  generate = functools.partial(
    weight_generator.generate, config.network(), params
  )
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  shapes = jax.eval_shape(lambda: generate(first, keys[0], train))
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
  is_carried = config.kind == 'continual'

  def step(previous, inputs):
    part, key, number = inputs
    conditioning = weight_generator.Conditioning(
      previous if is_carried else None
    )
    if is_carried and config.change:  # the first CNN is added to zeros, times 1
      scale = jnp.where(number == 0, 1.0, config.change)
      conditioning = conditioning._replace(residual_scale=scale)
    cnn = generate(part, key, train, conditioning)
    return cnn, cnn

  numbers = jnp.arange(parts.y.shape[0])
  return jax.lax.scan(step, zeros, (parts, keys, numbers))[1]


def _merged(config, params, parts, keys, train):
  """Generate theta_1..T, each from all supports so far (MergedHT)."""
  count, rows = parts.y.shape
  if count > config.tasks:
    raise core.BadInput(
      f"kind='merged' tells the classes of learner.tasks={config.tasks} tasks "
      f'apart, and got {count}: it cannot meet more than it was made for'
    )
  number = jnp.repeat(jnp.arange(count), rows)
  y = parts.y.reshape(-1)
  y = jnp.where(y < 0, -1, y + config.way * number)
  support = core.Examples(parts.x.reshape(-1, *parts.x.shape[2:]), y)
  network = config.network()

  def generate(inputs):
    t, key = inputs
    later = (number > t).astype(jnp.float32)
    conditioning = weight_generator.Conditioning(removed=later)
    return weight_generator.generate(
      network, params, support, key, train, conditioning
    )

  return jax.lax.map(generate, (jnp.arange(count), keys))
