"""HyperTransformer: one transformer per layer writes a small CNN.

Zhmoginov, Sandler, Vladymyrov 2022, arXiv:2201.04182. Layers are written in
order; z_l is the support set after the layers 1..l-1 already written:
  theta_l = T_l([M_l[j]; 0]_j, [L_l[y_i]; h_l(z_l,i); s(x_i)]_i)  at weights j
  outer loss = mean cross-entropy of f_theta on the queries
with tables M_l (slices) and L_l (labels; its last row means "no label", used
by support rows with y = -1), layer features h_l, shared image features s and
a post-LN encoder T_l without positional encoding. There is no inner loop.
The CNN is conv, activation, max-pooling, normalisation, and a linear layer.
The last operation of T_l is a layer norm, so weights start at unit variance.

Differs from the reference (TensorFlow code of the authors):
  * `norm='batch'` (the reference) uses the statistics of the images at hand:
    of the support set while writing, of the queries while answering, which
    is transductive at query time. 'group', 'layer' and 'none' are not.
  * Dropout acts in training only (there also in evaluation).
  * No key bias under softmax attention: its gradient is zero. Omniglot
    1-shot: 1,392 parameters fewer than the reference, same functions.
  * Images in [0, 1] are mapped to [-1, 1] (there x / 128 - 1 of 0..255).
  * Max-pooling stands before the activation, which is increasing: the same
    numbers from a quarter of the work.
  * The encoder-decoder, the 'separate' generator and learned weights added
    to written ones are left out: no published script uses them.

Published: Omniglot 20-way 1-shot, 8 channels: 87.2% (support and query
overlap in 5% of the draws there, batch statistics of the queries).
Setting names of the reference: CNN 'maxpool-4-layer' is net='maxpool',
depth=4; '3-layer' and '4-layer' are net='strided', stride=2, depth=3 and 4.
"""

import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import emit
from hyperudl import losses
from hyperudl.nets import conv
from hyperudl.nets import layerwise
from hyperudl.nets import transformer

NETS = ('maxpool', 'strided')
SHARED = (
  'none',
  '2-layer',
  '3-layer',
  '4-layer',
  '2-layer-bn',
  '3-layer-bn',
  '4-layer-bn',
)
LOGITS_FEATURES = ('default', 'passthrough', 'mix')


class _Settings(NamedTuple):
  """The arguments of `make`, by the same names."""

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


def make(
  way,
  *,
  net='maxpool',
  channels=8,
  depth=4,
  kernel_size=3,
  stride=1,
  activation='relu',
  norm='batch',
  trained_layers=0,
  allocation='output',
  generate_bias=False,
  generate_norm=False,
  features=8,
  logits_features='default',
  logits_nonlinear=False,
  shared='4-layer',
  shared_dim=32,
  shared_padding='SAME',
  embedding=32,
  layers=3,
  heads=2,
  key_query=1.0,
  value=1.0,
  inner=1.0,
  attention='softmax',
  nonlinearity='relu',
  skip_last_nonlinearity=False,
  dropout=0.0,
  shared_dropout=0.0,
  feature_dropout=0.0,
  logits_scale=0.0,
  label_smoothing=0.0,
  l2_reg_weight=0.0,
):
  """The `hypertransformer` learner. Its task is the parameters of the CNN.

  Args:
    way: N.
    net: 'maxpool' (SAME convolutions, 2x2 pooling, flattened) or 'strided'
      (VALID convolutions, mean over positions).
    channels: filters of each convolution of the CNN.
    depth: convolutions of the CNN.
    kernel_size: of these.
    stride: of these.
    activation: of the CNN, 'relu' or 'lrelu' (0.01).
    norm: of the CNN, 'batch', 'group', 'layer' or 'none'.
    trained_layers: n > 0: the first n convolutions are learned, not
      written; n < 0: the last -n. All of them: only the logits are written.
    allocation: 'output' or 'spatial', see `emit`.
    generate_bias: write a bias of each convolution; without, it has none.
    generate_norm: write the scale and bias of its normalisation; without,
      these are learned.
    features: filters of the layer features; 0 for none, -1 for the wider of
      the layer's input and output.
    logits_features: features of the last layer: 'default' (convolution),
      'passthrough' (the activations) or 'mix' (both).
    logits_nonlinear: take the last layer's features after a ReLU.
    shared: image features seen by all layers, one of SHARED; '-bn' adds
      batch normalisation over the support.
    shared_dim: their number.
    shared_padding: 'SAME' or 'VALID'.
    embedding: width of the tables of labels and slices.
    layers: of each encoder.
    heads: of each encoder.
    key_query, value, inner: sizes in the encoder, up to 3 as a fraction of
      its width; see `transformer.Encoder`.
    attention: 'softmax' or 'sigmoid'.
    nonlinearity: of the encoder, 'relu', 'gelu' or 'lrelu' (0.1).
    skip_last_nonlinearity: make the last feed-forward net linear.
    dropout: rate in the encoders, in [0, 1).
    shared_dropout: rate on the shared features.
    feature_dropout: rate on the layer features.
    logits_scale: initial value of a learned factor of the written logits
      layer; 0 for none (the reference). Written weights have unit variance,
      so that wide last layers start with large logits: 1 / sqrt(D) helps.
      Convolutions need none: normalisation undoes their scale.
    label_smoothing: in [0, 1).
    l2_reg_weight: times the sum of squares of all kernels, added to the
      loss.

  Raises:
    core.BadInput: for wrong values, listing the choices.
  """
  s = _Settings(**locals())  # first, while these are all the names
  _check(s)
  cnn, writer = _make_net(s), _Writer(s)

  def init(key, episode):
    learn_key, write_key = jax.random.split(key)
    x, y = _pixels(episode.support.x), episode.support.y
    learned, _ = _split(s, cnn.init(learn_key, x)['params'])
    variables = writer.init(write_key, learned, x, y, train=False)
    return {'net': learned, 'writer': variables['params']}

  def adapt(params, support, key, *, train):
    return writer.apply(
      {'params': params['writer']},
      params['net'],
      _pixels(support.x),
      support.y,
      train=train,
      rngs={'dropout': key},
    )

  def predict(params, task, x, context):
    del params, context
    return cnn.apply({'params': task}, _pixels(x))

  def loss(params, episode, key, step):
    del step
    task = adapt(params, episode.support, key, train=True)
    logits = predict(params, task, episode.query.x, None)
    fit = _smoothed_cross_entropy(logits, episode.query.y, label_smoothing)
    decay = l2_reg_weight * _kernel_squares(task)
    metrics = {
      'accuracy': core.accuracy(logits, episode.query.y),
      'cross_entropy': fit,
      'regularisation': decay,
    }
    return fit + decay, metrics

  return core.make_learner(init, adapt, predict, loss)


