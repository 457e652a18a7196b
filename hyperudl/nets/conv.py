"""Defines convolutional networks whose weights belong to one episode.

Weights are passed as in `net.apply({'params': generated}, x)`, so that a
hypernetwork can generate them; `nets/backbones.py` lists their shapes. How a
convolution is computed depends on the backend, see `ops/conv.py`.
"""

from collections.abc import Sequence
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.ops import conv
from hyperudl.ops import normalization
from hyperudl.ops import pooling

ORDERS = ('conv_norm_act_pool', 'conv_act_pool_norm')
FEATURES = ('flatten', 'mean')
# All monotone, so that pooling may be computed before them.
ACTIVATIONS = {
  'relu': jax.nn.relu,
  'lrelu': jax.nn.leaky_relu,  # slope .01
  'leaky': lambda x: jax.nn.leaky_relu(x, 0.1),
  'none': lambda x: x,
}


class _Settings(nn.Module, kw_only=True):
  """Settings shared by `ConvBlock` (which explains them) and `ConvNet`."""

  kernel: int = 3
  stride: int = 1
  padding: str = 'SAME'
  pool: bool = True
  norm: str = 'batch'
  groups: int = 4
  activation: str = 'relu'
  order: str = 'conv_norm_act_pool'
  formulation: str = 'auto'

  def _check(self, widths):
    _check_settings(
      tuple(widths),
      *(self.kernel, self.stride, self.padding, self.norm, self.groups),
      *(self.activation, self.order, self.formulation),
    )


@functools.cache  # flax creates the module again whenever it is applied
def _check_settings(
  widths, kernel, stride, padding, norm, groups, activation, order, formulation
):
  conv.check_choice('norm', norm, normalization.NORMS)
  conv.check_choice('activation', activation, ACTIVATIONS)
  conv.check_choice('order', order, ORDERS)
  if not widths or min(*widths, kernel, stride) < 1:
    raise ValueError(
      'channels, kernel and stride must be >= 1, not '
      f'channels={widths}, kernel={kernel}, stride={stride}'
    )
  conv.check_settings(stride, padding, formulation)
  if norm == 'group':
    for width in widths:
      if groups < 1 or width % groups:
        raise ValueError(
          f'groups must divide the channels, {width}, not {groups}'
        )


