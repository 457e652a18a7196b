"""Applies the target network of `udl`, a CNN generated for one episode.

It classifies by the cosine of features f and prototypes w,
  logits = tau cos(f(x), w).
With norm='domain' each of two domains is normalised by its own statistics:
labelled images, which are clean, and all other images, which may be shifted.
Queries use the statistics of the unlabelled images, so the prediction of one
query does not depend on the others, except in the control
query_statistics='queries'.
"""

import functools
from typing import TYPE_CHECKING
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import cluster_setting
from hyperudl.nets import backbones
from hyperudl.nets import vae as vae_net
from hyperudl.ops import losses
from hyperudl.ops import shift_transform

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config


# Decorator of functions of (config, arrays) that are called several times in an
# episode: they are traced only once for the same shapes.
trace_once = functools.partial(jax.jit, static_argnums=0, inline=True)


class Blend(NamedTuple):
  """How the images that may be shifted are cleaned before they are read."""

  weight: jax.Array  # f32[], of the reconstruction; the rest is the image
  phi: core.PyTree  # of the shift, see `ops/shift_transform.py`
  vae: core.PyTree  # variables of the frozen autoencoder


class Network(NamedTuple):
  """A target network generated for one episode, before or after adaptation."""

  weights: core.PyTree  # {layer: {'kernel', 'scale', 'bias'}}
  prototypes: jax.Array  # f32[N, D]
  log_scale: jax.Array  # f32[], of tau
  # {layer: {'used': two f32[2, C]}}, statistics of both domains, for queries.
  statistics: core.PyTree = None
  features: jax.Array | None = None  # f32[S, D], features of the support
  blend: Blend | None = None  # None: images are read as they are
  present: jax.Array | None = None  # bool[N], classes with images; None: all


class Architecture(NamedTuple):
  """The module of a target network, and what depends on the image shape."""

  module: nn.Module
  specs: backbones.Specs
  features: int  # D


@functools.cache
def architecture(
  config: 'Config', image_shape: tuple[int, ...]
) -> Architecture:
  """Return the `Architecture` for images of one shape (H, W, C)."""
  module, specs = backbones.make_with_specs(
    config.backbone, config.channels, config.norm, input_shape=image_shape
  )
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  key = jax.eval_shape(jax.random.key, 0)
  features, _ = jax.eval_shape(module.init_with_output, key, image)
  return Architecture(module, specs, features.shape[-1])


def autoencoder(config: 'Config', image_shape: tuple[int, ...]) -> vae_net.VAE:
  """Return the module of the frozen autoencoder."""
  return vae_net.VAE(image_shape, config.vae_latent, config.vae_hidden)


