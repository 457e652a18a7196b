"""Defines target networks, whose weights a hypernetwork generates or adapts.

Each is a pure function of its weights that maps images, their features by a
frozen encoder, and the answers of a task to logits.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl.nets import backbones
from hyperudl.nets import towers
from hyperudl.ops import losses


class TargetNet(NamedTuple):
  """A network as pure functions.

  init:   (key, x) -> weights, for images or features x
  logits: (weights, x, features, words, film) -> f32[n, N], where x is
          f32[n, H, W, C] or f32[n, E], features f32[n, E] of the frozen
          encoder, words `towers.Words` of the task, film None or f32[2, H]
  """

  init: Callable
  logits: Callable


def adapter(width: int, hidden: int, scale: float) -> TargetNet:
  """Return an adapter of features, classified by cosines with the answers.

  o = W2 relu(W1 x / sqrt(E) + b1) / sqrt(H) + b2 + x, the CLIP-Adapter of Nava
  et al. 2023 (arXiv:2210.08942), with its scaling of N(0, 1) weights. `film`
  scales and shifts the hidden layer.

  Args:
    width: E, number of features.
    hidden: H.
    scale: factor of the cosines.
  """

  def init(key, x):
    del x
    keys = jax.random.split(key, 4)
    return {
      'inner': jax.random.normal(keys[0], (width, hidden)),
      'inner_bias': jax.random.normal(keys[1], (hidden,)),
      # With zeros the adapter leaves the encoder's features unchanged.
      'outer': jnp.zeros((hidden, width)),
      'outer_bias': jnp.zeros((width,)),
    }

  def logits(weights, x, features, words, film=None):
    del x
    h = features @ weights['inner'] / jnp.sqrt(width) + weights['inner_bias']
    h = jax.nn.relu(h)
    if film is not None:
      h = h * (1 + film[0]) + film[1]
    out = h @ weights['outer'] / jnp.sqrt(hidden) + weights['outer_bias']
    return towers.cosine_logits(out + features, words, scale)

  return TargetNet(init, logits)


def head(width: int, way: int) -> TargetNet:
  """Return a linear layer, unit-length features f32[n, width] to [n, way]."""

  def init(key, x):
    del x
    kernel = jax.random.normal(jax.random.split(key, 4)[0], (width, way))
    return {'kernel': kernel, 'bias': jnp.zeros((way,))}

  def logits(weights, x, features, words, film=None):
    del x, film
    z = losses.unit(features) @ weights['kernel'] + weights['bias']
    return jnp.where(words.mask > 0, z, towers.MASKED_LOGIT)

  return TargetNet(init, logits)


def convnet(width: int, channels: Sequence[int], scale: float) -> TargetNet:
  """Return a CNN on pixels, classified by cosines with the answers.

  Args:
    width: E, number of features of an answer.
    channels: filters of each block.
    scale: factor of the cosines.
  """
  net = backbones.make('conv_stride2', channels, 'layer', head=width)

  def init(key, x):
    return net.init(jax.random.split(key, 4)[0], x[:1])['params']

  def logits(weights, x, features, words, film=None):
    del features, film
    out = net.apply({'params': weights}, x)
    return towers.cosine_logits(out, words, scale)

  return TargetNet(init, logits)
