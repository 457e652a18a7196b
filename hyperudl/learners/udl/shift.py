"""Infers the shift that the unlabelled images of an episode share.

The model: a clean image is decoded from a latent by the frozen vae and then
seen through T_phi (`ops/shift_transform.py`), with one phi for all images. Its
negative ELBO, a bound on the density of the image x itself, is
  F(phi) = mean over x of |x - T_phi(D(z))|^2 / (2 sigma^2) + log terms
           + KL(q(z | T_phi^-1 x) || p(z)),   z the mean of q(z | T_phi^-1 x).
Since x is not transformed, blank or small images gain nothing.

The clean labelled images, seen through T_phi, give a second set of prototypes:
  w_c <- w_c + g a |w_c| unit(mean of f(T_phi S)_c),
with the statistics of the unlabelled images in the norms, a learned, and a gate
g on what the geometry of phi lowers F by, relative to its standard error; its
threshold rises with what phi and noise do not explain, and g = 0 at phi = 0.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import target_network
from hyperudl.ops import losses
from hyperudl.ops import shift_transform

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config

# Where the steps may start, as logarithms of A: the identity and a turn to
# either side. Gradient steps on F do not turn characters this far, but they
# find shears and stretches by themselves (docs/results/udl.md).
CANDIDATES = np.array(
  [[[0, 0], [0, 0]], *([[0, -r], [r, 0]] for r in (-0.5, 0.5))], np.float32
)
SPREAD = 0.1  # size of phi at which g is .63 if there is no ELBO to gate it


def init(config: 'Config') -> dict[str, jax.Array]:
  """Return initial parameters: log a, those of g and those of `blend`."""
  params: core.PyTree = {'log_weight': 0.0, 'log_slope': 0.0}
  params |= {'threshold': 2.5, 'misfit': 2.0}
  if config.blend:
    params['blend'] = {'logit': 0.0, 'threshold': 2.0, 'log_slope': 1.0}
  return jax.tree.map(jnp.float32, params)


@target_network.trace_once
def elbo_terms(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  x: jax.Array,
  mask: jax.Array,
) -> dict[str, jax.Array]:
  """Compute the terms of F at posterior means.

  sigma^2 is its maximum-likelihood estimate from the images that count, or
  that of the vae if it is larger. No gradient flows through it, since F has
  none with respect to sigma^2 at its minimum.

  Args:
    config: of the learner.
    params: of the learner.
    phi: of the shift.
    x: f32[n, H, W, C].
    mask: f32[n], images that count.

  Returns:
    nll f32[n] and kl f32[n], both in nats; image f32[n, H, W, C], the decoded
    images seen through T_phi; log_noise and log_misfit f32[], the logarithm of
    the variance of white noise, and of the rest of sigma^2, over that of the
    vae, at least 0.
  """
  vae = hypernetwork.frozen_vae(config, params, x.shape[1:])[1]
  image, mean, log_variance = target_network.reconstruct(config, vae, phi, x)
  residual = x - image
  squares = jnp.mean(jnp.square(residual), axis=(1, 2, 3))
  estimate = losses.masked_mean(squares, mask)
  noise = losses.masked_mean(_white_variance(residual), mask)
  known = vae['params']['log_variance']
  in_excess = lambda variance: jax.lax.stop_gradient(
    jnp.maximum(jnp.log(variance + 1e-9) - known, 0.0)
  )
  return {
    'nll': losses.gaussian_nll(x, image, known + in_excess(estimate)),
    'kl': losses.kl_standard_normal(mean, log_variance),
    'image': image,
    'log_noise': in_excess(noise),
    'log_misfit': in_excess(jnp.maximum(estimate - noise, 0.0)),
  }


def _white_variance(residual):
  """Return the variance f32[n] of white noise in each image, of its pixels.

  From second differences along both axes, which smooth patterns hardly change
  (Immerkaer 1996, Fast noise variance estimation).
  """
  rows = residual[:, :-2] - 2 * residual[:, 1:-1] + residual[:, 2:]
  both = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
  return jnp.mean(jnp.square(both), axis=(1, 2, 3)) / 36


def select(
  config: 'Config', images: inner_losses.Images
) -> tuple[jax.Array, jax.Array]:
  """Return the images that phi is inferred from, and which of them count."""
  count = min(config.shift_images or len(images.mask), len(images.mask))
  rows = jax.lax.top_k(images.mask, count)[1]  # of equal ones the first
  return images.x[rows], images.mask[rows]


def free_energy(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  x: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  """Return the negative ELBO of each image, f32[n] nats."""
  terms = elbo_terms(config, params, phi, x, mask)
  return terms['nll'] + terms['kl']


def initial_value(
  images: inner_losses.Images, value: Callable[[core.PyTree], jax.Array]
) -> core.PyTree:
  """Return the phi from which the steps start; no gradient flows through it.

  Gain and bias are those that give the clean labelled images the mean, the
  standard deviation and the sign of the skewness of the others, with a gain of
  at most 1, since noise adds to a standard deviation; the matrix is the
  candidate with the smallest loss.

  Args:
    images: of the inner loop.
    value: phi -> f32[], the loss of the inner loop.
  """
  support, mask = images.support, images.mask
  mean, std, skewness = _pixel_moments(images.x, mask)
  clean = (support.y >= 0).astype(jnp.float32)
  clean_mean, clean_std, clean_skewness = _pixel_moments(support.x, clean)
  phi = shift_transform.identity()
  phi['gain'] = jnp.clip(jnp.log(std / clean_std), -1.5, 0.0)[None]
  phi['negative'] = (skewness * clean_skewness < 0).astype(jnp.float32)[None]
  phi['bias'] = (mean - shift_transform.contrast(phi) * clean_mean)[None]
  candidates = jnp.asarray(CANDIDATES)
  values = jax.lax.map(lambda m: value({**phi, 'matrix': m}), candidates)
  phi['matrix'] = candidates[jnp.argmin(values)]
  return jax.lax.stop_gradient(phi)


def _pixel_moments(x, mask):
  """Return mean, standard deviation and third moment of the masked pixels."""
  over_pixels = lambda values: losses.masked_mean(
    jnp.mean(values, axis=(1, 2, 3)), mask
  )
  mean = over_pixels(x)
  std = jnp.sqrt(over_pixels(jnp.square(x - mean)) + 1e-6)
  return mean, std, over_pixels((x - mean) ** 3)


def gain(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  images: inner_losses.Images,
) -> jax.Array:
  """Return what the geometry of phi explains, f32[].

  It is the mean over the selected images of F without matrix and translation
  minus F(phi), divided by its standard error.
  """
  flat = {
    name: jnp.zeros_like(leaf) if name in ('matrix', 'translation') else leaf
    for name, leaf in phi.items()
  }
  x, mask = select(config, images)
  gains = free_energy(config, params, flat, x, mask)
  gains -= free_energy(config, params, phi, x, mask)
  count = jnp.maximum(jnp.sum(mask), 1.0)
  error = jnp.sqrt((losses.masked_variance(gains, mask) + 1e-6) / count)
  return losses.masked_mean(gains, mask) / error


def weight(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  images: inner_losses.Images,
) -> jax.Array:
  """Return g a f32[], the weight of the shifted prototypes; 0 at phi = 0.

  Without the ELBO of the shift, g depends only on the size of phi.
  """
  learned = params['inner']['shift']
  if config.elbo == 'shift':
    ratio = gain(config, params, phi, images)
    slope = jnp.exp(learned['log_slope'])
    terms = elbo_terms(config, params, phi, *select(config, images))
    threshold = learned['threshold'] + learned['misfit'] * terms['log_misfit']
    gate = jax.nn.sigmoid(slope * (ratio - threshold))
    gate *= 1 - jnp.exp(-jax.nn.relu(ratio))
  else:
    geometry = phi['matrix'], phi['translation']
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in geometry)
    gate = 1 - jnp.exp(-size / SPREAD**2)
  return gate * jnp.exp(learned['log_weight'])


def move_prototypes(
  config: 'Config',
  network: target_network.Network,
  support: core.Examples,
  phi: core.PyTree,
  weight: jax.Array,
) -> target_network.Network:
  """Return the network with prototypes moved to where T_phi puts the support.

  Args:
    config: of the learner.
    network: with the statistics of the support.
    support: its labelled rows are clean.
    phi: of the unlabelled images.
    weight: f32[], from `weight`.
  """
  x = shift_transform.apply(phi, support.x)
  features = target_network.query_features(config, network, x)
  moved = losses.unit(losses.class_means(features, support.y, config.way))
  prototypes = network.prototypes
  sizes = jnp.linalg.norm(prototypes, axis=-1, keepdims=True)
  return network._replace(prototypes=prototypes + weight * sizes * moved)


def move(
  config: 'Config',
  params: core.PyTree,
  network: target_network.Network,
  images: inner_losses.Images,
  phi: core.PyTree,
  gated: bool,
) -> target_network.Network:
  """Return the network with prototypes moved by phi, gated or not."""
  factor = jnp.exp(params['inner']['shift']['log_weight'])
  if gated:
    factor = weight(config, params, phi, images)
  return move_prototypes(config, network, images.support, phi, factor)


def blend(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  images: inner_losses.Images,
) -> target_network.Blend:
  """Return how images are blended with what the vae makes of them.

  The weight of reconstructions is b s(k (log_noise - t)), with
  learned b, k and t and s the logistic function: none without noise.
  """
  terms = elbo_terms(config, params, phi, *select(config, images))
  learned = params['inner']['shift']['blend']
  slope = jnp.exp(learned['log_slope'])
  weight = jax.nn.sigmoid(slope * (terms['log_noise'] - learned['threshold']))
  vae = hypernetwork.frozen_vae(config, params, images.x.shape[1:])[1]
  weight *= jax.nn.sigmoid(learned['logit'])
  return target_network.Blend(weight, phi, vae)


def metrics(
  config: 'Config',
  params: core.PyTree,
  phi: core.PyTree,
  images: inner_losses.Images,
) -> dict[str, jax.Array]:
  """Return the weight of the shifted prototypes and the gain in F.

  They are only reported: no gradient flows through them.
  """
  params, phi = jax.lax.stop_gradient((params, phi))
  results = {
    'shift_weight': weight(config, params, phi, images),
    'elbo_gain': gain(config, params, phi, images),
  }
  if config.blend:
    results['blend'] = blend(config, params, phi, images).weight
  return results