@trace_once
def reconstruct(
  config: 'Config', vae: core.PyTree, phi: core.PyTree, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Reconstruct images by the frozen autoencoder followed by a shift.

  Args:
    config: of the learner.
    vae: variables of the frozen autoencoder.
    phi: of the shift.
    x: f32[n, H, W, C].

  Returns:
    (T_phi of the decoded posterior means of T_phi^-1 x, f32[n, H, W, C]; mean
    and log-variance of the posterior, f32[n, L]).
  """
  net = autoencoder(config, x.shape[1:])
  clean = shift_transform.invert(phi, x)
  mean, log_variance = net.apply(vae, clean, method='encode')
  decoded = net.apply(vae, mean, method='decode')
  return shift_transform.apply(phi, decoded), mean, log_variance


def clean(config: 'Config', network: Network, x: jax.Array) -> jax.Array:
  """Return f32[n, H, W, C] images blended with their reconstructions."""
  if network.blend is None:
    return x
  weight, phi, vae = network.blend
  return x + weight * (reconstruct(config, vae, phi, x)[0] - x)


@trace_once
def embed(
  config: 'Config',
  weights: core.PyTree,
  x: jax.Array,
  is_clean: jax.Array | None = None,
  is_counted: jax.Array | None = None,
  statistics: core.PyTree = None,
) -> tuple[jax.Array, core.PyTree]:
  """Compute features of images.

  Arguments after `x` are only used by norm='domain'.

  Args:
    config: of the learner.
    weights: of the CNN.
    x: f32[n, H, W, C].
    is_clean: f32[n], rows of the domain of labelled images; None for none.
    is_counted: f32[n], rows that statistics are computed from; None for all.
    statistics: from an earlier call, to use in place of those of x.

  Returns:
    (features f32[n, D], the statistics that were used or None).
  """
  module = architecture(config, x.shape[1:]).module
  if config.norm != 'domain':
    return module.apply({'params': weights}, x), None
  if is_clean is None:
    is_clean = jnp.zeros(x.shape[0])
  domain = jnp.stack([is_clean, 1 - is_clean], axis=1)
  counted = domain if is_counted is None else domain * is_counted[:, None]
  domains = domain, counted if statistics is None else statistics
  features, state = module.apply(
    {'params': weights}, x, domains, mutable=['statistics']
  )
  return features, state['statistics']


def counted(config: 'Config', support: core.Examples) -> jax.Array | None:
  """Return which rows f32[S] of a support have an image; None if all do."""
  if not config.varies:
    return None
  return (support.y != core.NO_IMAGE).astype(jnp.float32)


def with_features(
  config: 'Config', network: Network, support: core.Examples
) -> Network:
  """Return the network with the features and statistics of a support.

  Args:
    config: of the learner.
    network: its present features and statistics are replaced.
    support: `context['cond']` may hold images that replace the unlabelled rows
      in the statistics.
  """
  x, is_clean = support.x, (support.y >= 0).astype(jnp.float32)
  is_counted = counted(config, support)
  if network.blend is not None:
    is_labelled = (support.y >= 0)[:, None, None, None]
    x = jnp.where(is_labelled, x, clean(config, network, x))
  features, statistics = embed(config, network.weights, x, is_clean, is_counted)
  others = (support.context or {}).get('cond')
  if config.norm == 'domain' and others is not None:
    one = jnp.ones(others.shape[0])
    x = jnp.concatenate([x, clean(config, network, others)])
    is_counted = jnp.concatenate([is_clean, one])
    is_clean = jnp.concatenate([is_clean, 0 * one])
    _, statistics = embed(config, network.weights, x, is_clean, is_counted)
  return network._replace(features=features, statistics=statistics)


@functools.partial(jax.jit, inline=True)
def similarity_logits(network: Network, features: jax.Array) -> jax.Array:
  """Compute tau cos(features, prototypes): f32[n, D] -> f32[n, N]."""
  prototypes = losses.unit(network.prototypes)
  logits = jnp.exp(network.log_scale) * losses.unit(features) @ prototypes.T
  return losses.mask_absent(logits, network.present)


def query_features(
  config: 'Config', network: Network, x: jax.Array
) -> jax.Array:
  """Compute features f32[n, D] of images f32[n, H, W, C] treated as queries."""
  own = config.query_statistics == 'queries'
  statistics = None if own else network.statistics
  x = clean(config, network, x)
  return embed(config, network.weights, x, None, None, statistics)[0]


def classify(config: 'Config', network: Network, x: jax.Array) -> jax.Array:
  """Compute logits f32[n, N] of images f32[n, H, W, C] treated as queries."""
  return similarity_logits(network, query_features(config, network, x))


def query_logits(
  config: 'Config', network: Network, episode: core.Episode
) -> jax.Array:
  """Compute query logits f32[m, N]; column c is class c, not cluster c."""
  logits = classify(config, network, episode.query.x)
  if config.setting == 'classes':
    return logits
  support_logits = classify(config, network, episode.support.x)
  return cluster_setting.order_by_class(
    support_logits, logits, episode, config.way
  )


def query_metrics(
  config: 'Config', network: Network, episode: core.Episode
) -> dict[str, jax.Array]:
  """Compute metrics of the query predictions in the config's setting."""
  logits = classify(config, network, episode.query.x)
  if config.setting == 'classes':
    return losses.classification_metrics(logits, episode.query.y)
  support_logits = classify(config, network, episode.support.x)
  return cluster_setting.metrics(support_logits, logits, episode, config.way)
