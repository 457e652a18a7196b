"""Convolutional networks whose weights belong to one episode.

Blocks take their weights as in `net.apply({'params': emitted}, x)`, so a
generator may emit them; shapes come from `jax.eval_shape(net.init, ...)`.
How a convolution is written depends on the backend: `conv_ops.py`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl.ops import conv
from hyperudl.ops import normalization
from hyperudl.ops import pooling

ORDERS = ('conv_norm_act_pool', 'conv_act_pool_norm')
FEATURES = ('flatten', 'mean')
# All monotone, so that pooling may come first.
ACTIVATIONS = {
  'relu': jax.nn.relu,
  'lrelu': jax.nn.leaky_relu,  # slope .01
  'leaky': lambda x: jax.nn.leaky_relu(x, 0.1),
  'none': lambda x: x,
}

episode_conv = conv.episode_conv
max_pool = pooling.max_pool


def _check_settings(block, widths):
  """The shared settings of `ConvBlock` and `ConvNet`."""
  conv.check('padding', block.padding, conv.PADDINGS)
  conv.check('norm', block.norm, normalization.NORMS)
  conv.check('activation', block.activation, ACTIVATIONS)
  conv.check('order', block.order, ORDERS)
  conv.check('formulation', block.formulation, conv.FORMULATIONS)
  if not widths or min(*widths, block.kernel, block.stride) < 1:
    raise ValueError(
      'channels, kernel and stride must be >= 1, not '
      f'channels={widths}, kernel={block.kernel}, stride={block.stride}'
    )
  if block.formulation == 'closed' and block.stride > 1:
    raise ValueError(
      f"formulation='closed' needs stride 1, not {block.stride}; use 'slices'"
    )
  if block.norm == 'group':
    for width in widths:
      if block.groups < 1 or width % block.groups:
        raise ValueError(
          f'groups must divide the channels, {width}, not {block.groups}'
        )


class ConvBlock(nn.Module):
  """Convolution, normalisation, activation and 2x2 max-pooling.

  Parameters: `kernel` [k, k, Cin, channels]; `scale` and `bias` [channels]
  of the norm; norm='none' has `bias` alone. With order='conv_act_pool_norm'
  and a norm there is also `conv_bias` [channels], which there has an effect.

  The pooling is computed on what the convolution returns, wherever `order`
  has it: all that may come between is monotone in each channel.

  Where `conv_ops.held` says bfloat16, images, kernels and what is returned are
  bfloat16; moments and norms are computed in float32 all the same.

  Attributes:
    channels: filters.
    kernel: rows and columns of a filter.
    stride: of the convolution.
    padding: 'SAME' or 'VALID', of the convolution.
    pool: whether to pool.
    norm: 'batch' (statistics of the batch at hand: transductive for
      queries), 'domain' (see `normalising.domain_statistics`), 'group', 'layer'
      or 'none'.
    groups: of norm='group'.
    activation: 'relu', 'lrelu', 'leaky' (slope .1) or 'none'.
    order: 'conv_norm_act_pool' or 'conv_act_pool_norm'.
    formulation: of the convolution, see `conv_ops.py`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """

  channels: int
  kernel: int = 3
  stride: int = 1
  padding: str = 'SAME'
  pool: bool = True
  norm: str = 'batch'
  groups: int = 4
  activation: str = 'relu'
  order: str = 'conv_norm_act_pool'
  formulation: str = 'auto'

  def __post_init__(self):
    _check_settings(self, (self.channels,))
    super().__post_init__()

  @nn.compact
  def __call__(self, x, domains=None):
    """f32[n, H, W, C] -> f32[n, H', W', channels].

    `domains`, for norm='domain': (f32[n, G], one-hot rows of the domain that
    normalises an image; its statistics, two f32[G, channels], or what they are
    made from, see `normalising.domain_statistics`), or None for one domain of
    all rows. The collection 'statistics' gets what was used.
    """
    size = (self.kernel, self.kernel, x.shape[-1], self.channels)
    width = (self.channels,)
    w = self.param('kernel', nn.initializers.he_normal(), size)
    bias = self.param('bias', nn.initializers.zeros, width)
    x = self._block(conv.held(x), w, bias, width, domains)
    return conv.held(x)

  def _block(self, x, w, bias, width, domains):
    if self.norm == 'none':
      return self._activate(self._pooled_conv(x, w) + bias)
    scale = self.param('scale', nn.initializers.ones, width)
    if self.order == 'conv_act_pool_norm':
      conv_bias = self.param('conv_bias', nn.initializers.zeros, width)
      x = self._activate(self._pooled_conv(x, w) + conv_bias)
      return normalization.affine(x, *self._moments(x, domains), scale, bias)
    if not self.pool:
      x = self._conv(x, w)
      moments = self._moments(x, domains)
      return self._activate(normalization.affine(x, *moments, scale, bias))
    # A negative slope makes the smallest the largest: turn it round in the
    # kernel, where that costs nothing.
    sign = jnp.where(scale < 0, -1.0, 1.0)
    w, slope = w * sign, sign * scale
    if self.norm == 'batch' and self._in_squares(x):
      return pooling.pooled_conv_norm(x, w, slope, bias, self._activate)
    x = self._conv(x, w)
    if self.norm == 'batch':
      mean, variance = self._moments(x, domains)
    else:  # over several channels, so with their own signs
      mean, variance = self._moments(sign * x, domains)
      mean = sign * mean
    x = normalization.affine(max_pool(x), mean, variance, slope, bias)
    return self._activate(x)

  def _conv(self, x, w):
    return episode_conv(
      x,
      conv.held(w),
      stride=self.stride,
      padding=self.padding,
      formulation=self.formulation,
    )

  def _moments(self, x, domains):
    x = conv.widened(x)
    if self.norm == 'domain':
      return self._domain_moments(x, domains)
    return normalization.moments(x, self.norm, self.groups)

  def _domain_moments(self, x, domains):
    if domains is None:
      domains = (jnp.ones((x.shape[0], 1), x.dtype),) * 2
    member, statistics = domains
    if not isinstance(statistics, tuple):
      statistics = normalization.domain_statistics(x, statistics)
    self.sow('statistics', 'used', statistics, lambda _, new: new, tuple)
    return normalization.of_rows(statistics, member)

  def _pooled_conv(self, x, w):
    if not self.pool:
      return self._conv(x, w)
    if self._in_squares(x):
      return pooling.pooled_conv(x, w)
    return max_pool(self._conv(x, w))

  def _activate(self, x):
    return ACTIVATIONS[self.activation](x)

  def _in_squares(self, x):
    """Whether `pooling.pooled_conv` is right, and faster by measurement.

    For odd maps that is known of more than 3 channels with batch norm alone.
    """
    _, height, width, inputs = x.shape
    even = height % 2 == width % 2 == 0
    with_norm = self.norm == 'batch' and self.order == 'conv_norm_act_pool'
    return (
      self.formulation == 'auto'
      and jax.default_backend() == 'cpu'
      and x.dtype != jnp.bfloat16
      and (self.kernel, self.stride, self.padding) == (3, 1, 'SAME')
      and (inputs <= 3 or max(inputs, self.channels) <= 8)
      and (even or (with_norm and inputs > 3 and min(height, width) > 1))
    )


class ConvNet(nn.Module):
  """Blocks of convolutions, then features, then perhaps a linear head.

  Parameters: {'block0': ..., 'block1': ..., 'head': {'kernel', 'bias'}}.
  `net.apply(variables, x)` gives logits, or features if head is None;
  method='embed' gives features, method='embed_and_classify' gives both.

  Attributes:
    channels: filters of each block.
    kernel, stride, padding, pool, norm, groups, activation, order,
      formulation: of every block, see `ConvBlock`.
    head: number of classes, or None.
    features: 'flatten' or 'mean' (over positions).

  Raises:
    ValueError: as `ConvBlock`; for an image too small for the blocks.
  """

  channels: Sequence[int]
  kernel: int = 3
  stride: int = 1
  padding: str = 'SAME'
  pool: bool = True
  norm: str = 'batch'
  groups: int = 4
  activation: str = 'relu'
  order: str = 'conv_norm_act_pool'
  head: int | None = None
  features: str = 'flatten'
  formulation: str = 'auto'

  def __post_init__(self):
    _check_settings(self, tuple(self.channels))
    conv.check('features', self.features, FEATURES)
    if self.head is not None and self.head < 1:
      raise ValueError(f'head must be None or >= 1, not {self.head}')
    super().__post_init__()

  def __call__(self, x, domains=None):
    """f32[n, H, W, C] -> f32[n, head] or f32[n, D].

    `domains` is for norm='domain', see `ConvBlock`; where it has statistics
    they are {block: two f32[G, channels]}.
    """
    return self._run(x, self.head is not None, domains)[-1]

  def embed(self, x):
    """f32[n, H, W, C] -> f32[n, D]."""
    return self._run(x, False)[0]

  def embed_and_classify(self, x):
    """f32[n, H, W, C] -> (f32[n, D], f32[n, head])."""
    return self._run(x, True)

  @nn.compact
  def _run(self, x, classify, domains=None):
    for index, channels in enumerate(self.channels):
      name = f'block{index}'
      x = ConvBlock(
        channels,
        self.kernel,
        self.stride,
        self.padding,
        self.pool,
        self.norm,
        self.groups,
        self.activation,
        self.order,
        self.formulation,
        name=name,
      )(x, _of_block(domains, name))
    x = conv.widened(x)
    if self.features == 'mean':
      x = jnp.mean(x, axis=(1, 2))
    x = x.reshape(x.shape[0], -1)
    return (x, nn.Dense(self.head, name='head')(x)) if classify else (x,)


def _of_block(domains, name):
  if domains is None or not isinstance(domains[1], dict):
    return domains
  return domains[0], domains[1][name]
