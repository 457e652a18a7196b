"""Writes a CNN layer by layer from the activations of a support set.

The generator of HyperTransformer (arXiv:2201.04182), with what it writes and
what is learned. `learners/hypertransformer.py` explains the settings.
"""

import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import emit
from hyperudl.nets import conv
from hyperudl.nets import layerwise
from hyperudl.nets import transformer

NETS = ('maxpool', 'strided')
SHARED = (
  'none',
  *(f'{n}-layer{norm}' for norm in ('', '-bn') for n in (2, 3, 4)),
)
LOGITS_FEATURES = ('default', 'passthrough', 'mix')
PADDINGS = ('SAME', 'VALID')
# Smallest legal values; rates are also below one.
RATES = ('dropout', 'shared_dropout', 'feature_dropout', 'label_smoothing')
POSITIVE = ('way', 'channels', 'depth', 'kernel_size', 'stride', 'shared_dim')
MINIMUM = {
  **dict.fromkeys(POSITIVE, 1),
  **dict.fromkeys(('embedding', 'layers'), 1),
  **dict.fromkeys(RATES, 0),
  **dict.fromkeys(('inner', 'logits_scale', 'l2_reg_weight'), 0),
  'features': -1,
}


class Settings(NamedTuple):
  """The arguments of `hypertransformer.make`, by the same names."""

  way: int
  net: str
  channels: int
  depth: int
  kernel_size: int
  stride: int
  activation: str
  norm: str
  trained_layers: int
  allocation: str
  generate_bias: bool
  generate_norm: bool
  features: int
  logits_features: str
  logits_nonlinear: bool
  shared: str
  shared_dim: int
  shared_padding: str
  embedding: int
  layers: int
  heads: int
  key_query: float
  value: float
  inner: float
  attention: str
  nonlinearity: str
  skip_last_nonlinearity: bool
  dropout: float
  shared_dropout: float
  feature_dropout: float
  logits_scale: float
  label_smoothing: float
  l2_reg_weight: float


def check(s):
  """Raises `core.BadInput`, listing the choices, for wrong settings."""
  for name, known in (
    ('net', NETS),
    ('logits_features', LOGITS_FEATURES),
    ('shared', SHARED),
    ('shared_padding', PADDINGS),
  ):
    if getattr(s, name) not in known:
      raise core.BadInput(
        f'{name}={getattr(s, name)!r} is unknown; choose one of '
        f'{", ".join(known)}'
      )
  for name, smallest in MINIMUM.items():
    if getattr(s, name) < smallest:
      raise core.BadInput(
        f'{name}={getattr(s, name)}; expected at least {smallest}'
      )
  for name in RATES:
    if getattr(s, name) >= 1:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected below 1')
  for name in ('key_query', 'value'):
    if getattr(s, name) <= 0:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected above 0')
  emit.check_allocation(s.allocation, s.generate_bias + 2 * s.generate_norm)
  transformer.check(
    heads=s.heads, attention=s.attention, activation=s.nonlinearity
  )
  for size in (s.key_query, s.value, s.inner):
    transformer.inner_width(size, 1, s.heads)
  _check_together(s)


def _check_together(s):
  if abs(s.trained_layers) > s.depth:
    raise core.BadInput(
      f'trained_layers={s.trained_layers}; expected -depth..depth, '
      f'depth={s.depth}'
    )
  if s.generate_norm and s.norm == 'none':
    raise core.BadInput("generate_norm=True needs a norm, not norm='none'")
  if s.features == 0 and s.shared == 'none':
    raise core.BadInput(
      "features=0 with shared='none' leaves the samples without features; set "
      f'features >= 1 or shared to one of {", ".join(SHARED[1:])}'
    )
  if s.logits_features != 'default' and s.net != 'maxpool':
    raise core.BadInput(
      f"logits_features={s.logits_features!r} needs net='maxpool', whose last "
      'layer reads flattened activations'
    )


def _is_written(s, name):
  """Whether the kernel of layer 'block0', ..., 'head' is written."""
  if name == 'head':
    return True
  index = int(name.removeprefix('block'))
  if s.trained_layers >= 0:
    return index >= s.trained_layers
  return index < s.depth + s.trained_layers


def _first_bias(s):
  """The parameter of a block that is added before the activation."""
  return 'bias' if s.norm == 'none' else 'conv_bias'


def _extras(s):
  """Names of what is written behind the kernel of a block, in order."""
  bias = (_first_bias(s),) if s.generate_bias else ()
  return bias + (('scale', 'bias') if s.generate_norm else ())


def split(s, cnn):
  """Divides parameters of the CNN into (learned, constant).

  What neither holds is written. Without `generate_bias` there is no bias
  before the activation: it is the constant zero.
  """
  learned, constant = {}, {}
  for name, layer in cnn.items():
    taken = {'kernel', *_extras(s)} if _is_written(s, name) else set()
    if name == 'head':
      taken.add('bias')
    elif not s.generate_bias:
      taken.add(_first_bias(s))
      constant[name] = {_first_bias(s): jnp.zeros(s.channels)}
    rest = {k: v for k, v in layer.items() if k not in taken}
    if rest:
      learned[name] = rest
  return learned, constant


