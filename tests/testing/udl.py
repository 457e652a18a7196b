"""A tiny `udl` learner, its episodes, and programs that are compiled once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners import udl
from hyperudl.learners.udl import hypernetwork
from tests.testing import tiny_sizes

WAY = 3


def tiny_config(**changes):
  return udl.Config(way=WAY, **{**tiny_sizes.TINY['udl'], **changes})


@functools.cache
def tiny_udl(**changes):
  return udl.make(tiny_config(**changes))


def episode(unlabelled=4, size=10, context=None):
  keys = jax.random.split(jax.random.key(5), 2)
  x = jax.random.uniform(keys[0], (WAY + unlabelled, size, size, 1))
  y = jnp.array([*range(WAY), *[-1] * unlabelled])
  query = jax.random.uniform(keys[1], (5, size, size, 1))
  return core.Episode(
    core.Examples(x, y, context), core.Examples(query, jnp.arange(5) % WAY)
  )


@functools.cache
def compiled(learner):
  """Adapt and predict of a learner as two programs."""
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  return adapt, jax.jit(learner.predict)


def logits(learner, params, data):
  adapt, predict = compiled(learner)
  task = adapt(params, data.support, jax.random.key(1))
  return predict(params, task, data.query.x, None)


@functools.cache
def random_params(learner, seed=0):
  """Random values in the shapes that `init` makes.

  At their initial values some gradients are zero.
  """
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


def without_inner(params):
  """The parameters of phase 'base'."""
  return {k: v for k, v in params.items() if k != 'inner'}


def on_network(config, function, params=None):
  """`function` of (params, generated network, support) as one program.

  Returns:
    Images of a support, by default those of `episode`, -> its result.
  """
  support = episode().support
  if params is None:
    params = random_params(udl.make(config))

  @jax.jit
  def run(params, support):
    network = hypernetwork.generate(config, params, support)
    return function(params, network, support)

  return lambda x=support.x: run(params, support._replace(x=x))
