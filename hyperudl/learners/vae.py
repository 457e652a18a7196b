"""Trains a variational autoencoder of images, which `udl` uses frozen.

Kingma and Welling 2014, arXiv:1312.6114:
  loss = E_q(z|x)[-log p(x|z)] + beta KL(q(z|x) || N(0, 1)), nats per image,
averaged over all images of the episode and divided by the number of pixel
values. beta rises linearly over `beta_steps`, as in the document that describes
UDL (from .25 to 1).

An addition of ours: the mean and standard deviation of the reconstruction error
and of the KL over clean images, and the moments of the posterior means, are
parameters fitted by a regression term. They are thus saved in the checkpoint,
and `udl` can tell how unusual an image is. As a classifier the learner predicts
the class whose mean of posterior means is nearest.
Expected on 28x28 glyphs: a squared error of about 11 per image (our prototype
on Omniglot: 11.1 in training, 14.0 in test), all 24 latents active.
"""

import dataclasses
from functools import partial
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.nets import vae as vae_net
from hyperudl.ops import image
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `vae`."""

  way: int = field(5, at_least=1)  # N, from episode.way
  latent: int = field(24, at_least=1)  # L, latent dimensions
  # Widths of the encoder of 'perceptron'; the decoder mirrors them.
  hidden: tuple[int, ...] = field((256, 128), at_least=1)
  # 'residual': convolutions, as in the original UDL code.
  architecture: Literal['perceptron', 'residual'] = 'perceptron'
  width: int = field(32, at_least=4)  # filters of the first block of 'residual'
  beta_start: float = field(0.25, at_least=0)  # initial KL weight
  beta_end: float = field(1.0, at_least=0)  # after `beta_steps` outer steps
  beta_steps: int = field(2000, at_least=0, at_most='steps')
  # Largest standard deviation of noise on what the encoder reads in training
  # (denoising criterion, arXiv:1511.06406).
  denoise: float = field(0.0, at_least=0)

  def __post_init__(self):
    hyperparameters.check(self)
    if not self.hidden or self.width % 4:
      raise ValueError(
        'hidden must have a layer and width be a multiple of 4, not hidden = '
        f'{self.hidden}, width = {self.width}'
      )


def make(config: Config) -> core.Learner:
  """Make the `vae` learner. Its task is class means f32[N, L]."""
  return learners.make_learner(
    partial(init, config),
    partial(_adapt, config),
    partial(_predict, config),
    partial(_loss, config),
    partial(_evaluate, config),
  )


def network(config: Config, image_shape: tuple[int, ...]) -> nn.Module:
  """Return the autoencoder for images of one shape (H, W, C)."""
  if config.architecture == 'residual':
    return vae_net.ResidualVAE(image_shape, config.latent, config.width)
  return vae_net.VAE(image_shape, config.latent, config.hidden)


def init(
  config: Config, key: jax.Array, episode: core.Episode
) -> dict[str, core.PyTree]:
  """Return the parameters: 'net', and 'moments' of clean images."""
  x = episode.support.x[:1]
  noise = jnp.zeros((1, config.latent), jnp.float32)
  shapes = dict.fromkeys(vae_net.MOMENTS, ()) | dict.fromkeys(
    ('latent_mean', 'latent_log_variance'), (config.latent,)
  )
  return {
    'net': network(config, x.shape[1:]).init(key, x, noise)['params'],
    'moments': {k: jnp.zeros(s, jnp.float32) for k, s in shapes.items()},
  }


def encode(
  config: Config, params: core.PyTree, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return the posterior of images: (mean, log-variance) f32[n, L]."""
  net = network(config, x.shape[1:])
  return net.apply({'params': params['net']}, x, method='encode')


def _adapt(config, params, support, key, *, train):
  del key, train
  means, _ = encode(config, params, support.x)
  return losses.class_means(means, support.y, config.way)


def _predict(config, params, class_means, x, context):
  del context
  means, _ = encode(config, params, x)
  return -losses.squared_distances(means, class_means)


def _elbo_terms(config, params, episode, key, denoise=0.0):
  """Compute the ELBO terms of all images of an episode.

  Noise on what the encoder reads has a standard deviation of U(0, `denoise`)
  for each image; the decoder always has to return the clean one.
  """
  x = jnp.concatenate([episode.support.x, episode.query.x])
  noise = jax.random.normal(key, (x.shape[0], config.latent))
  encoded = None
  if denoise:
    size_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
    sizes = jax.random.uniform(size_key, (x.shape[0], 1, 1, 1), maxval=denoise)
    encoded = x + sizes * image.normal(noise_key, x.shape)
  net = network(config, x.shape[1:])
  return net.apply({'params': params['net']}, x, noise, encoded)


def _loss(config, params, episode, key, step):
  clean_terms = terms = _elbo_terms(config, params, episode, key)
  if config.denoise:
    terms = _elbo_terms(config, params, episode, key, config.denoise)
  step = jnp.asarray(step, jnp.float32)
  fraction = jnp.clip(step / max(config.beta_steps, 1), 0.0, 1.0)
  beta = config.beta_start + (config.beta_end - config.beta_start) * fraction
  value = jnp.mean(terms['nll'] + beta * terms['kl'])
  value = value / math.prod(episode.support.x.shape[1:])
  value += _moment_loss(params['moments'], clean_terms)
  return value, {**_metrics(terms), 'beta': beta}


def _metrics(terms):
  return {
    'error': jnp.mean(terms['error']),
    'kl': jnp.mean(terms['kl']),
    'negative_elbo': jnp.mean(terms['nll'] + terms['kl']),
  }


def _moment_loss(stored, terms):
  """Compute the squared distance of the stored from this batch's moments."""
  moments = {
    'error_mean': jnp.mean(terms['error']),
    'error_std': jnp.std(terms['error']),
    'kl_mean': jnp.mean(terms['kl']),
    'kl_std': jnp.std(terms['kl']),
  }
  mean = jnp.mean(terms['mean'], axis=0)
  log_variance = jnp.log(jnp.var(terms['mean'], axis=0) + 1e-6)
  mean, log_variance, moments = jax.lax.stop_gradient(
    (mean, log_variance, moments)
  )
  total = jnp.mean(jnp.square(stored['latent_mean'] - mean))
  gap = (stored['latent_log_variance'] - log_variance) / vae_net.MOMENT_SPEED
  total += jnp.mean(jnp.square(gap))
  for name in vae_net.MOMENTS:
    target = jnp.log(moments[name] + 1e-6) / vae_net.MOMENT_SPEED
    total += jnp.square(stored[name] - target)
  return total


def _evaluate(config, params, episode, key):
  task = _adapt(config, params, episode.support, key, train=False)
  logits = _predict(config, params, task, episode.query.x, None)
  terms = _elbo_terms(config, params, episode, key)
  variance = jnp.var(terms['mean'], axis=0)
  return {
    **losses.classification_metrics(logits, episode.query.y),
    **_metrics(terms),
    'active_latents': jnp.sum(variance > 0.01).astype(jnp.float32),
  }
