"""Augments training images by pure functions of a key and images.

`rot90_classes` turns one class into four (Omniglot): it rotates all images of a
class by the same multiple of 90 degrees throughout an episode. `augment_images`
is HyperTransformer's photometric augmentation. 'scans' is in `scans.py`, and
'episode' in `episode_augment.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.core import BadInput
from hyperudl.core.config import DataConfig
from hyperudl.data.episodes import episode_augment
from hyperudl.data.episodes import scans

_TINY = 1e-12  # keeps the hue of gray pixels finite


def apply(
  config: DataConfig,
  class_key: jax.Array,
  image_key: jax.Array,
  pixels: jax.Array,
  classes: jax.Array,
) -> jax.Array:
  """Augment uint8 pixels as `data.augment` specifies.

  Args:
    config: section `data` of the config; static.
    class_key: key[], the same for support and queries of an episode.
    image_key: key[], for what is drawn per call or image.
    pixels: uint8[n, H, W, C], or features f32[n, D], which stay as they are.
    classes: i32[n], e.g. labels of the episode.

  Returns:
    f32[n, H, W, C] in [0, 1], or f32[n, D].
  """
  if pixels.ndim == 2:
    return pixels
  if config.augment in ('auto', 'rot90', 'scans'):
    pixels = rot90_classes(class_key, pixels, classes)
  images = pixels.astype(jnp.float32) / 255
  if config.augment.startswith('episode'):
    images = episode_augment.augment(
      class_key, image_key, images, classes, config.episode_augment
    )
  if 'images' in config.augment:
    images = augment_images(image_key, images, config.augment_individually)
  if config.augment == 'scans':
    images = scans.scan_half(class_key, image_key, images)
  return images


def rot90_classes(
  key: jax.Array, images: jax.Array, classes: jax.Array
) -> jax.Array:
  """Rotate each class by its own random multiple of 90 degrees.

  The rotation depends only on the key and the class, so that the support and
  the queries of an episode can be rotated in separate calls.

  Args:
    key: key[].
    images: [n, H, H, C] of any type.
    classes: i32[n], e.g. labels of the episode.

  Returns:
    [n, H, H, C] of the same type.

  Raises:
    core.BadInput: the images are not square.
  """
  height, width = images.shape[1:3]
  if height != width:
    raise BadInput(
      f"augment 'rot90' needs square images, got {height}x{width}: choose "
      "data.augment 'none' or 'images', or set data.image_size"
    )
  turn = lambda c: jax.random.bits(jax.random.fold_in(key, c)) % 4
  turns = jax.vmap(turn)(classes)
  pixel = np.arange(height * width).reshape(height, width)
  tables = jnp.array([np.rot90(pixel, k).reshape(-1) for k in range(4)])
  flat = jnp.reshape(images, (-1, height * width, images.shape[-1]))
  # A gather is twice as fast on a CPU as choosing among rotated images.
  rotated = jax.vmap(lambda image, turn: image[tables[turn]])(flat, turns)
  return rotated.reshape(images.shape)


def augment_images(
  key: jax.Array, images: jax.Array, individually: bool = False
) -> jax.Array:
  """Flip, recolour and crop images as HyperTransformer does.

  Left-right flip (with probability 1/2) and crop are drawn per image; hue,
  brightness and contrast once per call. The result is clipped to [0, 1].

  Args:
    key: key[].
    images: f32[n, H, W, C] in [0, 1]; hue changes only if C = 3.
    individually: whether hue, brightness and contrast are drawn per image.

  Returns:
    f32[n, H, W, C] in [0, 1].
  """
  keys = jax.random.split(key, 5)
  shape = (images.shape[0], 1, 1, 1) if individually else ()
  between = lambda key, low, high: jax.random.uniform(
    key, shape, minval=low, maxval=high
  )
  images = flip(keys[0], images)
  if images.shape[-1] == 3:
    turn = between(keys[1], -0.2, 0.2)
    images = shift_hue(images, turn[..., 0] if individually else turn)
  images = jnp.clip(images + between(keys[2], -0.3, 0.3), 0, 1)
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  contrast = between(keys[3], 0.8, 1.2)
  images = jnp.clip(mean + contrast * (images - mean), 0, 1)
  return crop(keys[4], images)


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Mirror each image of [n, H, W, C] left-right with probability 1/2."""
  mirror = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
  return jnp.where(mirror, images[:, :, ::-1], images)


def shift_hue(images: jax.Array, turn: jax.Array) -> jax.Array:
  """Add `turn` to the hue of images.

  Args:
    images: f32[n, H, W, 3].
    turn: f32[] or, for each image, f32[n, 1, 1]; 1 is the full circle.

  Returns:
    f32[n, H, W, 3].
  """
  # Plane by plane, since XLA on a CPU does not vectorise a short last axis.
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
    weight = jnp.clip(jnp.minimum(position, 4 - position), 0, 1)
    return value - chroma * weight

  return jnp.stack([plane(5), plane(3), plane(1)], axis=-1)


def crop(key: jax.Array, images: jax.Array) -> jax.Array:
  """Cut a random window of .6 to 1 of the side from each image and resize it.

  Args:
    key: key[].
    images: f32[n, H, W, C].

  Returns:
    f32[n, H, W, C].
  """
  draws = jax.random.uniform(key, (3, images.shape[0]))

  def cut(image, draw, top, left):
    side = 0.6 + 0.4 * draw
    return _window(_window(image, side, top, 0), side, left, 1)

  return jax.vmap(cut)(images, *draws)


def _window(image, side, place, axis):
  """Stretch a window along one axis of f32[H, W, C] to the whole axis.

  The window is the fraction `side` of the axis; `place` in [0, 1] moves it from
  the first to the last position. Interpolates linearly, repeating borders.
  """
  size = image.shape[axis]
  source = place * (1 - side) * size + side * (jnp.arange(size) + 0.5) - 0.5
  source = jnp.clip(source, 0, size - 1)
  low = jnp.floor(source).astype(jnp.int32)
  weight = jnp.expand_dims(source - low, [i for i in range(3) if i != axis])
  take = lambda index: jnp.take(image, index, axis, mode='clip')
  return take(low) * (1 - weight) + take(low + 1) * weight
