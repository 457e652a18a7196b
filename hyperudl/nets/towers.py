"""Small towers for images and strings that meet in one space (after CLIP).

Radford et al. 2021, arXiv:2103.00020, at a size that a CPU trains in a minute,
with second-order pooling (Carreira et al. 2012, "Semantic segmentation with
second-order pooling") in both towers: an image is a grid of patches, each
through one perceptron to a vector e_t of d numbers, a string the sum v of its
words, and
  <image, string> = sum_t (v . e_t)^2.
The square binds what one patch has ("green ink" with "red tile"), in pairs that
no string of the training put together too.
"""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

FLAT = 1e-4  # added to squares: keeps flat patches finite, faint ones faint


class ImageTower(nn.Module):
  """Images f32[n, H, W, C] -> f32[n, width]; `grid` divides H and W.

  A patch is seen as it is, with its contrast normalised, and as the contrast of
  each pixel whatever its colour (after Jarrett et al. 2009, "What is the best
  multi-stage architecture for object recognition?"): what is written in any
  colour on any ground looks alike there.
  """

  width: int = 300
  hidden: tuple[int, ...] = (192, 96)
  grid: int = 2

  @nn.compact
  def __call__(self, x):
    n, height, width, channels = x.shape
    g = self.grid
    if height % g or width % g:
      raise ValueError(
        f'images of {height} x {width} pixels do not part into {g} x {g} '
        'patches: set learner.grid'
      )
    x = x.reshape(n, g, height // g, g, width // g, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, g * g, -1, channels)
    even, contrast = normalise_contrast(x)
    views = (x - 0.5, even, contrast - 1.0)
    x = jnp.concatenate([v.reshape(n, g * g, -1) for v in views], axis=-1)
    for size in self.hidden:
      x = nn.relu(nn.Dense(size)(x))
    d = factors_of(self.width)
    places = self.param('places', nn.initializers.normal(0.5), (g * g, d))
    return pairs(nn.Dense(d)(x) + places)


def normalise_contrast(patches):
  """Takes the mean colour and the contrast out of patches.

  Args:
    patches: f32[..., P, C], P pixels.

  Returns:
    d / s f32[..., P, C] and sqrt(|d|^2 + FLAT) / s f32[..., P], 1 where flat:
    d is the difference of a pixel from the mean of its patch, s the root of
    FLAT and the mean of |d|^2.
  """
  d = patches - patches.mean(axis=-2, keepdims=True)
  squares = jnp.sum(jnp.square(d), axis=-1)
  power = squares.mean(axis=-1, keepdims=True) + FLAT
  even = d * jax.lax.rsqrt(power)[..., None]
  return even, jnp.sqrt((squares + FLAT) / power)


class TextTower(nn.Module):
  """Word ids i32[n, L] (0 = nothing) -> f32[n, width], whatever their order.

  The sum of the words v, in d dimensions, with itself: the values of `pairs`.
  """

  vocabulary: int = 512
  width: int = 300
  inner: int = 96

  @nn.compact
  def __call__(self, ids):
    init = nn.initializers.normal(0.5)
    words = self.param('words', init, (self.vocabulary, self.inner))
    total = jnp.einsum('nl,nlc->nc', (ids > 0).astype(words.dtype), words[ids])
    vector = nn.Dense(factors_of(self.width))(total)
    return pairs(vector[:, None])


def factors_of(width):
  """d, where d (d + 1) / 2 is the width.

  Raises:
    ValueError: there is no such d.
  """
  d = (math.isqrt(8 * width + 1) - 1) // 2
  if d < 1 or d * (d + 1) // 2 != width:
    around = [k * (k + 1) // 2 for k in (max(d, 1), max(d, 1) + 1)]
    raise ValueError(
      f'a width of {width} is no d (d + 1) / 2: choose {around[0]} or '
      f'{around[1]}'
    )
  return d


def pairs(vectors):
  """Products of the parts of vectors, summed: f32[n, T, d] -> [n, d (d+1)/2].

  Two sums of them have the inner product sum_st (v_s . u_t)^2: the upper
  triangle of sum_t v_t v_t^T, off the diagonal times the root of 2.
  """
  d = vectors.shape[-1]
  square = jnp.einsum('ntd,nte->nde', vectors, vectors)
  rows, columns = np.triu_indices(d)
  weights = np.where(rows == columns, 1.0, math.sqrt(2)).astype(np.float32)
  return square[:, rows, columns] * weights
