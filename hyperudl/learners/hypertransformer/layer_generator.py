"""What writes one layer of a CNN from the activations before it.

The parts of HyperTransformer (arXiv:2201.04182): image features shared by
all layers, features of the activations that enter a layer, and an encoder
over weight tokens and sample tokens that turns both into the slices of the
layer's kernel. All of ONE episode.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.ops import conv
from hyperudl.ops import normalization

_GLOROT = nn.initializers.glorot_uniform()
_ZEROS = nn.initializers.zeros


def mean_of_conv(x, kernel, bias):
  """Mean over positions of a VALID convolution of stride 1.

  The mean commutes with the convolution, so this takes the mean of each
  shifted window first, and never computes the convolution.

  Args:
    x: f32[n, H, W, Cin].
    kernel: f32[k, k, Cin, Cout], k <= H, W.
    bias: f32[Cout].

  Returns:
    f32[n, Cout].
  """
  count, height, width, _ = x.shape
  size = kernel.shape[0]
  rows, columns = height - size + 1, width - size + 1
  windows = np.zeros((height, width, size, size), np.float32)
  for i in range(size):
    for j in range(size):
      windows[i : i + rows, j : j + columns, i, j] = 1 / (rows * columns)
  means = jnp.einsum(
    'npc,pk->nkc',
    x.reshape(count, height * width, -1),
    windows.reshape(height * width, size * size),
  )
  return means.reshape(count, -1) @ kernel.reshape(-1, bias.size) + bias


class SharedFeatures(nn.Module):
  """Image features for the tokens of all layers: convolutions, then a mean.

  Attributes:
    layers: how many 3x3 convolutions with ReLU; stride 2 but for the last.
    width: filters of each.
    norm: whether batch normalisation (statistics of the images at hand)
      follows each ReLU.
    padding: 'SAME' or 'VALID'.
  """

  layers: int
  width: int
  norm: bool = False
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x):
    """f32[n, H, W, C] -> f32[n, width]."""
    for index in range(self.layers):
      if self.padding == 'VALID' and min(x.shape[1:3]) < 3:
        raise core.BadInput(
          f'layer {index + 1} of {self.layers} of the shared feature extractor '
          f"got {x.shape[1]}x{x.shape[2]} pixels, fewer than 3x3; use 'SAME' "
          'padding, fewer layers or larger images'
        )
      shape = (3, 3, x.shape[-1], self.width)
      kernel = self.param(f'kernel{index}', _GLOROT, shape)
      bias = self.param(f'bias{index}', _ZEROS, (self.width,))
      stride = 2 if index < self.layers - 1 else 1
      x = conv.episode_conv(x, kernel, stride=stride, padding=self.padding)
      x = jax.nn.relu(x + bias)
      if self.norm:
        x = self._normalise(x, index)
    return jnp.mean(x, axis=(1, 2))

  def _normalise(self, x, index):
    scale = self.param(f'scale{index}', nn.initializers.ones, (self.width,))
    shift = self.param(f'shift{index}', _ZEROS, (self.width,))
    mean, variance = normalization.moments(x, 'batch')
    return normalization.affine(x, mean, variance, scale, shift)


class LayerFeatures(nn.Module):
  """Features of the activations that enter a layer.

  VALID convolutions, stride 2 but for the last (stride 1), ReLU between
  them. The mean over positions of every convolution is a feature, taken
  before the ReLU. A map smaller than the kernel shrinks the kernel and all
  strides are 1; one that has become smaller ends the stack.

  Attributes:
    width: filters of each convolution.
    layers: how many.
    kernel_size: of each.
    nonlinear: take the features after the ReLU.
  """

  width: int
  layers: int
  kernel_size: int = 3
  nonlinear: bool = False

  @nn.compact
  def __call__(self, x):
    """f32[n, H, W, C] -> f32[n, <= layers * width]."""
    smallest = min(x.shape[1:3])
    size = min(self.kernel_size, smallest)
    stride = 2 if smallest >= self.kernel_size else 1
    features = []
    for index in range(self.layers):
      if min(x.shape[1:3]) < size:
        break
      shape = (size, size, x.shape[-1], self.width)
      kernel = self.param(f'kernel{index}', _GLOROT, shape)
      bias = self.param(f'bias{index}', _ZEROS, (self.width,))
      last = index == self.layers - 1
      if last and not self.nonlinear:
        features.append(mean_of_conv(x, kernel, bias))
        break
      step = 1 if last else stride
      x = conv.episode_conv(x, kernel, stride=step, padding='VALID') + bias
      activated = jax.nn.relu(x)
      features.append(jnp.mean(activated if self.nonlinear else x, (1, 2)))
      x = activated
    return jnp.concatenate(features, axis=-1)


class LayerGenerator(nn.Module):
  """Slices of one layer from labelled features of the support set.

  Weight tokens are [table row of slice j; slice j of before or 0], sample
  tokens [row of label y; features; 0]. Unlabelled rows (y = -1) have a row of
  their own, the last of the label table. What comes out behind the embedding
  of weight token j is slice j.

  The 'joint' generator is one encoder over all tokens, weights first, whose
  width is `embedding` plus the wider of a slice and the features; with a
  decoder, this looks at what the encoder made of the same tokens. The
  'separate' one is an encoder over the samples, without padding, and a
  decoder over the weights.

  Attributes:
    way: N.
    tokens: slices of the layer.
    size: entries of a slice.
    embedding: width of the two tables.
    encoder: () -> module like `transformer.Encoder`, called once for the
      encoder and once for the decoder.
    separate: whether the generator is the separate one.
    decoder: whether the joint generator has a decoder.
  """

  way: int
  tokens: int
  size: int
  embedding: int
  encoder: Callable
  separate: bool = False
  decoder: bool = False

  @nn.compact
  def __call__(self, features, y, *, train, removed=None, previous=None):
    """Emits.

    Args:
      features: f32[S, F] of the support rows.
      y: i32[S] in [-1, way).
      train: whether dropout is on.
      removed: None or [S]; nobody looks at rows where it is nonzero.
      previous: None or f32[tokens, size], the slices of an earlier task.

    Returns:
      f32[tokens, size].
    """
    normal = nn.initializers.normal(1.0)
    labels = self.param('labels', normal, (self.way + 1, self.embedding))
    weights = self.param('weights', normal, (self.tokens, self.embedding))
    # A product with one-hot rows: its gradient is a product, not a scatter.
    rows = jax.nn.one_hot(jnp.where(y < 0, self.way, y), self.way + 1)
    samples = jnp.concatenate([rows @ labels, features], axis=-1)
    before = jnp.zeros((self.tokens, self.size))
    weights = jnp.concatenate(
      [weights, before if previous is None else previous], axis=-1
    )
    if self.separate:
      written = self._separate(weights, samples, removed, train)
    else:
      written = self._joint(weights, samples, removed, train)
    return written[:, self.embedding : self.embedding + self.size]

  def _separate(self, weights, samples, removed, train):
    seen = self.encoder(name='encoder')(samples, removed, train=train)
    return self.encoder(name='decoder')(
      weights, source=seen, source_mask=removed, train=train
    )

  def _joint(self, weights, samples, removed, train):
    width = max(weights.shape[1], samples.shape[1])
    pad = lambda x: jnp.pad(x, ((0, 0), (0, width - x.shape[1])))
    sequence = jnp.concatenate([pad(weights), pad(samples)])
    mask = None
    if removed is not None:
      mask = jnp.concatenate([jnp.zeros(self.tokens), removed])
    encoded = self.encoder(name='encoder')(sequence, mask, train=train)
    if self.decoder:
      encoded = self.encoder(name='decoder')(
        sequence, mask, source=encoded, source_mask=mask, train=train
      )
    return encoded[: self.tokens]
