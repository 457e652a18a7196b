"""Makes clean characters look like scans of worn, printed or carved originals.

Each function takes a key and images f32[n, H, W, C] in [0, 1], ink bright, and
returns f32[n, H, W, C]; every image gets its own strength. `scan` composes them
for each image anew:
  stroke_width     thicker or thinner strokes (3x3 maximum or minimum)
  frame            enlarged by U(1, 1.35), then the width or the height shrunk
                   to U(.4, 1), with empty bars
  background       ink U(.5, 1) over a background U(0, .4) with soft clouds
  blotches         bright patches over up to a tenth of the image
  occlude          one bright or dark rectangle at a random place
  grain            noise of up to .2, half of it smoothed
Bars stay black, as where narrow pictures are padded to a square.
"""

import jax
import jax.numpy as jnp

from hyperudl.data.episodes import corruptions
from hyperudl.ops import image as image_ops


def _uniform(key, n, low, high):
  return jax.random.uniform(key, (n, 1, 1, 1), minval=low, maxval=high)


def _chance(key, n, probability):
  return jax.random.bernoulli(key, probability, (n, 1, 1, 1))


def stroke_width(key: jax.Array, images: jax.Array) -> jax.Array:
  """Blend with the 3x3 maximum (.5), the minimum (.2) or neither (.3)."""
  n = images.shape[0]
  choice_key, weight_key = jax.random.split(key)
  choice = _uniform(choice_key, n, 0.0, 1.0)
  thick, thin = _extreme(images, jnp.maximum), _extreme(images, jnp.minimum)
  weight = _uniform(weight_key, n, 0.0, 1.0)
  other = jnp.where(choice < 0.5, thick, jnp.where(choice < 0.7, thin, images))
  # Thinner strokes would vanish if the minimum had all the weight.
  weight = jnp.where(choice < 0.5, weight, 0.6 * weight)
  return images + weight * (other - images)


def _extreme(images, function):
  """Return the largest or smallest of 3x3 pixels; edges are repeated."""
  pad = ((0, 0), (1, 1), (1, 1), (0, 0))
  padded = jnp.pad(images, pad, mode='edge')
  height, width = images.shape[1:3]
  result = images
  for i in range(3):
    for j in range(3):
      part = padded[:, i : i + height, j : j + width]
      result = function(result, part)
  return result


def frame(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Enlarge by U(1, 1.35); shrink the width (.7) or height (.1) to U(.4, 1).

  Returns:
    (f32[n, H, W, C], f32[n, H, W, 1]: 1 inside the shrunken frame).
  """
  n, height, width, _ = images.shape
  keys = jax.random.split(key, 3)
  choice = jax.random.uniform(keys[0], (n,))
  factor = jax.random.uniform(keys[1], (n,), minval=0.4, maxval=1.0)
  larger = jax.random.uniform(keys[2], (n,), minval=1.0, maxval=1.35)
  columns = jnp.where(choice < 0.7, factor, 1.0)
  rows = jnp.where(choice >= 0.9, factor, 1.0)
  is_inside = lambda size, part: (
    jnp.abs((jnp.arange(size) + 0.5) / size - 0.5) * 2 <= part[:, None]
  )
  inside = (
    is_inside(height, rows)[:, :, None, None]
    & is_inside(width, columns)[:, None, :, None]
  )
  resize = lambda x, r, c: image_ops.scale(x[None], 1 / r, 1 / c)[0]
  resized = jax.vmap(resize)(images, larger * rows, larger * columns)
  return resized * inside, inside.astype(jnp.float32)


def background(key: jax.Array, images: jax.Array) -> jax.Array:
  """Set ink to U(.5, 1) and the rest to U(0, .4) with soft clouds."""
  n = images.shape[0]
  keys = jax.random.split(key, 4)
  ink = _uniform(keys[0], n, 0.5, 1.0)
  clouds = corruptions.clouds(keys[1], images.shape[:3])
  level = _uniform(keys[2], n, 0.0, 0.4)
  level = level + _uniform(keys[3], n, 0.0, 0.3) * (clouds - 0.5)
  level = jnp.clip(level, 0.0, 1.0)
  return level + images * jnp.maximum(ink - level, 0.15)


def blotches(key: jax.Array, images: jax.Array) -> jax.Array:
  """Add bright patches, in half of the images over up to a tenth of each."""
  n = images.shape[0]
  keys = jax.random.split(key, 4)
  # Smoothed noise above a quantile makes patches of a few pixels.
  noise = image_ops.blur(image_ops.uniform(keys[0], (*images.shape[:3], 1)))
  share = _uniform(keys[1], n, 0.0, 0.1) * _chance(keys[2], n, 0.5)
  flat = noise.reshape(n, -1)
  mean = flat.mean(axis=1)[:, None, None, None]
  deviation = flat.std(axis=1)[:, None, None, None]
  # Blurred noise is close to normal.
  threshold = mean + deviation * jax.scipy.stats.norm.ppf(1 - share)
  patches = jax.nn.sigmoid((noise - threshold) / (0.15 * deviation + 1e-6))
  return images + patches * (_uniform(keys[3], n, 0.6, 1.0) - images)


def occlude(key: jax.Array, images: jax.Array) -> jax.Array:
  """Cover a random rectangle, in a quarter of the images, with one value."""
  n, height, width, _ = images.shape
  keys = jax.random.split(key, 4)
  centre = jax.random.uniform(keys[0], (2, n, 1, 1, 1))
  size = jax.random.uniform(keys[1], (2, n, 1, 1, 1), minval=0.1, maxval=0.45)
  rows = ((jnp.arange(height) + 0.5) / height)[None, :, None, None]
  columns = ((jnp.arange(width) + 0.5) / width)[None, None, :, None]
  inside = (jnp.abs(rows - centre[0]) * 2 < size[0]) & (
    jnp.abs(columns - centre[1]) * 2 < size[1]
  )
  inside &= _chance(keys[2], n, 0.25)
  value = jnp.where(_chance(keys[3], n, 0.5), 0.95, 0.05)
  return jnp.where(inside, value, images)


def grain(key: jax.Array, images: jax.Array) -> jax.Array:
  """Add noise of a standard deviation of U(0, .2), half of it smoothed."""
  size_key, noise_key = jax.random.split(key)
  noise = image_ops.normal(noise_key, (*images.shape[:3], 1))
  smooth = image_ops.blur(noise)
  smooth = smooth / (smooth.std() + 1e-6)
  size = _uniform(size_key, images.shape[0], 0.0, 0.2)
  return images + size * (noise + smooth) * jnp.sqrt(0.5)


def scan(key: jax.Array, images: jax.Array) -> jax.Array:
  """Compose all of the above; values are in [0, 1]."""
  keys = jax.random.split(key, 6)
  images = stroke_width(keys[0], images)
  images, inside = frame(keys[1], images)
  for function, k in zip((background, blotches, occlude, grain), keys[2:]):
    images = function(k, images)
  return jnp.clip(images, 0.0, 1.0) * inside


def scan_half(
  episode_key: jax.Array, image_key: jax.Array, images: jax.Array
) -> jax.Array:
  """Apply `scan` in half of the episodes, which `episode_key` chooses."""
  is_scanned = jax.random.bernoulli(jax.random.fold_in(episode_key, 102))
  keep = lambda key, images: images
  return jax.lax.cond(is_scanned, scan, keep, image_key, images)
