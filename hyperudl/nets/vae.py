"""Defines variational autoencoders of images (arXiv:1312.6114).

`VAE` consists of MLPs, `ResidualVAE` is the convolutional autoencoder of
UDL-MetaTrainingHyperNetwork. Both have `encode`, `decode` and a `__call__` that
returns the terms of the ELBO.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.ops import losses

# Moments are stored as log(value) / MOMENT_SPEED, so that one Adam step can
# follow a quantity that falls by orders of magnitude early in training.
MOMENT_SPEED = 10.0
MOMENTS = ('error_mean', 'error_std', 'kl_mean', 'kl_std')


def read_moments(stored: core.PyTree) -> dict[str, jax.Array]:
  """Return stored population moments in their own units, {name: f32[]}."""
  return {name: jnp.exp(MOMENT_SPEED * stored[name]) for name in MOMENTS}


def standardise(
  terms: dict[str, jax.Array], moments: dict[str, jax.Array]
) -> jax.Array:
  """Return standard scores of reconstruction error and KL.

  Args:
    terms: from `elbo_terms`.
    moments: population moments, from `read_moments`.

  Returns:
    f32[n, 2]: the standard score of the error, and half that of the KL; 0 for
    a typical clean image.
  """
  error = (terms['error'] - moments['error_mean']) / moments['error_std']
  kl = (terms['kl'] - moments['kl_mean']) / moments['kl_std']
  return jnp.stack([error, 0.5 * kl], axis=-1)


def elbo_terms(
  net: nn.Module,
  x: jax.Array,
  noise: jax.Array,
  encoded: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Compute the terms of the ELBO of a bound autoencoder.

  Args:
    net: bound module with `encode`, `decode` and `log_variance`.
    x: f32[n, H, W, C] in [0, 1].
    noise: f32[n, L], standard normal; zeros decode the posterior mean.
    encoded: f32[n, H, W, C], what the encoder reads in place of x.

  Returns:
    mean, log_variance f32[n, L]; nll f32[n] nats; kl f32[n] nats; error f32[n],
    the squared error of the image; image f32[n, H, W, C].
  """
  mean, log_variance = net.encode(x if encoded is None else encoded)
  image = net.decode(mean + jnp.exp(0.5 * log_variance) * noise)
  return {
    'mean': mean,
    'log_variance': log_variance,
    'nll': losses.gaussian_nll(x, image, net.log_variance),
    'kl': losses.kl_standard_normal(mean, log_variance),
    'error': jnp.sum(jnp.square(x - image), axis=(1, 2, 3)),
    'image': image,
  }


def _posterior(both):
  """Split f32[n, 2 L] into mean and (clipped) log-variance f32[n, L]."""
  mean, log_variance = jnp.split(both, 2, axis=-1)
  return mean, jnp.clip(log_variance, -8.0, 4.0)


class VAE(nn.Module):
  """MLP encoder and decoder with a Gaussian likelihood.

  Attributes:
    image_shape: (H, W, C).
    latent: L, latent dimensions.
    hidden: widths of the encoder's layers; the decoder mirrors them.
  """

  image_shape: tuple[int, ...]
  latent: int = 24
  hidden: tuple[int, ...] = (256, 128)

  def setup(self) -> None:
    """Make the layers."""
    self.encoder = [nn.Dense(width) for width in self.hidden]
    self.posterior = nn.Dense(2 * self.latent)
    self.decoder = [nn.Dense(width) for width in reversed(self.hidden)]
    self.pixels = nn.Dense(math.prod(self.image_shape))
    # One variance for all pixels, learned (sigma-VAE, arXiv:2006.13202).
    self.log_variance = self.param(
      'log_variance', lambda _: jnp.asarray(-2.0, jnp.float32)
    )

  def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the posterior (mean, log-variance) f32[n, L] of images."""
    x = x.reshape(x.shape[0], -1)
    for layer in self.encoder:
      x = nn.silu(layer(x))
    return _posterior(self.posterior(x))

  def decode(self, latent: jax.Array) -> jax.Array:
    """Return mean images f32[n, H, W, C] of latents f32[n, L]."""
    for layer in self.decoder:
      latent = nn.silu(layer(latent))
    return nn.sigmoid(self.pixels(latent)).reshape(-1, *self.image_shape)

  def __call__(
    self, x: jax.Array, noise: jax.Array, encoded: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Return `elbo_terms` of images."""
    return elbo_terms(self, x, noise, encoded)


