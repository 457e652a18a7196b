"""Small towers for images and strings that meet in one space (after CLIP).

Radford et al. 2021, arXiv:2103.00020, at a size that a CPU trains in minutes:
an image is a grid of patches, each through one perceptron, joined by another;
a string is word embeddings with positions, one layer of attention, a mean and a
perceptron.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.nets import transformer

FLAT = 1e-4  # added to squares: keeps flat patches finite, faint ones faint


class ImageTower(nn.Module):
  """Images f32[n, H, W, C] -> f32[n, width]; H and W divide by `grid`.

  A patch is seen as it is, with its contrast normalised, and as the contrast of
  each pixel whatever its colour (after Jarrett et al. 2009, "What is the best
  multi-stage architecture for object recognition?"): what is written in any
  colour on any ground looks alike there.
  """

  width: int = 128
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
    x = nn.relu(nn.Dense(self.width)(x.reshape(n, -1)))
    return nn.Dense(self.width)(x)


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
  """Word ids i32[n, L] (0 = nothing) -> f32[n, width]."""

  vocabulary: int = 512
  width: int = 128
  inner: int = 96
  heads: int = 4
  length: int = 32

  @nn.compact
  def __call__(self, ids):
    if ids.shape[1] > self.length:
      raise ValueError(
        f'strings of {ids.shape[1]} words, but length={self.length}'
      )
    init = nn.initializers.normal(0.5)
    words = self.param('words', init, (self.vocabulary, self.inner))
    places = self.param('places', init, (self.length, self.inner))
    present = (ids > 0).astype(words.dtype)
    tokens = words[ids] + places[: ids.shape[1]]
    batched = nn.vmap(
      transformer.Encoder,
      variable_axes={'params': None},
      split_rngs={'params': False},
    )
    encoder = batched(layers=1, heads=self.heads, inner=2.0, norm='pre')
    tokens = encoder(tokens, 1 - present)
    total = jnp.maximum(present.sum(axis=1, keepdims=True), 1.0)
    mean = (tokens * present[..., None]).sum(axis=1) / total
    hidden = nn.relu(nn.Dense(2 * self.inner)(mean))
    return nn.Dense(self.width)(mean + nn.Dense(self.inner)(hidden))
