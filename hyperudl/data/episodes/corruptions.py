"""Corrupts colour images in the manner of CIFAR-10-C (arXiv:1903.12261).

Each corruption is a function of a key and images f32[n, H, W, C] in [0, 1] that
returns f32[n, H, W, C], with one random strength per call, about severities 2
to 5 of the benchmark. They follow its descriptions, not its code, so accuracies
are not comparable with those on its files. Results lie in [0, 1] if the input
does. Noise differs per image.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.ops import image

GRAY = (0.299, 0.587, 0.114)  # luma of RGB, ITU-R BT.601


def _uniform(key, low, high, shape=()):
  return jax.random.uniform(key, shape, minval=low, maxval=high)


def _clip(images):
  return jnp.clip(images, 0.0, 1.0)


def brightness(key: jax.Array, images: jax.Array) -> jax.Array:
  """Add or subtract U(.15, .4) at all pixels."""
  sign_key, key = jax.random.split(key)
  sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
  return _clip(images + sign * _uniform(key, 0.15, 0.4))


def saturation(key: jax.Array, images: jax.Array) -> jax.Array:
  """Scale the difference from gray by U(2, 4) or U(0, .4)."""
  choice, low, high = jax.random.split(key, 3)
  factor = jnp.where(
    jax.random.bernoulli(choice),
    _uniform(high, 2.0, 4.0),
    _uniform(low, 0.0, 0.4),
  )
  return _clip(to_gray(images) + factor * (images - to_gray(images)))


def to_gray(images: jax.Array) -> jax.Array:
  """Return gray images f32[n, H, W, 1]: luma of RGB, else the channel mean."""
  count = images.shape[-1]
  luma = GRAY if count == 3 else (1 / count,) * count
  weights = jnp.asarray(luma, jnp.float32)
  return jnp.sum(images * weights, axis=-1, keepdims=True)


def tint(key: jax.Array, images: jax.Array) -> jax.Array:
  """Blend images with one random colour, which has weight U(.33, .66)."""
  weight_key, color_key = jax.random.split(key)
  weight = _uniform(weight_key, 0.33, 0.66)
  color = _uniform(color_key, 0.0, 1.0, (images.shape[-1],))
  return (1 - weight) * images + weight * color


def shot_noise(key: jax.Array, images: jax.Array) -> jax.Array:
  """Add photon noise: variance x / L with L from 8 to 60, as a Gaussian."""
  level_key, noise_key = jax.random.split(key)
  level = jnp.exp(_uniform(level_key, np.log(8.0), np.log(60.0)))
  noise = image.normal(noise_key, images.shape)
  return _clip(images + jnp.sqrt(jnp.maximum(images, 0.0) / level) * noise)


def impulse_noise(key: jax.Array, images: jax.Array) -> jax.Array:
  """Set 5 to 20% of all values (channels of pixels) to 0 or 1."""
  rate_key, draw_key = jax.random.split(key)
  rate = _uniform(rate_key, 0.05, 0.2)
  draw = image.uniform(draw_key, images.shape)
  changed = jnp.where(draw < rate / 2, 0.0, 1.0)
  return jnp.where(draw < rate, changed, images)


def defocus(key: jax.Array, images: jax.Array) -> jax.Array:
  """Blur with a disk of radius U(1, 2.5) pixels, for images 32 pixels high."""
  radius = _uniform(key, 1.0, 2.5) * images.shape[1] / 32
  reach = max(1, int(np.ceil(2.5 * images.shape[1] / 32)))
  at = np.arange(-reach, reach + 1)
  distance = np.hypot(*np.meshgrid(at, at))
  # A soft edge, so that the disk grows continuously.
  disk = jnp.clip(radius + 0.5 - distance, 0.0, 1.0)
  return correlate(images, disk / disk.sum())


def motion_blur(key: jax.Array, images: jax.Array) -> jax.Array:
  """Blur along a line at a random angle, U(3, 7) pixels if 32 pixels high."""
  length_key, angle_key = jax.random.split(key)
  length = _uniform(length_key, 3.0, 7.0) * images.shape[1] / 32
  angle = _uniform(angle_key, 0.0, np.pi)
  reach = max(1, int(np.ceil(3.5 * images.shape[1] / 32)))
  row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
  along = jnp.cos(angle) * column + jnp.sin(angle) * row
  across = jnp.cos(angle) * row - jnp.sin(angle) * column
  line = jnp.clip(1 - jnp.abs(across), 0.0, 1.0)
  line *= jnp.clip(length / 2 + 0.5 - jnp.abs(along), 0.0, 1.0)
  return correlate(images, line / line.sum())


def correlate(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Correlate every channel with a kernel f32[k, k]; edges are repeated."""
  reach = kernel.shape[0] // 2
  pad = ((0, 0), (reach, reach), (reach, reach), (0, 0))
  padded = jnp.pad(images, pad, mode='edge')
  height, width = images.shape[1:3]
  size = kernel.shape[0]
  return sum(
    kernel[i, j] * padded[:, i : i + height, j : j + width]
    for i in range(size)
    for j in range(size)
  )


def zoom_blur(key: jax.Array, images: jax.Array) -> jax.Array:
  """Average eight magnifications by factors from 1 to U(1.1, 1.35)."""
  largest = _uniform(key, 1.1, 1.35)
  factors = 1 + (largest - 1) * jnp.linspace(0.0, 1.0, 8)
  zoom = lambda factor: image.scale(images, 1 / factor, 1 / factor)
  return sum(zoom(factors[i]) for i in range(8)) / 8


def fog(key: jax.Array, images: jax.Array) -> jax.Array:
  """Blend images with smooth bright clouds, one pattern each, by U(.4, .7)."""
  weight_key, cloud_key = jax.random.split(key)
  weight = _uniform(weight_key, 0.4, 0.7)
  pattern = 0.5 + 0.5 * clouds(cloud_key, images.shape[:3])
  return (1 - weight) * images + weight * pattern


def clouds(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draw smooth patterns f32[n, H, W, 1] in [0, 1] of three octaves."""
  n, height, width = shape
  total = 0.0
  for octave, cells in enumerate((2, 4, 8)):
    grid = _uniform(
      jax.random.fold_in(key, octave), 0.0, 1.0, (n, cells, cells)
    )
    rows, columns = (_stretch_matrix(s, cells) for s in (height, width))
    layer = image.separable(grid[..., None], rows, columns)
    total += layer / 2**octave
  return total / 1.75


def _stretch_matrix(size, cells):
  """Return f32[size, cells] that interpolates a row of cells linearly."""
  source = np.linspace(0, cells - 1, size)
  weights = 1 - np.abs(source[:, None] - np.arange(cells))
  return np.maximum(0.0, weights).astype(np.float32)


_ALL = (
  *(brightness, saturation, shot_noise, defocus, tint),
  *(fog, motion_blur, impulse_noise, zoom_blur),
)
CORRUPTIONS = {function.__name__: function for function in _ALL}
