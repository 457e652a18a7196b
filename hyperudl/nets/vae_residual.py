"""The autoencoder of UDL-MetaTrainingHyperNetwork: residual convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.nets import vae as vae_net

SLOPE = 0.01  # of every leaky ReLU


def _activate(x):
  return jax.nn.leaky_relu(x, SLOPE)


def _conv(width, stride=1, size=3, bias=True, name=None):
  pad = size // 2
  return nn.Conv(
    width,
    (size, size),
    strides=(stride, stride),
    padding=((pad, pad), (pad, pad)),
    use_bias=bias,
    name=name,
  )


def pixel_shuffle(x):
  """f32[n, H, W, 4 C] -> f32[n, 2 H, 2 W, C] (arXiv:1609.05158)."""
  n, height, width, channels = x.shape
  x = x.reshape(n, height, width, 2, 2, channels // 4)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, 2 * height, 2 * width, channels // 4)


class Block(nn.Module):
  """Two 3x3 convolutions, a shortcut, leaky ReLU; no normalisation.

  Attributes:
    width: filters of the first convolution.
    last: filters of the second; 0 for `width`.
    stride: of the second convolution.
    residual: whether there is a shortcut, 1x1 where shapes differ.
  """

  width: int
  last: int = 0
  stride: int = 1
  residual: bool = True

  @nn.compact
  def __call__(self, x):
    """f32[n, H, W, C] -> f32[n, H / stride, W / stride, last]."""
    last = self.last or self.width
    y = _activate(_conv(self.width)(x))
    y = _conv(last, self.stride)(y)
    if self.residual:
      if x.shape != y.shape:
        x = _conv(last, self.stride, 1, bias=False, name='shortcut')(x)
      y = y + x
    return _activate(y)


class ResidualVAE(nn.Module):
  """The same interface as `vae.VAE`; sides must be multiples of 4.

  The likelihood has the fixed variance 1/2, so that the negative log of it is
  the squared error and a constant, as in the original loss.

  Attributes:
    image_shape: (H, W, C).
    latent: L.
    width: filters of the first block; 32 in the original.
  """

  image_shape: tuple[int, ...]
  latent: int = 128
  width: int = 32

  def setup(self):
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
  def log_variance(self):
    return jnp.log(jnp.asarray(0.5, jnp.float32))

  def encode(self, x):
    """Posterior of images f32[n, H, W, C]: (mean, log-variance) f32[n, L]."""
    for block in self.encoder:
      x = block(x)
    both = self.posterior(x.reshape(x.shape[0], -1))
    mean, log_variance = jnp.split(both, 2, axis=-1)
    return mean, jnp.clip(log_variance, -8.0, 4.0)

  def decode(self, z):
    """Mean image f32[n, H, W, C] of latents f32[n, L]; not bounded."""
    x = _activate(self.wide(_activate(self.middle(z)))) + self.direct(z)
    height, side, _ = self.image_shape
    x = x.reshape(z.shape[0], height // 4, side // 4, 4 * self.width)
    for block in self.decoder:
      x = pixel_shuffle(block(x))
    return self.shrink(x)

  def __call__(self, x, noise):
    """Terms of the ELBO, see `vae.VAE.__call__`."""
    return vae_net.elbo_terms(self, x, noise)