def _block_settings(s):
  return {
    'kernel': s.kernel_size,
    'stride': s.stride,
    'padding': 'SAME' if s.net == 'maxpool' else 'VALID',
    'pool': s.net == 'maxpool',
    'norm': s.norm,
    'activation': s.activation,
    'order': 'conv_act_pool_norm',
  }


def make_net(s):
  """The CNN, detached from whatever module is being built."""
  return conv.ConvNet(
    channels=(s.channels,) * s.depth,
    head=s.way,
    features='flatten' if s.net == 'maxpool' else 'mean',
    parent=None,
    **_block_settings(s),
  )


class Writer(nn.Module):
  """Writes the CNN layer by layer."""

  settings: Settings

  @nn.compact
  def __call__(self, learned, x, y, *, train):
    """(learned part, f32[S, H, W, C] in [-1, 1], i32[S]) -> CNN."""
    s = self.settings
    shapes = jax.eval_shape(make_net(s).init, jax.random.key(0), x)['params']
    _, constant = split(s, shapes)
    block = conv.ConvBlock(s.channels, parent=None, **_block_settings(s))
    shared = self._shared(x, train)
    task, z = {}, x
    for index in range(s.depth):
      name = f'block{index}'
      task[name] = {**learned.get(name, {}), **constant.get(name, {})}
      if _is_written(s, name):
        shape = shapes[name]['kernel'].shape
        written = self._write_block(name, shape, z, shared, y, train)
        task[name].update(written)
      z = block.apply({'params': task[name]}, z)
    size = shapes['head']['kernel'].shape[0]
    task['head'] = self._write_head(size, z, shared, y, train)
    return task

  def _shared(self, x, train):
    s = self.settings
    if s.shared == 'none':
      return jnp.zeros((x.shape[0], 0))
    shared = layerwise.SharedFeatures(
      layers=int(s.shared[0]),
      width=s.shared_dim,
      norm=s.shared.endswith('-bn'),
      padding=s.shared_padding,
      name='shared',
    )(x)
    return nn.Dropout(s.shared_dropout, deterministic=not train)(shared)

  def _features(self, name, z, width, shared, train):
    """Layer features, without convolutions where `width` is 0."""
    s = self.settings
    head = name == 'head'
    parts = []
    if head and s.net == 'maxpool' and s.logits_features != 'default':
      parts.append(z.reshape(z.shape[0], -1))
    if width and not (parts and s.logits_features == 'passthrough'):
      parts.append(
        layerwise.LayerFeatures(
          width,
          layers=1 if head else 2,
          kernel_size=3 if head else s.kernel_size,
          nonlinear=head and s.logits_nonlinear,
          name=f'{name}_features',
        )(z)
      )
    if parts:
      drop = nn.Dropout(s.feature_dropout, deterministic=not train)
      parts = [drop(jnp.concatenate(parts, axis=-1))]
    return jnp.concatenate([*parts, shared], axis=-1)

  def _write(self, name, slices_shape, features, y, train):
    s = self.settings
    encoder = functools.partial(
      transformer.Encoder,
      layers=s.layers,
      heads=s.heads,
      key_query=s.key_query,
      value=s.value,
      inner=s.inner,
      attention=s.attention,
      activation=s.nonlinearity,
      skip_last_nonlinearity=s.skip_last_nonlinearity,
      # It would move the logits of all classes alike: no gradient.
      last_bias=name != 'head',
      dropout=s.dropout,
    )
    return layerwise.LayerGenerator(
      s.way, *slices_shape, s.embedding, encoder, name=name
    )(features, y, train=train)

  def _write_block(self, name, shape, z, shared, y, train):
    s = self.settings
    width = max(z.shape[-1], s.channels) if s.features < 0 else s.features
    features = self._features(name, z, width, shared, train)
    extras = _extras(s)
    slices_shape = emit.slices_shape(shape, s.allocation, len(extras))
    slices = self._write(name, slices_shape, features, y, train)
    block = {'kernel': emit.assemble(slices, shape, s.allocation)}
    if extras:
      block.update(zip(extras, emit.extras(slices, shape, len(extras))))
    return block

  def _write_head(self, size, z, shared, y, train):
    s = self.settings
    width = z.shape[-1] if s.features < 0 else s.features
    features = self._features('head', z, width, shared, train)
    slices = self._write('head', (s.way, size + 1), features, y, train)
    if s.logits_scale:
      init = lambda _: jnp.asarray(s.logits_scale, jnp.float32)
      slices = slices * self.param('logits_scale', init)
    return emit.assemble_head(slices, size)
