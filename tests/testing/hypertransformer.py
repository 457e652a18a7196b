"""A tiny HyperTransformer in several settings, one compilation each."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl import learners
from hyperudl.nets import conv

WAY = 3
TINY = {
  'channels': 4,
  'depth': 2,
  'features': 4,
  'shared': '2-layer',
  'shared_dim': 4,
  'embedding': 6,
  'layers': 1,
  'key_query': 0.5,
}
SETTINGS = {
  'reference': {},
  'everything generated': {
    'depth': 1,
    'generate_bias': True,
    'generate_norm': True,
    'attention': 'sigmoid',
  },
  'spatial': {
    'depth': 1,
    'allocation': 'spatial',
    'net': 'strided',
    'norm': 'none',
    'features': -1,
    'shared': 'none',
    'inner': 0.0,
  },
  'logits only': {
    'depth': 1,
    'trained_layers': 1,
    'logits_scale': 0.5,
    'logits_features': 'mix',
    'dropout': 0.3,
    'shared_dropout': 0.3,
    'feature_dropout': 0.3,
    'label_smoothing': 0.2,
    'l2_reg_weight': 0.03,
  },
  'separate': {
    'generator': 'separate',
    'add_learned': True,
    'variation_weight': 0.01,
    'block_scale': 0.5,
    'remove_labelled': 0.5,
    'remove_unlabelled': 1.0,
    'shared_head_weight': 0.1,
    'shared_head_classes': 7,
    'warmup_steps': 10,
  },
  'decoder': {
    'decoder': True,
    'separate_norm': True,
    'block_scale': 0.5,
  },
  'prototypes': {'depth': 1, 'head': 'prototypes', 'logits_scale': 0.02},
}
STEP = 7  # of the runs


def episode_of(unlabelled=0, size=12, seed=0):
  """3-way 2-shot, 4 queries per class; images show the pattern of a class."""
  rng = np.random.default_rng(seed)
  patterns = rng.uniform(size=(WAY, size, size, 1))

  def examples(y):
    x = 0.7 * patterns[y] + 0.3 * rng.uniform(size=(len(y), size, size, 1))
    return jnp.asarray(x, jnp.float32)

  y = np.tile(np.arange(WAY), 2)
  query_y = np.tile(np.arange(WAY), 4)
  x, query_x = examples(y), examples(query_y)
  y[len(y) - unlabelled :] = -1
  to_labels = lambda y: jnp.asarray(y, jnp.int32)
  return core.Episode(
    core.Examples(x, to_labels(y)),
    core.Examples(query_x, to_labels(query_y)),
    {'class_ids': jnp.array([6, 0, 3])},
  )


def random_params(shapes):
  """Parameters of these shapes, none of which is zero."""
  rng = np.random.default_rng(1)
  # Factors of distances are small, or predictions are all but certain.
  centers = {'scale': 1.0, 'log_scale': -5.0}
  return jax.tree.map_with_path(
    lambda path, leaf: np.float32(
      0.3 * rng.normal(size=leaf.shape)
      + centers.get(getattr(path[-1], 'key', ''), 0.0)
    ),
    shapes,
  )


class Run(NamedTuple):
  value: jax.Array
  metrics: dict
  task: dict
  logits: jax.Array
  grads: dict


def make(**settings):
  """The tiny learner with other settings."""
  return learners.make('hypertransformer', WAY, {**TINY, **settings})


def block_features(block, layer, x):
  """Flat features f32[n, D] of images in [0, 1] by a CNN of one block."""
  return block.apply({'params': layer}, 2 * x - 1).reshape(len(x), -1)


def class_means(features, y):
  """f64[WAY, D], by numpy."""
  y = np.asarray(y)
  return np.stack([np.asarray(features)[y == c].mean(0) for c in range(WAY)])


@functools.cache
def build(name='reference'):
  """(parameters, jitted (params, episode) -> Run in training)."""
  learner = make(**SETTINGS[name])
  init = lambda: learner.init(jax.random.key(0), episode_of())

  def loss(params, episode):
    key = jax.random.key(1)
    value, metrics = learner.loss(params, episode, key, STEP)
    task = learner.adapt(params, episode.support, key, train=True)
    logits = learner.predict(params, task, episode.query.x, None)
    return value, (metrics, task, logits)

  @jax.jit
  def run(params, episode):
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (value, aux), grads = value_and_grad(params, episode)
    return Run(value, *aux, grads)

  return random_params(jax.eval_shape(init)), run


def block_of(name):
  """The module of one convolution of the CNN of a setting."""
  settings = {**TINY, **SETTINGS[name]}
  return conv.ConvBlock(
    settings['channels'], norm='batch', order='conv_act_pool_norm'
  )