class ConvBlock(_Settings):
  """Convolution, normalisation, activation and 2x2 max-pooling.

  Parameters: `kernel` [k, k, Cin, channels]; `scale` and `bias` [channels]
  of the norm; norm='none' has only `bias`. With order='conv_act_pool_norm'
  and a norm there is also `conv_bias` [channels]; in the other order a batch
  norm would cancel it.

  The pooling is always computed on the output of the convolution, since all
  that may come between the two is monotone in each channel.
  If `conv.to_compute_dtype` gives bfloat16, images, kernels and outputs are
  bfloat16, but moments and norms are still computed in float32.

  Attributes:
    channels: number of filters.
    kernel: rows and columns of a filter.
    stride: stride of the convolution.
    padding: padding of the convolution, 'SAME' or 'VALID'.
    pool: whether to pool.
    norm: 'batch' (statistics of the current batch: transductive for queries),
      'domain' (see `normalization.domain_statistics`), 'group', 'layer' or
      'none'.
    groups: number of groups for norm='group'.
    activation: 'relu', 'lrelu' (slope .01), 'leaky' (slope .1) or 'none'.
    order: 'conv_norm_act_pool' or 'conv_act_pool_norm'.
    formulation: how to compute the convolution, see `ops/conv.py`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """

  channels: int

  def __post_init__(self):
    self._check((self.channels,))
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: jax.Array, domains: core.PyTree | None = None
  ) -> jax.Array:
    """Apply the block: f32[n, H, W, C] -> f32[n, H', W', channels].

    Args:
      x: images or activations.
      domains: for norm='domain' or 'batch', None for one domain, or a pair:
        f32[n, G], the domain whose statistics normalise each image, one-hot;
        and the statistics, {'used': two f32[G, channels]} from the collection
        'statistics' of an earlier call, or f32[n, G] to compute them, see
        `part` of `normalization.domain_statistics`.
    """
    size = (self.kernel, self.kernel, x.shape[-1], self.channels)
    width = (self.channels,)
    w = self.param('kernel', nn.initializers.he_normal(), size)
    bias = self.param('bias', nn.initializers.zeros, width)
    if self.pool:
      x = conv.to_compute_dtype(x)
    return self._block(x, w, bias, width, domains)

  def _block(self, x, w, bias, width, domains):
    if self.norm == 'none':
      y = self._pooled_conv(x, w)
      return self._activate(y + bias).astype(y.dtype)
    scale = self.param('scale', nn.initializers.ones, width)
    if self.order == 'conv_act_pool_norm':
      conv_bias = self.param('conv_bias', nn.initializers.zeros, width)
      y = self._pooled_conv(x, w)
      x = self._activate(y + conv_bias)
      x = normalization.affine(x, *self._moments(x, domains), scale, bias)
      return x.astype(y.dtype)
    if not self.pool:
      y = self._conv(x, w)
      moments = self._moments(y, domains)
      x = normalization.affine(y, *moments, scale, bias)
      return self._activate(x).astype(y.dtype)
    # A negative scale would need min-pooling: its sign goes into the kernel.
    sign = jnp.where(scale < 0, -1.0, 1.0)
    w, slope = w * sign, sign * scale
    may_fuse = domains is None and normalization.may_fuse(self.norm)
    if may_fuse and self._in_squares(x):
      return pooling.pooled_conv_norm(x, w, slope, bias, self._activate)
    y = self._conv(x, w)
    if self.norm == 'batch':
      mean, variance = self._moments(y, domains)
    else:  # moments over several channels, so of the original signs
      mean, variance = self._moments(sign * y, domains)
      mean = sign * mean
    x = normalization.affine(pooling.max_pool(y), mean, variance, slope, bias)
    return self._activate(x).astype(y.dtype)

  def _conv(self, x, w):
    return conv.episode_conv(
      conv.to_compute_dtype(x),
      conv.to_compute_dtype(w),
      stride=self.stride,
      padding=self.padding,
      formulation=self.formulation,
    )

  def _moments(self, x, domains):
    if self.norm == 'domain' or (self.norm == 'batch' and domains is not None):
      return self._domain_moments(x, domains)
    return normalization.moments(x, self.norm, self.groups)

  def _domain_moments(self, x, domains):
    if domains is None:
      domains = (jnp.ones((x.shape[0], 1)),) * 2
    member, statistics = domains
    if isinstance(statistics, dict):
      statistics = statistics['used']
    else:
      statistics = normalization.domain_statistics(x, statistics)
    if self.is_mutable_collection('statistics'):
      self.put_variable('statistics', 'used', statistics)
    return normalization.of_rows(statistics, member)

  def _pooled_conv(self, x, w):
    if self.pool and self._in_squares(x):
      return pooling.pooled_conv(x, w)
    y = self._conv(x, w)
    return pooling.max_pool(y) if self.pool else y

  def _activate(self, x):
    return ACTIVATIONS[self.activation](x)

  def _in_squares(self, x):
    """Return whether `pooling.pooled_conv` is correct and measured as faster.

    For odd maps that holds only with more than 3 channels and batch norm.
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


class ConvNet(_Settings):
  """Convolutional blocks, then features, then optionally a linear head.

  Parameters: {'block0': ..., 'block1': ..., 'head': {'kernel', 'bias'}}.

  Attributes:
    channels: filters of each block.
    head: number of classes, or None for no head.
    features: 'flatten' or 'mean' (over positions).
    others: settings of every block, see `ConvBlock`.

  Raises:
    ValueError: as `ConvBlock`, and for images too small for the blocks.
  """

  channels: Sequence[int]
  head: int | None = None
  features: str = 'flatten'
  is_chain = True  # each block takes the output of the previous one

  def __post_init__(self):
    self._check(self.channels)
    check_readout(self.features, self.head)
    super().__post_init__()

  def blocks(self, parent: nn.Module | None = None) -> dict[str, ConvBlock]:
    """Return the blocks by name, in order, as submodules of `parent`."""
    settings = {
      each.name: getattr(self, each.name)
      for each in dataclasses.fields(_Settings)
      if each.name not in ('name', 'parent')
    }
    return {
      (name := f'block{index}'): ConvBlock(
        width, **settings, name=name, parent=parent
      )
      for index, width in enumerate(self.channels)
    }

  @nn.compact
  def __call__(
    self, x: jax.Array, domains: core.PyTree | None = None
  ) -> jax.Array:
    """Return logits f32[n, head], or features f32[n, D] if head is None.

    Args:
      x: f32[n, H, W, C].
      domains: see `ConvBlock`; statistics of an earlier call are those of each
        block by its name.
    """
    for name, block in self.blocks(parent=self).items():
      x = block(x, of_block(domains, name))
    return readout(x, self.features, self.head)


@functools.cache
def check_readout(features: str, head: int | None) -> None:
  """Raise a ValueError unless `readout` accepts these arguments."""
  conv.check_choice('features', features, FEATURES)
  if head is not None and head < 1:
    raise ValueError(f'head must be None or >= 1, not {head}')


def readout(x: jax.Array, features: str, head: int | None) -> jax.Array:
  """Return features of the last activations, or logits by a linear 'head'.

  Args:
    x: f32[n, H, W, C].
    features: 'flatten' or 'mean' (over positions).
    head: number of classes, or None for features f32[n, D]. The layer belongs
      to the module whose compact method calls this.
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if features == 'mean':
    x = jnp.mean(x, axis=(1, 2))
  x = x.reshape(x.shape[0], -1)
  return x if head is None else nn.Dense(head, name='head')(x)


def of_block(domains: core.PyTree | None, name: str) -> core.PyTree | None:
  """Return the part of a network's `domains` for its block `name`."""
  if domains is None or not isinstance(domains[1], dict):
    return domains
  return domains[0], domains[1][name]
