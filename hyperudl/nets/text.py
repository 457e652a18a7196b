"""Small towers for images and strings that meet in one space (after CLIP).

Radford et al. 2021, arXiv:2103.00020, at a size that a CPU trains in a minute:
an image is a grid of patches, each through one perceptron, joined by another;
a string is word embeddings with positions, one layer of attention, a mean.
"""

from flax import linen as nn
import jax.numpy as jnp

from hyperudl.nets import transformer


class ImageTower(nn.Module):
  """Images f32[n, H, W, C] -> f32[n, width]; H and W divide by `grid`."""

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
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, g * g, -1) - 0.5
    for size in self.hidden:
      x = nn.relu(nn.Dense(size)(x))
    x = nn.relu(nn.Dense(self.width)(x.reshape(n, -1)))
    return nn.Dense(self.width)(x)


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
    return nn.Dense(self.width)(mean)
