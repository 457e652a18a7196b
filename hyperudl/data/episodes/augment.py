"""Augmentation of training images: pure functions of (key, images).

`rot90_classes` makes four classes of one (Omniglot): a whole class is turned
by the same multiple of 90 degrees throughout an episode. `augment_images` is
the photometric set of HyperTransformer for natural images. Neither is used in
evaluation unless `data.augment_tests` says so. `noise_images` is the placebo
for unlabelled data.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.ops import image as resampling

_TINY = 1e-12  # keeps the hue of grey pixels finite


def rot90_classes(key, images, classes):
  """Turns each class by its own random multiple of 90 degrees.

  The turn depends on the key and the class alone, so that the support and the
  queries of an episode can be turned in separate calls.

  Args:
    key: key[].
    images: [n, H, H, C] of any type.
    classes: i32[n], e.g. positions of the classes in the episode.

  Raises:
    core.BadInput: the images are not square.
  """
  height, width = images.shape[1:3]
  if height != width:
    raise core.BadInput(
      f"augment 'rot90' needs square images, got {height}x{width}: choose "
      "data.augment 'none' or 'images', or set data.image_size"
    )
  turn = lambda c: jax.random.bits(jax.random.fold_in(key, c)) % 4
  turns = jax.vmap(turn)(classes)
  pixel = np.arange(height * width).reshape(height, width)
  tables = jnp.array([np.rot90(pixel, k).reshape(-1) for k in range(4)])
  flat = jnp.reshape(images, (-1, height * width, images.shape[-1]))
  # A gather: twice as fast as choosing among turned images on CPU.
  turned = jax.vmap(lambda image, turn: image[tables[turn]])(flat, turns)
  return turned.reshape(images.shape)


def augment_images(key, images, individually=False):
  """Flips, recolours and crops images as HyperTransformer does.

  Left-right flip with probability 1/2 and crop per image; hue, brightness and
  contrast are drawn once per call. The result is clipped to [0, 1].

  Args:
    key: key[].
    images: f32[n, H, W, C] in [0, 1]; the hue of other than 3 channels stays.
    individually: whether hue, brightness and contrast are drawn per image.
  """
  keys = jax.random.split(key, 5)
  shape = (images.shape[0], 1, 1, 1) if individually else ()
  between = lambda key, low, high: jax.random.uniform(
    key, shape, minval=low, maxval=high
  )
  images = flip(keys[0], images)
  if images.shape[-1] == 3:
    turn = between(keys[1], -0.2, 0.2)
    images = turn_hue(images, turn[..., 0] if individually else turn)
  images = jnp.clip(images + between(keys[2], -0.3, 0.3), 0, 1)
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  contrast = between(keys[3], 0.8, 1.2)
  images = jnp.clip(mean + contrast * (images - mean), 0, 1)
  return crop(keys[4], images)


def flip(key, images):
  """Mirrors each image of [n, H, W, C] left to right with probability 1/2."""
  mirror = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
  return jnp.where(mirror, images[:, :, ::-1], images)


def turn_hue(images, turn):
  """Adds `turn` (1 is the full circle) to the hue of f32[n, H, W, 3].

  `turn` is f32[] or, for each image, f32[n, 1, 1].
  """
  # Plane by plane: with a short last axis XLA on CPU does not vectorise.
  red, green, blue = (images[..., i] for i in range(3))
  value = jnp.maximum(red, jnp.maximum(green, blue))
  chroma = value - jnp.minimum(red, jnp.minimum(green, blue))
  # The position on the hexagon of hues, in sixths of the circle.
  hue = jnp.where(
    value == red,
    green - blue,
    jnp.where(value == green, blue - red, red - green),
  ) / jnp.maximum(chroma, _TINY)
  hue += jnp.where(value == red, 0, jnp.where(value == green, 2, 4))

  def plane(offset):
    position = hue + 6 * turn + offset
    position -= 6 * jnp.floor(position / 6)
    share = jnp.clip(jnp.minimum(position, 4 - position), 0, 1)
    return value - chroma * share

  return jnp.stack([plane(5), plane(3), plane(1)], axis=-1)


def crop(key, images):
  """Cuts a random window of .6 to 1 of the side from each image, resized.

  Args:
    key: key[].
    images: f32[n, H, W, C].
  """
  draws = jax.random.uniform(key, (3, images.shape[0]))

  def cut(image, draw, top, left):
    side = 0.6 + 0.4 * draw
    return _window(_window(image, side, top, 0), side, left, 1)

  return jax.vmap(cut)(images, *draws)


def noise_images(key, shape):
  """Images that show nothing: f32[shape], N(.5, .5) clipped to [0, 1]."""
  return jnp.clip(0.5 + 0.5 * resampling.normal(key, shape), 0, 1)


def _window(image, side, place, axis):
  """Stretches a window of one axis of f32[H, W, C] to its whole length.

  The window has the share `side` of the axis and lies at `place` in [0, 1]
  between the first and the last position; linear, borders repeat.
  """
  size = image.shape[axis]
  source = place * (1 - side) * size + side * (jnp.arange(size) + 0.5) - 0.5
  source = jnp.clip(source, 0, size - 1)
  low = jnp.floor(source).astype(jnp.int32)
  weight = jnp.expand_dims(source - low, [i for i in range(3) if i != axis])
  take = lambda index: jnp.take(image, index, axis, mode='clip')
  return take(low) * (1 - weight) + take(low + 1) * weight
