"""A linear MAML, small but with an inner loop and randomness, for tests."""

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

WAY = 3


def draw_episode(key, rows=4):
  """An episode of normal pixels, whose queries are its support."""
  keys = jax.random.split(key, 2)
  x = jax.random.normal(keys[0], (WAY * rows, 2, 2, 1))
  examples = core.Examples(x, jnp.repeat(jnp.arange(WAY), rows))
  return core.Episode(examples, examples)


def draw_batch(*shape, seed=0):
  """(episodes, keys) with the leading axes `shape`, and one episode."""
  keys = jax.random.split(jax.random.key(seed), shape)
  draw = draw_episode
  for _ in shape:
    draw = jax.vmap(draw)
  return (draw(keys), keys), draw_episode(keys[(0,) * len(shape)])


def make_learner():
  def init(key, episode):
    size = episode.support.x[0].size
    w = 0.1 * jax.random.normal(key, (size, WAY))
    return {'w': w, 'frozen': {'offset': jnp.ones((WAY,))}}

  def logits(params, w, x):
    return x.reshape(x.shape[0], -1) @ w + params['frozen']['offset']

  def adapt(params, support, key, *, train):
    noise = 0.01 * jax.random.normal(key, params['w'].shape)
    loss = lambda w, k: losses.cross_entropy(
      logits(params, w, support.x), support.y
    )
    rates = jnp.full((2,), 0.5)
    return gradient_descent.descend(loss, params['w'] + noise, rates)[0]

  def predict(params, task, x, context):
    return logits(params, task, x)

  return learners.make_learner(init, adapt, predict)


def optimizer_config(**changes):
  """The section `optimizer` of a config: Adam at a constant rate."""
  config = config_dict.ConfigDict(config_lib.base().optimizer)
  config.update(
    {'learning_rate': 0.01, 'schedule': 'constant', 'clip': 0.0}
    | {'end_factor': 0.1, 'decay_steps': 10, 'decay_rate': 0.5}
    | changes
  )
  return config
