"""Writes a CNN layer by layer from the activations of a support set.

The generator of HyperTransformer (arXiv:2201.04182), with what it writes and
what is learned. `learners/hypertransformer.py` explains the settings.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.learners.hypertransformer import config
from hyperudl.learners.hypertransformer import layer_generator
from hyperudl.nets import conv
from hyperudl.nets import transformer
from hyperudl.ops import conv as conv_ops
from hyperudl.ops import weight_tokens


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
  before the activation: it is the constant zero, as is the last bias of all
  before prototypes, which has no effect.
  """
  learned, constant = {}, {}
  for name, layer in cnn.items():
    taken = set()
    if _is_written(s, name) and not s.add_learned:
      taken = {'kernel', *_extras(s)} | ({'bias'} if name == 'head' else set())
    if name != 'head' and not s.generate_bias:
      taken.add(_first_bias(s))
      constant[name] = {_first_bias(s): jnp.zeros(s.channels)}
    if _shifts_alone(s, name):
      taken.add('bias')
      constant[name] = {**constant.get(name, {}), 'bias': jnp.zeros(s.channels)}
    rest = {k: v for k, v in layer.items() if k not in taken}
    if rest:
      learned[name] = rest
  return learned, constant


def _shifts_alone(s, name):
  """Whether the bias of a norm moves features and prototypes alike."""
  last = s.head == 'prototypes' and name == f'block{s.depth - 1}'
  return last and s.norm != 'none' and not s.generate_norm


def norms(learned):
  """The scales and biases of the normalisations among learned parameters."""
  found = {}
  for name, layer in learned.items():
    if 'scale' in layer:
      found[name] = {'scale': layer['scale'], 'bias': layer['bias']}
  return found


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
    head=s.way if s.head == 'written' else None,
    features='flatten' if s.net == 'maxpool' else 'mean',
    parent=None,
    **_block_settings(s),
  )


def block(s):
  """One block of the CNN, detached as `make_net`."""
  return conv.ConvBlock(s.channels, parent=None, **_block_settings(s))


def shared_features(s):
  """The module of the image features that all layers see."""
  return layer_generator.SharedFeatures(
    layers=int(s.shared[0]),
    width=s.shared_dim,
    norm=s.shared.endswith('-bn'),
    padding=s.shared_padding,
    parent=None,
  )


def encoder(s, layer, **options):
  """The encoder, or decoder, of the generator of `layer`."""
  return transformer.Encoder(
    layers=s.layers,
    heads=s.heads,
    key_query=s.key_query,
    value=s.value,
    inner=s.inner,
    attention=s.attention,
    activation=s.nonlinearity,
    skip_last_nonlinearity=s.skip_last_nonlinearity,
    # It would move the logits of all classes alike: no gradient.
    last_bias=layer != 'head',
    dropout=s.dropout,
    **options,
  )


def layer_features(s, layer, z, **options):
  """The module that makes features of activations f32[S, H, W, C]."""
  head = layer == 'head'
  widest = z.shape[-1] if head else max(z.shape[-1], s.channels)
  return layer_generator.LayerFeatures(
    widest if s.features < 0 else s.features,
    layers=1 if head else 2,
    kernel_size=3 if head else s.kernel_size,
    nonlinear=head and s.logits_nonlinear,
    **options,
  )


