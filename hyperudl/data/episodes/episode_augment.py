"""HyperTransformer's augmentation of whole episodes, support and queries alike.

One draw for each episode, or with `per_label` for each class of it: the class
then becomes another one. Each transform comes with its own probability, in the
order of `Rates`, and strengths are the reference's (AugmentationConfig of its
datasets.py): rotation by up to +-angle degrees, rolling by up to .3 of the side
in both directions, shrinking to .7 to 1 of the side with zeros around, contrast
m + tanh(a (x - m)) / a of pixels x in [-1, 1] about the mean m of each image
and channel with a from .5 to 2.5, a 3x3 mean with zeros around, 1 - x. Contrast
and the 3x3 mean are followed by stretching each image and channel to [0, 1].
Published scripts leave all probabilities at zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.ops import image as resampling


class Rates(NamedTuple):
  """`data.episode_augment`: probabilities, the angle, and the two switches."""

  rot90: bool
  rotate: float
  angle: float
  roll: float
  resize: float
  contrast: float
  smooth: float
  negate: float
  per_label: bool


PROBABILITIES = ('rotate', 'roll', 'resize', 'contrast', 'smooth', 'negate')


def check(rates):
  """Raises core.BadInput for a probability outside of [0, 1]."""
  for name in PROBABILITIES:
    value = getattr(rates, name)
    if not 0 <= value <= 1:
      raise core.BadInput(
        f'data.episode_augment.{name}={value}: it is a probability, in [0, 1]'
      )


def acting(rates):
  """Names of what `rates` asks for; [] where images stay as they are."""
  return [name for name in (*PROBABILITIES, 'rot90') if getattr(rates, name)]


def transform(key, images, classes, rates):
  """Transforms the images of one episode.

  What happens depends on the key and, with `per_label`, on the class, so that
  support and queries can be transformed in separate calls.

  Args:
    key: key[].
    images: f32[n, H, W, C] in [0, 1]; square for rot90.
    classes: i32[n], e.g. positions of the classes in the episode.
    rates: `Rates`, static.

  Returns:
    f32[n, H, W, C] in [0, 1].
  """
  if not rates.per_label:
    return _transform(key, images, rates)
  one = lambda image, c: _transform(
    jax.random.fold_in(key, c), image[None], rates
  )[0]
  return jax.vmap(one)(images, classes)


def _transform(key, images, rates):
  keys = iter(jax.random.split(key, 2 * len(PROBABILITIES) + 1))
  turns = jax.random.bits(next(keys)) % 4
  if rates.rot90:
    turned = [jnp.rot90(images, k, (1, 2)) for k in range(4)]
    images = jnp.select([turns == k for k in range(4)], turned)
  for name in PROBABILITIES:
    chosen, strength = next(keys), next(keys)
    rate = getattr(rates, name)
    if rate:
      changed = _CHANGES[name](images, strength, rates)
      apply = jax.random.uniform(chosen) < rate
      images = jnp.where(apply, changed, images)
  return jnp.clip(images, 0.0, 1.0)


def _rotate(images, key, rates):
  angle = jax.random.uniform(key, minval=-rates.angle, maxval=rates.angle)
  return resampling.rotate(images, jnp.deg2rad(angle))


def _roll(images, key, rates):
  del rates
  share = jax.random.uniform(key, (2,), minval=-0.3, maxval=0.3)
  by = jnp.trunc(share * jnp.array(images.shape[1:3])).astype(jnp.int32)
  return jnp.roll(jnp.roll(images, by[0], axis=1), by[1], axis=2)


def _resize(images, key, rates):
  del rates
  factor = 1 / jax.random.uniform(key, minval=0.7, maxval=1.0)
  return resampling.scale(images, factor, factor)


def _contrast(images, key, rates):
  del rates
  alpha = jax.random.uniform(key, minval=0.5, maxval=2.5)
  pixels = 2 * images - 1
  mean = jnp.mean(pixels, axis=(1, 2), keepdims=True)
  return _stretched(mean + jnp.tanh(alpha * (pixels - mean)) / alpha)


def _smooth(images, key, rates):
  del key, rates
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  height, width = images.shape[1:3]
  windows = [
    padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
  ]
  return _stretched(sum(windows) / 9)


def _stretched(images):
  """Each image and channel brought to [0, 1]; a constant one becomes 0."""
  low = jnp.min(images, axis=(1, 2), keepdims=True)
  high = jnp.max(images, axis=(1, 2), keepdims=True)
  return (images - low) / (high - low + 1e-7)


def _negate(images, key, rates):
  del key, rates
  return 1 - images


_CHANGES = {
  'rotate': _rotate,
  'roll': _roll,
  'resize': _resize,
  'contrast': _contrast,
  'smooth': _smooth,
  'negate': _negate,
}