def _check(s):
  """Raises `core.BadInput` for settings that cannot be built."""
  choices = {
    'net': NETS,
    'activation': tuple(conv.ACTIVATIONS),
    'norm': conv.NORMS,
    'logits_features': LOGITS_FEATURES,
    'shared': SHARED,
    'shared_padding': ('SAME', 'VALID'),
  }
  for name, known in choices.items():
    if getattr(s, name) not in known:
      raise core.BadInput(
        f'{name}={getattr(s, name)!r} is unknown; choose one of '
        f'{", ".join(known)}'
      )
  for name in (
    *('channels', 'depth', 'kernel_size', 'stride', 'shared_dim'),
    *('embedding', 'layers'),
  ):
    if getattr(s, name) < 1:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected at least 1')
  for name in ('dropout', 'shared_dropout', 'feature_dropout'):
    if not 0 <= getattr(s, name) < 1:
      raise core.BadInput(f'{name}={getattr(s, name)}; expected in [0, 1)')
  for name in ('features', 'logits_scale', 'l2_reg_weight'):
    if getattr(s, name) < (-1 if name == 'features' else 0):
      raise core.BadInput(f'{name}={getattr(s, name)} is too small')
  if not 0 <= s.label_smoothing < 1:
    raise core.BadInput(
      f'label_smoothing={s.label_smoothing}; expected in [0, 1)'
    )
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
  emit.check_allocation(s.allocation, s.generate_bias + 2 * s.generate_norm)
  transformer.check(
    heads=s.heads, attention=s.attention, activation=s.nonlinearity
  )


def _pixels(x):
  return 2.0 * x - 1.0


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


def _split(s, cnn):
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


def _make_net(s):
  """The CNN, detached from whatever module is being built."""
  return conv.ConvNet(
    channels=(s.channels,) * s.depth,
    head=s.way,
    features='flatten' if s.net == 'maxpool' else 'mean',
    parent=None,
    **_block_settings(s),
  )


class _Writer(nn.Module):
  """Writes the CNN layer by layer."""

  settings: _Settings

  @nn.compact
  def __call__(self, learned, x, y, *, train):
    """(learned part, f32[S, H, W, C] in [-1, 1], i32[S]) -> CNN."""
    s = self.settings
    shapes = jax.eval_shape(_make_net(s).init, jax.random.key(0), x)['params']
    _, constant = _split(s, shapes)
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


def _smoothed_cross_entropy(logits, y, smoothing):
  """Cross-entropy against (1 - smoothing) * one-hot + smoothing / N."""
  fit = core.cross_entropy(logits, y)
  if not smoothing:
    return fit
  labelled = (y >= 0).astype(logits.dtype)
  uniform = -jnp.mean(jax.nn.log_softmax(logits, axis=-1), axis=-1)
  even = losses.masked_mean(uniform, labelled)
  return (1 - smoothing) * fit + smoothing * even


def _kernel_squares(task):
  """Sum of squares of all kernels of the CNN, written or learned."""
  return sum(jnp.sum(jnp.square(layer['kernel'])) for layer in task.values())
