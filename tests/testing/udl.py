"""A tiny `udl` learner, its episodes, and programs that are made once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners import udl
from tests.testing import tiny_sizes

WAY = 3


@functools.cache
def tiny_udl(**changes):
  return udl.make(WAY, **{**tiny_sizes.TINY['udl'], **changes})


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
  """Adapt and predict of a learner as two programs, made once."""
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  return adapt, jax.jit(learner.predict)


def answer(learner, params, data):
  adapt, predict = compiled(learner)
  task = adapt(params, data.support, jax.random.key(1))
  return predict(params, task, data.query.x, None)


@functools.cache
def fresh(learner):
  """Parameters with small random values in the shapes that `init` makes."""
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )
