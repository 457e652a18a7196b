"""Transforms images differentiably by 11 parameters.

All zeros are the identity. Order: blending with blurred images, gain and bias,
soft clipping, then an affine resampling in two separable passes (first along
rows, then along columns). Interpolation uses the cubic kernel of Keys (1981):
unlike that of linear interpolation, its derivative at the identity is the
central difference of the image, not zero.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

# Number of parameters in each group; in `udl` a group shares one step size.
GROUPS = {
  'blur': 2,  # weights of Gaussian blurs of .7 and 1.6 pixels
  'gain': 1,
  'bias': 1,
  'clip': 1,  # weight of clipping to [0, 1]
  'affine': 4,  # log scale, log aspect, row shear, column shear
  'translation': 2,  # tens of pixels, rows and columns
}

# Initial step sizes in units of `rate`, chosen so that a step is about equally
# visible in each group.
RATES = {
  'blur': 0.15,
  'gain': 0.2,
  'bias': 0.1,
  'clip': 0.2,
  'affine': 0.1,
  'translation': 0.02,
}


def identity() -> dict[str, jax.Array]:
  """Return the parameters of the identity: zeros f32[n] for each group."""
  return {name: jnp.zeros((n,), jnp.float32) for name, n in GROUPS.items()}


def _blur_matrix(size, sigma):
  """Return the constant [size, size] of a Gaussian blur, borders reflected."""
  position = np.arange(size)
  radius = max(1, math.ceil(3 * sigma))
  offsets = np.arange(-radius, radius + 1)
  weights = np.exp(-0.5 * (offsets / sigma) ** 2)
  weights /= weights.sum()
  matrix = np.zeros((size, size), np.float32)
  for offset, tap in zip(offsets, weights):
    source = np.abs(position + offset)
    source = np.where(source >= size, 2 * size - 2 - source, source)
    matrix[position, np.clip(source, 0, size - 1)] += tap
  return jnp.asarray(matrix)


def _keys(distance):
  """Evaluate the cubic convolution kernel with a = -1/2; zero beyond 2."""
  d = jnp.abs(distance)
  near = (1.5 * d - 2.5) * d * d + 1
  far = ((-0.5 * d + 2.5) * d - 4) * d + 2
  return jnp.where(d < 1, near, jnp.where(d < 2, far, 0.0))


def _resample(source, size):
  """Return interpolation weights f32[..., size] for positions f32[...]."""
  return _keys(source[..., None] - jnp.arange(size))


def apply(v: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """Transform images f32[n, H, W, C] by parameters `v`, see `GROUPS`."""
  x = _photometric(v, x)
  height, width = x.shape[1:3]
  rows = jnp.arange(height) - (height - 1) / 2
  columns = jnp.arange(width) - (width - 1) / 2
  log_scale, log_aspect, row_shear, column_shear = v['affine']
  down, right = 10 * v['translation']
  along_width = (
    columns[None, :] * jnp.exp(-log_scale - log_aspect)
    + row_shear * rows[:, None]
    + right
    + (width - 1) / 2
  )
  along_height = (
    rows[None, :] * jnp.exp(-log_scale + log_aspect)
    + column_shear * columns[:, None]
    + down
    + (height - 1) / 2
  )
  x = jnp.einsum('hoi,nhic->nhoc', _resample(along_width, width), x)
  return jnp.einsum('woi,niwc->nowc', _resample(along_height, height), x)


def _photometric(v, x):
  height, width = x.shape[1:3]
  for weight, sigma in zip(v['blur'], (0.7, 1.6)):
    blurred = jnp.einsum(
      'oh,nhwc,pw->nopc',
      _blur_matrix(height, sigma),
      x,
      _blur_matrix(width, sigma),
    )
    x = x + weight * (blurred - x)
  x = (1 + v['gain'][0]) * x + v['bias'][0]
  return x + 0.9 * v['clip'][0] * (jnp.clip(x, 0.0, 1.0) - x)
