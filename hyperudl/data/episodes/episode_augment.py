"""Augments whole episodes, support and queries alike, by a random key.

HyperTransformer's augmentation, and noise. It is drawn once per episode or,
with `per_label`, once per class, which makes new classes. Transforms come in
the order of `PROBABILITIES`, each with its own probability (zero in the
published scripts) and, but for noise, the strengths of the reference
(AugmentationConfig of its datasets.py): rotation by up to +-angle degrees,
rolling by up to .3 of the side in both directions, shrinking to .7 to 1 of the
side with zeros around, contrast m + tanh(a (x - m)) / a of pixels x in [-1, 1]
about the mean m of each image and channel with a from .5 to 2.5, a 3x3 mean
with zeros around, 1 - x, and normal noise with a standard deviation from .1 to
.5, which differs between images. After contrast and the 3x3 mean, each image
and channel is stretched to [0, 1].
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl.core.config import EpisodeAugmentConfig
from hyperudl.ops import image as image_ops

PROBABILITIES = (
  *('rotate', 'roll', 'resize', 'contrast', 'smooth', 'negate', 'noise'),
)


def active_transforms(config: EpisodeAugmentConfig) -> list[str]:
  """Return the names of the transforms with a non-zero setting."""
  return [name for name in (*PROBABILITIES, 'rot90') if getattr(config, name)]


def augment(
  key: jax.Array,
  image_key: jax.Array,
  images: jax.Array,
  classes: jax.Array,
  config: EpisodeAugmentConfig,
) -> jax.Array:
  """Transform the images of one episode.

  The transforms depend on the key and, with `per_label`, on the class, so that
  support and queries can be transformed in separate calls.

  Args:
    key: key[], the same for support and queries.
    image_key: key[] of the noise, another one for the queries.
    images: f32[n, H, W, C] in [0, 1]; square for rot90.
    classes: i32[n], e.g. labels of the episode.
    config: probabilities and settings; static.

  Returns:
    f32[n, H, W, C] in [0, 1].
  """
  if not config.per_label:
    return _transform(key, image_key, images, config)
  one = lambda image_key, image, c: _transform(
    jax.random.fold_in(key, c), image_key, image[None], config
  )[0]
  image_keys = jax.random.split(image_key, len(images))
  return jax.vmap(one)(image_keys, images, classes)


def _transform(key, image_key, images, config):
  keys = iter(jax.random.split(key, 2 * len(PROBABILITIES) + 1))
  turns = jax.random.bits(next(keys)) % 4
  if config.rot90:
    rotated = [jnp.rot90(images, k, (1, 2)) for k in range(4)]
    images = jnp.select([turns == k for k in range(4)], rotated)
  noise = functools.partial(_noise, image_key)
  transforms = {**_TRANSFORMS, 'noise': noise}
  for name in PROBABILITIES:
    apply_key, strength_key = next(keys), next(keys)
    probability = getattr(config, name)
    if probability:
      change = functools.partial(
        transforms[name], key=strength_key, config=config
      )
      # A loop over episodes computes only what is applied.
      apply = jax.random.uniform(apply_key) < probability
      images = jax.lax.cond(apply, change, lambda images: images, images)
  return jnp.clip(images, 0.0, 1.0)


def _rotate(images, key, config):
  angle = jax.random.uniform(key, minval=-config.angle, maxval=config.angle)
  return image_ops.rotate(images, jnp.deg2rad(angle))


def _roll(images, key, config):
  del config
  fraction = jax.random.uniform(key, (2,), minval=-0.3, maxval=0.3)
  by = jnp.trunc(fraction * jnp.array(images.shape[1:3])).astype(jnp.int32)
  return jnp.roll(jnp.roll(images, by[0], axis=1), by[1], axis=2)


def _resize(images, key, config):
  del config
  factor = 1 / jax.random.uniform(key, minval=0.7, maxval=1.0)
  return image_ops.scale(images, factor, factor)


def _contrast(images, key, config):
  del config
  alpha = jax.random.uniform(key, minval=0.5, maxval=2.5)
  pixels = 2 * images - 1
  mean = jnp.mean(pixels, axis=(1, 2), keepdims=True)
  return _stretch(mean + jnp.tanh(alpha * (pixels - mean)) / alpha)


def _smooth(images, key, config):
  del key, config
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  height, width = images.shape[1:3]
  windows = [
    padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
  ]
  return _stretch(sum(windows) / 9)


def _negate(images, key, config):
  del key, config
  return 1 - images


def _noise(image_key, images, key, config):
  del config
  strength = jax.random.uniform(key, minval=0.1, maxval=0.5)
  return images + strength * image_ops.normal(image_key, images.shape)


def _stretch(images):
  """Stretch each image and channel to [0, 1]; constant ones become 0."""
  low = jnp.min(images, axis=(1, 2), keepdims=True)
  high = jnp.max(images, axis=(1, 2), keepdims=True)
  return (images - low) / (high - low + 1e-7)


_TRANSFORMS = {
  'rotate': _rotate,
  'roll': _roll,
  'resize': _resize,
  'contrast': _contrast,
  'smooth': _smooth,
  'negate': _negate,
}