class Writer(nn.Module):
  """Writes the CNN layer by layer."""

  settings: config.Settings

  @nn.compact
  def __call__(
    self,
    learned,
    x,
    y,
    shared,
    *,
    train,
    support_norms=None,
    previous=None,
    removed=None,
    mix=None,
  ):
    """Writes.

    Args:
      learned: the learned part of the CNN, from `split`.
      x: f32[S, H, W, C] in [-1, 1], the support.
      y: i32[S]; -1 has no label.
      shared: f32[S, Fs], image features.
      train: whether dropout and the removal of rows are on.
      support_norms: norms of the support's activations, from `norms`; None
        for those of the CNN itself.
      previous: CNN that was written for an earlier task, or None.
      removed: f32[S], 1 for rows that attention does not see, or None.
      mix: f32[2], factors of `previous` and of what is written in their sum,
        or None for what is written.

    Returns:
      The parameters of the CNN.
    """
    s = self.settings
    shapes = jax.eval_shape(make_net(s).init, jax.random.key(0), x)['params']
    _, constant = split(s, shapes)
    convolve = block(s)
    shared = nn.Dropout(s.shared_dropout, deterministic=not train)(shared)
    removed = self._removed(y, removed, train)
    write = functools.partial(
      self._write, y=y, removed=removed, train=train, previous=previous
    )
    task, z = {}, x
    for index in range(s.depth):
      name = f'block{index}'
      task[name] = {**learned.get(name, {}), **constant.get(name, {})}
      if _is_written(s, name):
        features = self._features(name, z, shared, train)
        written = self._block(name, shapes[name]['kernel'], features, write)
        if mix is not None:
          written = {
            leaf: mix[0] * previous[name][leaf] + mix[1] * value
            for leaf, value in written.items()
          }
        task[name].update(_sum(written, learned.get(name), s.add_learned))
      params = {**task[name], **(support_norms or {}).get(name, {})}
      z = conv_ops.widened(convolve.apply({'params': params}, z))
    if 'head' in shapes:
      features = self._features('head', z, shared, train)
      written = self._head(shapes['head']['kernel'], features, write)
      task['head'] = _sum(written, learned.get('head'), s.add_learned)
    return task

  def _removed(self, y, removed, train):
    """f32[S], `removed` and what training hides from attention; or None.

    One share q ~ U(0, p) a task for labelled and one for unlabelled rows.
    """
    s = self.settings
    if not train or not (s.remove_labelled or s.remove_unlabelled):
      return removed
    keys = jax.random.split(self.make_rng('dropout'))
    largest = jnp.array([s.remove_labelled, s.remove_unlabelled])
    shares = largest * jax.random.uniform(keys[0], (2,))
    share = jnp.where(y < 0, shares[1], shares[0])
    hidden = jax.random.uniform(keys[1], y.shape) < share
    hidden = hidden.astype(jnp.float32)
    return hidden if removed is None else jnp.maximum(hidden, removed)

  def _features(self, name, z, shared, train):
    """Layer features, without convolutions where `features` is 0."""
    s = self.settings
    parts = []
    if name == 'head' and s.net == 'maxpool' and s.logits_features != 'default':
      parts.append(z.reshape(z.shape[0], -1))
    if s.features and not (parts and s.logits_features == 'passthrough'):
      parts.append(layer_features(s, name, z, name=f'{name}_features')(z))
    if parts:
      drop = nn.Dropout(s.feature_dropout, deterministic=not train)
      parts = [drop(jnp.concatenate(parts, axis=-1))]
    return jnp.concatenate([*parts, shared], axis=-1)

  def _write(self, name, shape, extras, features, *, previous, **options):
    """Slices f32[T, B] of the layer `name`, whose shape is `slices_shape`."""
    s = self.settings
    generate = layer_generator.LayerGenerator(
      s.way,
      *shape,
      s.embedding,
      lambda name, layer=name: encoder(s, layer, name=name),
      separate=s.generator == 'separate',
      decoder=s.decoder,
      name=name,
    )
    if previous is not None:
      layer = previous[name]
      extra = jnp.stack([layer[k] for k in extras]) if extras else None
      options['previous'] = weight_tokens.disassemble(
        layer['kernel'], s.allocation, extra
      )
    slices = generate(features, **options)
    scale = s.logits_scale if name == 'head' else s.block_scale
    if scale:
      scale_name = 'logits_scale' if name == 'head' else f'{name}_scale'
      init = lambda _: jnp.asarray(scale, jnp.float32)
      slices = slices * self.param(scale_name, init)
    return slices

  def _block(self, name, kernel, features, write):
    s = self.settings
    extras = _extras(s)
    shape = weight_tokens.slices_shape(kernel.shape, s.allocation, len(extras))
    slices = write(name, shape, extras, features)
    layer = {
      'kernel': weight_tokens.assemble(slices, kernel.shape, s.allocation)
    }
    if extras:
      layer.update(
        zip(extras, weight_tokens.extras(slices, kernel.shape, len(extras)))
      )
    return layer

  def _head(self, kernel, features, write):
    size = kernel.shape[0]
    slices = write('head', (self.settings.way, size + 1), (), features)
    return weight_tokens.assemble_head(slices, size)


def _sum(written, learned, add):
  """Written parameters, with the learned ones added to them if asked for."""
  if not add:
    return written
  return {name: value + learned[name] for name, value in written.items()}
