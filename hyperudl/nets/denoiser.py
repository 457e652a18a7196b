"""Defines a network that predicts the noise in a latent, given a condition."""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp


def time_embedding(t: jax.Array, width: int) -> jax.Array:
  """Return sinusoidal features of timesteps, first cosines, then sines.

  As in arXiv:1706.03762, section 3.5.

  Args:
    t: i32[...].
    width: number of features, even and >= 2.

  Returns:
    f32[..., width].

  Raises:
    ValueError: an odd width, or one below 2.
  """
  if width < 2 or width % 2:
    raise ValueError(f'time width must be even and >= 2, not {width}')
  half = width // 2
  rates = jnp.exp(-math.log(10000.0) / half * jnp.arange(half))
  angles = jnp.asarray(t, jnp.float32)[..., None] * rates
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Denoiser(nn.Module):
  """Residual MLP that predicts the noise in a latent (arXiv:2210.08942).

  Every block also takes the condition and the timestep as inputs. The output
  layer starts at zero: the first loss is 1, that of the best constant, and no
  step is spent on unlearning a random prediction.

  Attributes:
    latent: Z.
    hidden: width of each block.
    time_width: number of features of the timestep.
  """

  latent: int
  hidden: tuple[int, ...] = (128, 128)
  time_width: int = 100

  @nn.compact
  def __call__(
    self, z: jax.Array, t: jax.Array, condition: jax.Array
  ) -> jax.Array:
    """Predict the noise f32[..., Z] in latents.

    Args:
      z: f32[..., Z].
      t: i32[] or i32[...], timesteps.
      condition: f32[C] or f32[..., C].

    Raises:
      ValueError: if `z` does not have Z dimensions.
    """
    if z.shape[-1] != self.latent:
      raise ValueError(
        f'latents must have {self.latent} dimensions, not {z.shape[-1]}'
      )
    time = time_embedding(t, self.time_width)
    broadcast = lambda x: jnp.broadcast_to(x, (*z.shape[:-1], x.shape[-1]))
    inputs = jnp.concatenate([broadcast(condition), broadcast(time)], axis=-1)
    h = z
    for i, width in enumerate(self.hidden):
      new = nn.Dense(width, name=f'block_{i}')(
        jnp.concatenate([h, inputs], axis=-1)
      )
      new = nn.silu(nn.LayerNorm(name=f'norm_{i}')(new))
      h = new + nn.Dense(width, use_bias=False, name=f'skip_{i}')(h)
    zeros = nn.initializers.zeros_init()
    return nn.Dense(self.latent, kernel_init=zeros, name='output')(h)
