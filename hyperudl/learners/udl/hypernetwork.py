"""Generates CNN weights by a transformer: the hypernetwork of `udl`.

Tokens: one per labelled image, one per unlabelled image, two that describe the
posterior distributions of these two sets, one per slice of every kernel and one
per class. After the encoder each slice token is mapped to its slice
(HyperTransformer, arXiv:2201.04182), each class token to an update of that
class's prototype (HyperFast, arXiv:2402.14335). There is no positional
encoding, so the images of a set may have any order and number. Weight updates
are added to learned base weights.
"""

import functools
import itertools
import math
from typing import TYPE_CHECKING
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import cluster_setting
from hyperudl.learners.udl import target_network
from hyperudl.nets import backbones
from hyperudl.nets import label_encodings
from hyperudl.nets import transformer
from hyperudl.nets import vae as vae_net
from hyperudl.ops import losses
from hyperudl.ops import weight_tokens

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config


class Kernel(NamedTuple):
  """A kernel of the CNN and the slices from which it is assembled."""

  name: str  # of its layer
  shape: tuple[int, ...]
  count: int  # slices, one token each
  size: int  # entries of a slice


class Generator(nn.Module):
  """Generates updates to every layer of a CNN and to the prototypes.

  Attributes:
    config: of the learner.
    kernels: of the CNN.
    features: D, width of the CNN's features.
    trunk: CNN whose features enter the image tokens, or None.
  """

  config: 'Config'
  kernels: tuple[Kernel, ...]
  features: int
  trunk: nn.Module | None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    y: jax.Array,
    posterior: tuple[jax.Array, jax.Array],
    mask: jax.Array,
  ) -> dict[str, core.PyTree]:
    """Return weight updates for one episode.

    Args:
      x: f32[n, H, W, C], labelled and unlabelled images.
      y: i32[n] in [-1, N).
      posterior: (mean, log-variance) f32[n, L] of the images.
      mask: f32[n]; rows with 0 are ignored.

    Returns:
      {layer: {'kernel', 'scale', 'bias'}} (only 'kernel' for allocation
      'spatial') and {'head': f32[N, D]}.
    """
    config = self.config
    slots = None
    if config.label_encoding != 'learned':
      slots = label_encodings.assign(x, y, config.way)
    labels = label_encodings.encode(
      *(self, config.label_encoding, config.way, config.width, 0.5, slots)
    )
    images = self._image_tokens(x, posterior) + labels[y]
    slots = [self._embedding(f'slots_{k.name}', k.count) for k in self.kernels]
    head = self._embedding('slot_head', 1) + labels[: config.way]
    sets = self._set_tokens(y, posterior, mask)
    tokens = jnp.concatenate([*slots, head, sets, images])
    ignored = jnp.zeros(tokens.shape[0] - x.shape[0])
    if config.varies:
      start = sum(kernel.count for kernel in self.kernels)
      absent = losses.class_counts(y, config.way) == 0
      ignored = ignored.at[start : start + config.way].set(absent)
    encoder = transformer.Encoder(
      layers=config.layers, heads=config.heads, inner=2.0, norm='pre'
    )
    tokens = encoder(tokens, jnp.concatenate([ignored, 1.0 - mask]))
    return self._updates(tokens)

  def _embedding(self, name, count):
    normal = lambda key, shape: 0.5 * jax.random.normal(key, shape)
    return self.param(name, normal, (count, self.config.width))

  def _image_tokens(self, x, posterior):
    width = self.config.width
    statistics = jnp.concatenate(posterior, axis=-1)
    tokens = nn.Dense(width, name='from_posterior')(statistics)
    if self.trunk is not None:
      tokens += nn.Dense(width, name='from_trunk')(self.trunk(x))
    return tokens

  def _set_tokens(self, y, posterior, mask):
    """Embed each set's aggregate posterior moments and log(1 + rows)."""
    mean, log_variance = posterior
    tokens = []
    for name, members in (
      ('labelled', mask * (y >= 0)),
      ('unlabelled', mask * (y == -1)),
    ):
      moments = [
        losses.masked_mean(mean, members),
        losses.masked_mean(jnp.exp(log_variance), members),
        losses.masked_variance(mean, members),
        jnp.log1p(jnp.sum(members))[None],
      ]
      dense = nn.Dense(self.config.width, name=f'from_{name}_set')
      tokens.append(dense(jnp.concatenate(moments)))
    return jnp.stack(tokens)

  def _updates(self, tokens):
    counts = [*(kernel.count for kernel in self.kernels), self.config.way]
    ends = itertools.accumulate(counts, initial=0)
    *slots, head = [tokens[a:b] for a, b in itertools.pairwise(ends)]
    slices = [
      nn.Dense(kernel.size, name=f'write_{kernel.name}')(slot)
      for kernel, slot in zip(self.kernels, slots)
    ]
    initial = lambda _: jnp.asarray(self.config.strength, jnp.float32)
    *scales, head_scale = [
      self.param(f'strength_{name}', initial)
      for name in (*(kernel.name for kernel in self.kernels), 'head')
    ]
    extras = _extras(self.config)
    layers = [
      weight_tokens.assemble(rows, k.shape, self.config.allocation, extras)
      for k, rows in zip(self.kernels, slices)
    ]
    updates = {}
    for kernel, scale, layer in zip(self.kernels, scales, layers):
      # Kernel updates are in units of that layer's He initialisation.
      std = {'kernel': math.sqrt(2 / math.prod(kernel.shape[:3]))}
      updates[kernel.name] = {
        k: scale * std.get(k, 1.0) * leaf for k, leaf in layer.items()
      }
    head = nn.Dense(self.features, name='write_head')(head)
    return {**updates, 'head': head_scale * head}


