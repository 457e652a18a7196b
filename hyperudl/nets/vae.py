"""A small variational autoencoder (Kingma and Welling, arXiv:1312.6114)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl.ops import losses

# Moments are stored as log(value) / MOMENT_SPEED, so that one Adam step can
# follow a quantity that falls by orders of magnitude early in training.
MOMENT_SPEED = 10.0
MOMENTS = ('error_mean', 'error_std', 'kl_mean', 'kl_std')


def read_moments(stored):
  """Population moments as plain numbers: dict of f32[] (see MOMENTS)."""
  return {name: jnp.exp(MOMENT_SPEED * stored[name]) for name in MOMENTS}


class VAE(nn.Module):
  """Perceptron encoder and decoder with a Gaussian likelihood.

  Attributes:
    image_shape: (H, W, C).
    latent: L, latent dimensions.
    hidden: widths of the encoder's layers; the decoder mirrors them.
  """

  image_shape: tuple[int, ...]
  latent: int = 24
  hidden: tuple[int, ...] = (256, 128)

  def setup(self):
    self.encoder = [nn.Dense(width) for width in self.hidden]
    self.posterior = nn.Dense(2 * self.latent)
    self.decoder = [nn.Dense(width) for width in reversed(self.hidden)]
    self.pixels = nn.Dense(math.prod(self.image_shape))
    # One variance for all pixels, learned (sigma-VAE, arXiv:2006.13202).
    self.log_variance = self.param(
      'log_variance', lambda _: jnp.asarray(-2.0, jnp.float32)
    )

  def trunk(self, x):
    """What the posterior reads: f32[n, H, W, C] -> f32[n, hidden[-1]]."""
    h = x.reshape(x.shape[0], -1)
    for layer in self.encoder:
      h = nn.silu(layer(h))
    return h

  def encode(self, x):
    """Posterior of images f32[n, H, W, C]: (mean, log-variance) f32[n, L]."""
    mean, log_variance = jnp.split(self.posterior(self.trunk(x)), 2, axis=-1)
    return mean, jnp.clip(log_variance, -8.0, 4.0)

  def decode(self, z):
    """Mean image f32[n, H, W, C] of latents f32[n, L]."""
    for layer in self.decoder:
      z = nn.silu(layer(z))
    return nn.sigmoid(self.pixels(z)).reshape(-1, *self.image_shape)

  def __call__(self, x, noise):
    """Terms of the ELBO.

    Args:
      x: f32[n, H, W, C] in [0, 1].
      noise: f32[n, L] standard normal; zeros decode the posterior mean.

    Returns:
      dict: mean, log_variance f32[n, L]; nll f32[n] nats; kl f32[n] nats;
      error f32[n], the squared error of the image.
    """
    return elbo_terms(self, x, noise)


def elbo_terms(net, x, noise):
  """Terms of the ELBO of a bound autoencoder; see `VAE.__call__`."""
  mean, log_variance = net.encode(x)
  z = mean + jnp.exp(0.5 * log_variance) * noise
  image = net.decode(z)
  return {
    'mean': mean,
    'log_variance': log_variance,
    'nll': losses.gaussian_nll(x, image, net.log_variance),
    'kl': losses.kl_standard_normal(mean, log_variance),
    'error': jnp.sum(jnp.square(x - image), axis=(1, 2, 3)),
    'image': image,
  }


def standardise(terms, moments):
  """Reconstruction error and KL in robust population units.

  Args:
    terms: what `VAE.__call__` returned.
    moments: dict of f32[]: error_mean, error_std, kl_mean, kl_std.

  Returns:
    (r, q) f32[n] each: signed log of the standard scores; 0 = a typical
    clean image.
  """
  error = (terms['error'] - moments['error_mean']) / moments['error_std']
  kl = (terms['kl'] - moments['kl_mean']) / moments['kl_std']
  return losses.signed_log(error), losses.signed_log(0.5 * kl)


def beta(step, start, end, steps):
  """KL weight rising linearly from `start` to `end` over `steps` steps."""
  share = jnp.clip(jnp.asarray(step, jnp.float32) / max(steps, 1), 0.0, 1.0)
  return start + (end - start) * share


def latent_noise(key, n, latent):
  """Standard normal f32[n, L]."""
  return jax.random.normal(key, (n, latent))
