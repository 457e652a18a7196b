"""Networks whose weights are written from a latent vector or a question.

Each takes the features of images and the answers of a task to logits:
  adapter  o = W2 relu(W1 x / sqrt(E) + b1) / sqrt(H) + b2 + x, cosines of o
           with the answers (the CLIP-Adapter of Nava et al. 2023,
           arXiv:2210.08942, with its scaling of N(0, 1) weights);
  head     one linear layer with a row for each answer, by its place;
  convnet  a CNN on the pixels, cosines of its features with the answers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl.learners._language import dual_encoder
from hyperudl.nets import conv
from hyperudl.ops import losses

TARGETS = ('adapter', 'head', 'convnet')


class Target(NamedTuple):
  """Static sizes."""

  kind: str
  way: int
  width: int  # E
  hidden: int  # H, of 'adapter'
  channels: tuple  # of 'convnet'
  scale: float  # of the cosines


def check(target):
  """Raises ValueError for an unknown kind or a size out of range."""
  if target.kind not in TARGETS:
    raise ValueError(f'target must be one of {TARGETS}, not {target.kind!r}')
  if target.hidden < 1 or not target.channels or min(target.channels) < 1:
    raise ValueError(
      'hidden and channels must be >= 1, not '
      f'{target.hidden} and {target.channels}'
    )
  if target.scale <= 0:
    raise ValueError(f'scale must be > 0, not {target.scale}')


def init(target, key, x):
  """Weights: a pytree of f32, for images or features x."""
  keys = jax.random.split(key, 4)
  e, h = target.width, target.hidden
  if target.kind == 'head':
    return {
      'kernel': jax.random.normal(keys[0], (e, target.way)),
      'bias': jnp.zeros((target.way,)),
    }
  if target.kind == 'convnet':
    return _convnet(target).init(keys[0], x[:1])['params']
  return {
    'inner': jax.random.normal(keys[0], (e, h)),
    'inner_bias': jax.random.normal(keys[1], (h,)),
    # At zero the adapter leaves the encoder's features as they are.
    'outer': jnp.zeros((h, e)),
    'outer_bias': jnp.zeros((e,)),
  }


def logits(target, weights, x, features, words, film=None):
  """f32[n, N] of images.

  Args:
    target: `Target`.
    weights: as `init` makes them.
    x: f32[n, H, W, C], or features f32[n, E].
    features: f32[n, E] of the frozen encoder.
    words: `language.Words` of the task.
    film: None, or f32[2, H]: scale and shift of the adapter's hidden layer.
  """
  if target.kind == 'head':
    z = losses.unit(features) @ weights['kernel'] + weights['bias']
    return jnp.where(words.mask > 0, z, dual_encoder.NEVER)
  if target.kind == 'convnet':
    out = _convnet(target).apply({'params': weights}, x)
    return dual_encoder.logits(out, words, target.scale)
  e, h = weights['inner'].shape
  hidden = features @ weights['inner'] / jnp.sqrt(e) + weights['inner_bias']
  hidden = jax.nn.relu(hidden)
  if film is not None:
    hidden = hidden * (1 + film[0]) + film[1]
  out = hidden @ weights['outer'] / jnp.sqrt(h) + weights['outer_bias']
  return dual_encoder.logits(out + features, words, target.scale)


def _convnet(target):
  return conv.ConvNet(
    channels=target.channels,
    stride=2,
    pool=False,
    norm='layer',
    head=target.width,
  )