def _activate(x):
  return jax.nn.leaky_relu(x, 0.01)


def _conv(width, stride=1, size=3, bias=True, name=None):
  pad = (size // 2, size // 2)
  return nn.Conv(
    width,
    (size, size),
    strides=(stride, stride),
    padding=(pad, pad),
    use_bias=bias,
    name=name,
  )


def pixel_shuffle(x: jax.Array) -> jax.Array:
  """Rearrange f32[n, H, W, 4 C] as f32[n, 2 H, 2 W, C] (arXiv:1609.05158)."""
  n, height, width, channels = x.shape
  x = x.reshape(n, height, width, 2, 2, channels // 4)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, 2 * height, 2 * width, channels // 4)


class Block(nn.Module):
  """Two 3x3 convolutions, a shortcut, leaky ReLU; no normalisation.

  Attributes:
    width: filters of the first convolution.
    last: filters of the second; 0 for `width`.
    stride: stride of the second convolution.
    residual: whether there is a shortcut (a 1x1 convolution if shapes differ).
  """

  width: int
  last: int = 0
  stride: int = 1
  residual: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return f32[n, H / stride, W / stride, last] of f32[n, H, W, C]."""
    last = self.last or self.width
    y = _activate(_conv(self.width)(x))
    y = _conv(last, self.stride)(y)
    if self.residual:
      if x.shape != y.shape:
        x = _conv(last, self.stride, 1, bias=False, name='shortcut')(x)
      y = y + x
    return _activate(y)


class ResidualVAE(nn.Module):
  """The autoencoder of UDL-MetaTrainingHyperNetwork.

  The likelihood has the fixed variance 1/2, so that its negative logarithm is
  the squared error plus a constant, as in the original loss.

  Attributes:
    image_shape: (H, W, C); H and W must be multiples of 4.
    latent: L.
    width: filters of the first block; 32 in the original.
  """

  image_shape: tuple[int, ...]
  latent: int = 128
  width: int = 32

  def setup(self) -> None:
    """Make the layers.

    Raises:
      core.BadInput: for images whose sides are not multiples of 4.
    """
    height, side, channels = self.image_shape
    if height % 4 or side % 4:
      raise core.BadInput(
        f'the residual autoencoder halves images twice: {height}x{side} is no '
        'multiple of 4; set data.image_size'
      )
    w = self.width
    self.encoder = [Block(w, stride=2), Block(2 * w, stride=2), Block(4 * w)]
    self.posterior = nn.Dense(2 * self.latent)
    size = height // 4 * (side // 4) * 4 * w
    self.middle = nn.Dense((self.latent + size) // 2)
    self.wide = nn.Dense(size)
    self.direct = nn.Dense(size, use_bias=False)
    self.decoder = [
      Block(2 * w),
      Block(2 * w),
      Block(w // 4, last=4 * channels, residual=False),
    ]
    self.shrink = _conv(channels, stride=2)

  @property
  def log_variance(self) -> jax.Array:
    """The fixed log-variance f32[] of a pixel."""
    return jnp.log(jnp.asarray(0.5, jnp.float32))

  def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the posterior (mean, log-variance) f32[n, L] of images."""
    for block in self.encoder:
      x = block(x)
    return _posterior(self.posterior(x.reshape(x.shape[0], -1)))

  def decode(self, latent: jax.Array) -> jax.Array:
    """Return mean images f32[n, H, W, C], unbounded, of latents f32[n, L]."""
    x = _activate(self.middle(latent))
    x = _activate(self.wide(x)) + self.direct(latent)
    height, side, _ = self.image_shape
    x = x.reshape(latent.shape[0], height // 4, side // 4, 4 * self.width)
    for block in self.decoder:
      x = pixel_shuffle(block(x))
    return self.shrink(x)

  def __call__(
    self, x: jax.Array, noise: jax.Array, encoded: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Return `elbo_terms` of images."""
    return elbo_terms(self, x, noise, encoded)
