"""Small networks with random weights, ready to be adapted, for tests."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import image_inputs
from hyperudl.models import model as model_lib
from hyperudl.training import setup
from tests.testing import tiny_sizes

INPUTS = image_inputs.Inputs(8, 8, 1)
CLASSES = ('ant', 'bee', 'cat')


@functools.cache
def make(name='protonet', inputs=INPUTS, way=3, **fields):
  """Return a `Model` for up to `way` classes, with weights not trained.

  Args:
    name: of a config.
    inputs: images that it takes.
    way: largest number of classes.
    **fields: of the config's section `learner`.
  """
  config = importlib.import_module(f'configs.{name}').get_config().unlock()
  config.episode.way, config.episode.shot = way, 2
  config.learner.update(tiny_sizes.TINY[config.learner.name] | fields)
  config.lock()
  x = jnp.zeros((6, *inputs.shape))
  examples = core.Examples(x, jnp.zeros(6, jnp.int32))
  init = jax.jit(setup.make_learner(config).init)
  params = init(jax.random.key(1), core.Episode(examples, examples))
  return model_lib.Model(config, params, inputs, 7, {'data': 'none'})


def pixels(count, seed=0, size=8):
  """Return images uint8[count, size, size], each a bar of its own."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, size, size), np.uint8)


def support(shots=2):
  """Return (images uint8[3 shots, 8, 8], labels of `CLASSES`)."""
  labels = np.repeat(CLASSES, shots)
  base = np.repeat(pixels(3, seed=5).astype(int), shots, axis=0)
  noise = np.random.default_rng(6).normal(0, 20, base.shape)
  return np.clip(base + noise, 0, 255).astype(np.uint8), labels