def _extras(config):
  """Return the parameters that slices hold after the kernel's entries."""
  return ('scale', 'bias') if config.allocation == 'output' else ()


@functools.cache
def make_generator(config: 'Config', image_shape: tuple[int, ...]) -> Generator:
  """Return the `Generator` for images of one shape (H, W, C)."""
  architecture = target_network.architecture(config, image_shape)
  allocation, extra = config.allocation, len(_extras(config))
  kernels = []
  for spec in architecture.specs:
    shape = spec.kernel_shape
    count, size = weight_tokens.slices_shape(shape, allocation, extra)
    kernels.append(Kernel(spec.name, shape, count, size))
  trunk = None
  if config.trunk:
    trunk = backbones.make(
      'conv_stride2', config.trunk, 'layer', features='mean'
    )
  return Generator(
    config, tuple(kernels), architecture.features, trunk, parent=None
  )


def visible_support(config: 'Config', support: core.Examples) -> core.Examples:
  """Return the support with only those labels that the setting allows."""
  if config.setting == 'clusters':
    return cluster_setting.mask_labels(support)
  return support


def base_params(params: core.PyTree) -> core.PyTree:
  """Return the dict with 'cnn', 'generator' and 'log_scale' of any phase."""
  return params['frozen'].get('base', params)


def init(config: 'Config', key: jax.Array, support: core.Examples) -> dict:
  """Return trainable 'cnn' (base weights), 'generator' and 'log_scale'."""
  cnn_key, generator_key = jax.random.split(key)
  x, y = support.x, support.y
  cnn = target_network.architecture(config, x.shape[1:]).module
  posterior = (jnp.zeros((x.shape[0], config.vae_latent)),) * 2
  variables = make_generator(config, x.shape[1:]).init(
    generator_key, x, y, posterior, jnp.ones(x.shape[0])
  )
  return {
    'cnn': cnn.init(cnn_key, x[:1])['params'],
    'generator': variables['params'],
    'log_scale': jnp.log(jnp.asarray(10.0, jnp.float32)),
  }


def generate(
  config: 'Config', params: core.PyTree, support: core.Examples
) -> target_network.Network:
  """Generate the target network of one episode.

  Prototypes are class means of the support's features under the generated
  weights, plus generated updates; in the setting 'clusters' they are k-means
  centroids.

  Args:
    config: of the learner.
    params: of the learner.
    support: for controls, `context` may hold 'emit_from' (Examples with a
      leading axis, for which the mean of their weight updates is used) or
      'cond' (images in place of the unlabelled rows).
  """
  base = base_params(params)
  weights, updates = base['cnn'], None
  if config.emit == 'all':
    updates = _weight_updates(config, params, support)
    weights = {
      layer: {k: v + updates[layer].get(k, 0.0) for k, v in leaves.items()}
      for layer, leaves in weights.items()
    }
  network = target_network.with_features(
    config, target_network.Network(weights, None, base['log_scale']), support
  )
  if config.setting == 'clusters':
    prototypes = cluster_setting.init_centroids(network.features, config.way)
  else:
    prototypes = losses.class_means(network.features, support.y, config.way)
    if updates is not None:
      prototypes = prototypes + updates['head']
  if config.varies:
    present = losses.class_counts(support.y, config.way) > 0
    # Any vector but zero, where a norm has no gradient.
    prototypes = jnp.where(present[:, None], prototypes, 1.0)
    network = network._replace(present=present)
  return network._replace(prototypes=prototypes)


def _weight_updates(config, params, support):
  context = support.context or {}
  x, y = support.x, support.y
  if 'emit_from' in context:
    others = context['emit_from']
    updates = jax.vmap(
      lambda x, y: _generate_from(config, params, x, y, jnp.ones(y.shape))
    )(others.x, others.y)
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), updates)
  mask = target_network.counted(config, support)
  mask = jnp.ones(y.shape) if mask is None else mask
  if 'cond' in context:
    others = context['cond']
    x = jnp.concatenate([x, others])
    mask = (y >= 0).astype(jnp.float32)
    mask = jnp.concatenate([mask, jnp.ones(others.shape[0])])
    y = jnp.concatenate([y, jnp.full(others.shape[:1], -1, y.dtype)])
  return _generate_from(config, params, x, y, mask)


def _generate_from(config, params, x, y, mask):
  generator = make_generator(config, x.shape[1:])
  variables = {'params': base_params(params)['generator']}
  posterior = (jnp.zeros((x.shape[0], config.vae_latent), x.dtype),) * 2
  if config.condition == 'posterior':
    net, vae_variables = frozen_vae(config, params, x.shape[1:])
    posterior = net.apply(vae_variables, x, method='encode')
  return generator.apply(variables, x, y, posterior, mask)


def frozen_vae(
  config: 'Config', params: core.PyTree, image_shape: tuple[int, ...]
) -> tuple[vae_net.VAE, core.PyTree]:
  """Return the frozen autoencoder and its variables."""
  net = target_network.autoencoder(config, image_shape)
  return net, {'params': params['frozen']['vae']['net']}


def elbo_terms(
  config: 'Config', params: core.PyTree, x: jax.Array
) -> dict[str, jax.Array]:
  """Compute the frozen vae's ELBO terms of images, at posterior means."""
  net, variables = frozen_vae(config, params, x.shape[1:])
  return net.apply(variables, x, jnp.zeros((x.shape[0], config.vae_latent)))
