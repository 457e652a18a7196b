"""Builds the CNN whose weights a HyperTransformer generates for one episode.

Each parameter is generated, learned, or the constant zero (`Roles`).
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.nets import backbones
from hyperudl.nets import conv
from hyperudl.ops import normalization

NORM_PARAMETERS = ('scale', 'bias')


class Roles(NamedTuple):
  """Parameter names of one layer by role; all others are learned."""

  generated: tuple[str, ...]  # 'kernel', then those after it in the slices
  zero: tuple[str, ...]


def make(config: config_lib.Config) -> nn.Module:
  """Return the CNN, without its parameters.

  Raises:
    core.BadInput: if the network is not a chain of layers.
    ValueError: for widths that the norm does not allow.
  """
  channels = (config.channels,) * config.depth
  head = config.way if config.head == 'written' else None
  if config.net in backbones.BACKBONES:
    module = backbones.make(config.net, channels, config.norm, head)
  else:
    pools = config.net == 'maxpool'
    module = conv.ConvNet(
      channels,
      head=head,
      features='flatten' if pools else 'mean',
      kernel=config.kernel_size,
      stride=config.stride,
      padding='SAME' if pools else 'VALID',
      pool=pools,
      norm=config.norm,
      activation=config.activation,
      order='conv_act_pool_norm',
      parent=None,
    )
  if not module.is_chain:
    raise core.BadInput(
      f'net={config.net!r} is no chain of layers, and each layer is generated '
      "from the output of the one before: use 'maxpool', 'strided' or 'conv'"
    )
  return module


def layer_specs(config: config_lib.Config, x: jax.Array) -> backbones.Specs:
  """Return the layers of the CNN for images f32[n, H, W, C]."""
  return backbones.layer_specs(make(config), x.shape[1:])


def embed(
  config: config_lib.Config,
  cnn: core.PyTree,
  x: jax.Array,
  domains: core.PyTree | None = None,
) -> jax.Array:
  """Return logits (or features) of images f32[n, H, W, C] in [0, 1].

  `domains` are those of `counted_rows`, or None.
  """
  return make(config).apply({'params': cnn}, scale_pixels(x), domains)


def counted_rows(
  config: config_lib.Config, y: jax.Array
) -> tuple[jax.Array, jax.Array] | None:
  """Return the domains of `nets.conv` by which only images count.

  Args:
    config: hyperparameters.
    y: i32[S], labels of the support.
  """
  if not config.varies:
    return None
  return normalization.counting(y != core.NO_IMAGE)


def scale_pixels(x: jax.Array) -> jax.Array:
  """Map images from [0, 1] to [-1, 1], the range of the networks' inputs."""
  return 2.0 * x - 1.0


def roles(
  config: config_lib.Config, specs: backbones.Specs
) -> dict[str, Roles]:
  """Return for each layer which parameters are generated and which are zero.

  Without `generate_bias` the bias before the activation is zero. With
  prototypes a learned bias of the last norm is zero too, because it would move
  features and prototypes equally.
  """
  by_layer = {}
  for index, spec in enumerate(specs):
    if spec.is_head:
      by_layer[spec.name] = Roles(('kernel', 'bias'), ())
      continue
    norms = NORM_PARAMETERS if spec.norm != 'none' else ()
    biases = tuple(p for p in spec.channel_parameters if p not in norms)
    generated: tuple[str, ...] = ('kernel',)
    zero: tuple[str, ...] = ()
    if config.generate_bias:
      generated += biases
    else:
      zero += biases
    if config.generate_norm:
      generated += norms
    elif norms and config.head != 'written' and spec is specs[-1]:
      zero += ('bias',)
    first = max(config.trained_layers, 0)
    end = config.depth + min(config.trained_layers, 0)
    is_generated = first <= index < end
    by_layer[spec.name] = Roles(generated if is_generated else (), zero)
  return by_layer


def learned_part(
  config: config_lib.Config, specs: backbones.Specs, cnn: core.PyTree
) -> dict[str, core.PyTree]:
  """Return the learned parameters of the CNN, by layer.

  With `add_learned` they include those to which generated ones are added.
  """
  learned = {}
  for name, (generated, zero) in roles(config, specs).items():
    others = zero if config.add_learned else (*zero, *generated)
    layer = {k: v for k, v in cnn[name].items() if k not in others}
    if layer:
      learned[name] = layer
  return learned


def norms(learned: dict[str, core.PyTree]) -> dict[str, core.PyTree]:
  """Return scale and bias of the normalisations among learned parameters."""
  return {
    name: {key: layer[key] for key in NORM_PARAMETERS}
    for name, layer in learned.items()
    if 'scale' in layer
  }


def zeros(spec: backbones.LayerSpec, names: tuple[str, ...]) -> core.PyTree:
  """Return the named parameters f32[Cout] of a layer, all zero."""
  return {name: jnp.zeros(spec.kernel_shape[-1]) for name in names}
