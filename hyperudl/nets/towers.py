"""Encodes images and strings into one space, in the manner of CLIP.

The encoders follow Radford et al. 2021, arXiv:2103.00020, at a size that a CPU
trains in a minute, with second-order pooling (Carreira et al. 2012, "Semantic
segmentation with second-order pooling") in both towers: an image is a grid of
patches, and an MLP maps each patch t to a vector e_t of d numbers; a string is
the sum v of its words' vectors; and
  <image, string> = sum_t (v . e_t)^2.
The square binds the properties of one patch ("green ink" with "red tile"), also
in combinations that no training string contains.
"""

import math
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.ops import losses

FLAT = 1e-4  # added to squares: keeps flat patches finite, faint ones faint
MASKED_LOGIT = -1e9  # logit of an answer that a task does not have


class Words(NamedTuple):
  """Question and answers of a task as vectors."""

  question: jax.Array  # f32[E]
  answers: jax.Array  # f32[N, E]
  mask: jax.Array  # f32[N], 0 for answers that the task does not have


def cosine_logits(
  features: jax.Array, words: Words, scale: float | jax.Array
) -> jax.Array:
  """Return logits f32[n, N] = scale * cos(features f32[n, E], answers).

  Answers that the task does not have get `MASKED_LOGIT`.
  """
  cosines = losses.unit(features) @ losses.unit(words.answers).T
  return jnp.where(words.mask > 0, scale * cosines, MASKED_LOGIT)


class ImageTower(nn.Module):
  """Encoder of images f32[n, H, W, C] -> f32[n, width].

  The inputs of the MLP of a patch are its pixels, its contrast-normalised
  pixels, and the contrast of each pixel regardless of colour (after Jarrett et
  al. 2009, "What is the best multi-stage architecture for object
  recognition?"), in which a letter looks the same in all colours.

  Attributes:
    width: E = d (d + 1) / 2.
    hidden: widths of the hidden layers of the MLP.
    grid: patches per side; divides H and W.
  """

  width: int = 300
  hidden: tuple[int, ...] = (192, 96)
  grid: int = 2

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Encode images; ValueError if `grid` does not divide H and W."""
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
    inputs = (x - 0.5, even, contrast - 1.0)
    x = jnp.concatenate([v.reshape(n, g * g, -1) for v in inputs], axis=-1)
    for size in self.hidden:
      x = nn.relu(nn.Dense(size)(x))
    d = pair_dimension(self.width)
    places = self.param('places', nn.initializers.normal(0.5), (g * g, d))
    return pairs(nn.Dense(d)(x) + places)


def normalise_contrast(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Remove the mean colour and the contrast from patches.

  Args:
    patches: f32[..., P, C], P pixels.

  Returns:
    d / s f32[..., P, C] and sqrt(|d|^2 + FLAT) / s f32[..., P] (1 in flat
    patches), where d is the difference of a pixel from the mean of its patch
    and s = sqrt(mean |d|^2 + FLAT).
  """
  d = patches - patches.mean(axis=-2, keepdims=True)
  squares = jnp.sum(jnp.square(d), axis=-1)
  power = squares.mean(axis=-1, keepdims=True) + FLAT
  even = d * jax.lax.rsqrt(power)[..., None]
  return even, jnp.sqrt((squares + FLAT) / power)


class TextTower(nn.Module):
  """Encoder of word ids i32[n, L] (0 = padding) -> f32[n, width].

  The order of words is ignored: their vectors are summed, mapped linearly to d
  dimensions and expanded by `pairs`.

  Attributes:
    vocabulary: number of ids, including 0.
    width: E = d (d + 1) / 2.
    inner: width of the word vectors.
  """

  vocabulary: int = 512
  width: int = 300
  inner: int = 96

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    """Encode word ids i32[n, L] as f32[n, width]."""
    init = nn.initializers.normal(0.5)
    words = self.param('words', init, (self.vocabulary, self.inner))
    total = jnp.einsum('nl,nlc->nc', (ids > 0).astype(words.dtype), words[ids])
    vector = nn.Dense(pair_dimension(self.width))(total)
    return pairs(vector[:, None])


def pair_dimension(width: int) -> int:
  """Return the d for which d (d + 1) / 2 is `width`.

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


def pairs(vectors: jax.Array) -> jax.Array:
  """Return second-order sums of vectors: f32[n, T, d] -> f32[n, d (d + 1) / 2].

  The result is the upper triangle of sum_t v_t v_t^T, off the diagonal times
  the root of 2, so that the inner product of two results is
  sum_st (v_s . u_t)^2.
  """
  d = vectors.shape[-1]
  square = jnp.einsum('ntd,nte->nde', vectors, vectors)
  rows, columns = np.triu_indices(d)
  weights = np.where(rows == columns, 1.0, math.sqrt(2)).astype(np.float32)
  return square[:, rows, columns] * weights
