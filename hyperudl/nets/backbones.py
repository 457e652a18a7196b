"""Networks that embed images: Conv4 and its kin, and ResNet-12.

`make` gives flax modules of one interface: logits, or features if head is
None; parameters {'<layer>': {'kernel', 'scale', 'bias'}, ..., 'head': ...}
without a deeper level, all of them of one episode if need be.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl.nets import conv
from hyperudl.ops import conv as conv_ops
from hyperudl.ops import normalization

NAMES = ('conv', 'resnet12')
# Of one domain.
NORMS = tuple(norm for norm in normalization.NORMS if norm != 'domain')
SLOPE = 0.1  # of leaky ReLU
LAYERS = 3  # of a residual block


class ResNet12(nn.Module):
  """Four residual blocks of three 3x3 convolutions (Oreshkin et al. 2018).

  arXiv:1805.10123; widths and slope of Lee et al. 2019, arXiv:1904.03758, whose
  DropBlock is left out. Each convolution is followed by the norm, the first two
  by leaky ReLU; a normalised 1x1 convolution is the shortcut; leaky ReLU and
  2x2 max-pooling end a block. 12.4 million parameters at the published widths.

  Attributes:
    channels: filters of each block; published: 64, 160, 320, 640.
    norm: 'batch', 'group' or 'layer'.
    head: number of classes, or None.
    features: 'mean' over positions (published) or 'flatten'.

  Raises:
    ValueError: for an unknown choice, norm='none' or an image too small.
  """

  channels: Sequence[int] = (64, 160, 320, 640)
  norm: str = 'batch'
  head: int | None = None
  features: str = 'mean'

  def __post_init__(self):
    conv_ops.check('features', self.features, conv.FEATURES)
    if self.norm == 'none':
      raise ValueError("resnet12 needs a norm: 'batch', 'group' or 'layer'")
    for width in self.channels:
      # Refuses what its layers would.
      conv.ConvBlock(width, norm=self.norm, parent=None)
    super().__post_init__()

  def _layer(self, width, kernel, activation, name):
    return conv.ConvBlock(
      width,
      kernel=kernel,
      pool=False,
      norm=self.norm,
      activation=activation,
      name=name,
    )

  @nn.compact
  def __call__(self, x):
    """f32[n, H, W, C] -> f32[n, head] or f32[n, D]."""
    for index, width in enumerate(self.channels):
      y = x
      for layer in range(LAYERS):
        last = layer == LAYERS - 1
        activation = 'none' if last else 'leaky'
        y = self._layer(width, 3, activation, f'block{index}_{layer}')(y)
      x = self._layer(width, 1, 'none', f'block{index}_shortcut')(x)
      # Pooling first gives the same: leaky ReLU is monotone.
      x = jax.nn.leaky_relu(conv.max_pool(x + y), SLOPE)
    x = conv_ops.widened(x)
    if self.features == 'mean':
      x = jnp.mean(x, axis=(1, 2))
    x = x.reshape(x.shape[0], -1)
    return x if self.head is None else nn.Dense(self.head, name='head')(x)


def make(backbone, channels, norm, head=None, features='flatten'):
  """The module of an embedding.

  Args:
    backbone: 'conv' (3x3 convolutions, each followed by norm, ReLU and 2x2
      max-pooling; four of them are Conv4) or 'resnet12'.
    channels: filters of each block.
    norm: 'batch', 'group', 'layer' or, of 'conv', 'none'.
    head: number of classes, or None for features.
    features: 'flatten' or 'mean' over positions.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  conv_ops.check('backbone', backbone, NAMES)
  conv_ops.check('norm', norm, NORMS)
  module = ResNet12 if backbone == 'resnet12' else conv.ConvNet
  return module(
    channels=tuple(channels), norm=norm, head=head, features=features
  )
