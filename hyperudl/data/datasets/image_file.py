"""Reads one image file as pixels, upright and without transparency."""

from collections.abc import Iterator
import contextlib
import functools
import importlib.util
import io
import os
import stat
from typing import Literal
import warnings

import numpy as np
from PIL import Image
from PIL import ImageStat
from PIL import features

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.storage import filesystem

# Plug-ins of Pillow that may open a file, whatever its name ends with. Others
# start programs (EPS) or are hardly ever used.
_FORMATS = (
  *('PNG', 'JPEG', 'MPO', 'BMP', 'DIB', 'GIF', 'WEBP', 'TIFF', 'PPM'),
  *('JPEG2000', 'AVIF', 'HEIF'),
)
_ENDINGS = (
  *('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.gif', '.webp'),
  *('.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm'),
)
HEIF_ENDINGS = ('.heic', '.heif')
# EXIF's tag of the orientation, and how a viewer turns what it names.
_ORIENTATION = 0x112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# TIFF's tags of the bits of a gray level, and of whether 0 is black (1).
_BITS, _PHOTOMETRIC = 0x102, 0x106
# How an image gets another aspect ratio: a border in the median colour of its
# own, its middle part, or another scale of one side.
Fit = Literal['pad', 'crop', 'squash']
# A black ground replaces the white one where it has so many times its contrast.
_CONTRAST_RATIO = 8


@functools.cache
def endings() -> tuple[str, ...]:
  """Return the endings of the files that can be read here, in lower case.

  JPEG 2000 and AVIF need a Pillow built with them, HEIC the package
  `pillow-heif`.
  """
  found = list(_ENDINGS)
  if features.check('jpg_2000'):
    found += ['.jp2', '.j2k', '.jpx']
  if features.check('avif'):
    found += ['.avif']
  if importlib.util.find_spec('pillow_heif'):
    found += HEIF_ENDINGS
  return tuple(found)


@functools.cache
def _formats():
  """Return the names of the plug-ins that this Pillow has."""
  Image.init()
  if importlib.util.find_spec('pillow_heif'):
    import pillow_heif

    pillow_heif.register_heif_opener()
  return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
  """Hide Pillow's warnings about odd EXIF data and large images.

  Whoever reads in several threads does so inside of this: in each thread of its
  own it would leave the filters of the others.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


def clear_caches() -> None:
  """Look again for the formats that Pillow and its plug-ins can read."""
  endings.cache_clear()
  _formats.cache_clear()


def read(
  path: str,
  *,
  gray: bool | None = None,
  size: int | tuple[int, int] | None = None,
  fit: Fit = 'squash',
) -> np.ndarray:
  """Read an image file; see `decode`.

  Raises:
    BadInput: it may not be read, is not an image, or is damaged.
  """
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise BadInput(f'{path}: not a regular file; remove it')
    with open(path, 'rb') as stream:
      data = stream.read()
  except FileNotFoundError:
    raise BadInput(f'{path}: there is no such file; check its name') from None
  except OSError as error:
    raise BadInput(
      f'{path}: cannot be read ({filesystem.reason(error)}); change its '
      'permissions, or replace or remove it'
    ) from None
  return decode(data, path, gray=gray, size=size, fit=fit)


def decode(
  data: bytes,
  where: str,
  *,
  gray: bool | None = None,
  size: int | tuple[int, int] | None = None,
  invert: bool = False,
  fit: Fit = 'squash',
) -> np.ndarray:
  """Decode one image file, turned as its EXIF data say.

  Args:
    data: bytes of the file; of an animation the first frame is taken.
    where: name of the file in error messages.
    gray: whether to return one channel instead of three; None for one if the
      image is gray.
    size: pixels per side, or (height, width), to resize to by an antialiasing
      (Lanczos) filter. 0 or None keeps the size.
    invert: swap black and white.
    fit: what is done if the aspect ratio is another one.

  Returns:
    uint8[H, W, 1 or 3]; transparent pixels become white, or black if what is
    drawn on them could hardly be seen on white. Gray images of up to 16 bits
    are scaled by the range of their bits: 65535 of 16 bits becomes 255.

  Raises:
    BadInput: not an image, a damaged one, or numbers that are no pixels.
  """
  with checks.reading(where, 'a damaged image', 'replace or remove it'):
    image = _open(data, where)
    pixels = to_pixels(image, where, gray=gray, size=size, fit=fit)
  return 255 - pixels if invert else pixels


def to_pixels(
  image: Image.Image,
  where: str,
  *,
  gray: bool | None = None,
  size: int | tuple[int, int] | None = None,
  fit: Fit = 'squash',
) -> np.ndarray:
  """Return the pixels uint8[H, W, 1 or 3] of an image; see `decode`.

  Raises:
    BadInput: it has floats, or integers of more than 16 bits.
  """
  levels = _levels(image, where)
  if gray is None:
    gray = bool(levels) or image.mode in ('1', 'L', 'LA', 'La')
  image = _upright(image)
  if levels:
    image = _of_eight_bits(image, *levels)
  if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or (
    'transparency' in image.info
  ):
    image = _on_ground(image.convert('RGBA'))
  image = image.convert('L' if gray else 'RGB')
  if size:
    height, width = (size, size) if isinstance(size, int) else size
    image = _fitted(image, width, height, fit)
  return np.asarray(image).reshape(image.height, image.width, -1)


def border(pixels: np.ndarray) -> np.ndarray:
  """Return the outermost pixels [n, C] of an image [H, W, C]."""
  sides = pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]
  return np.concatenate(sides)


def _fitted(image, width, height, fit):
  """Return an image of `width` x `height` pixels."""
  if image.size == (width, height):
    return image
  scales = width / image.width, height / image.height
  scale = max(scales) if fit == 'crop' else min(scales)
  if fit == 'squash' or scales[0] == scales[1]:
    return image.resize((width, height), Image.Resampling.LANCZOS)
  if fit == 'crop':
    size = width / scale, height / scale
    left, top = (image.width - size[0]) / 2, (image.height - size[1]) / 2
    box = left, top, left + size[0], top + size[1]
    return image.resize((width, height), Image.Resampling.LANCZOS, box)
  pixels = np.asarray(image).reshape(image.height, image.width, -1)
  ground = np.median(border(pixels), axis=0).astype(int).tolist()
  padded = Image.new(
    image.mode, (width, height), ground[0] if len(ground) == 1 else (*ground,)
  )
  size = [max(1, round(side * scale)) for side in image.size]
  image = image.resize(size, Image.Resampling.LANCZOS)
  padded.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
  return padded


def _open(data, where):
  """Return the image with its pixels loaded."""
  try:
    image = Image.open(io.BytesIO(data), formats=_formats())
  except Image.UnidentifiedImageError:
    raise BadInput(
      f'{where}: not an image file; replace or remove it'
    ) from None
  except Image.DecompressionBombError:
    raise BadInput(
      f'{where}: an image of more than {2 * Image.MAX_IMAGE_PIXELS} pixels; '
      'make it smaller or remove it'
    ) from None
  image.load()
  return image


def _levels(image, where):
  """Return (black, white) of an image of more than 8 bits, () of others."""
  if image.mode.startswith('I;16'):
    tags = getattr(image, 'tag_v2', {})
    levels = 0, 2 ** tags.get(_BITS, (16,))[0] - 1
    # Pillow inverts such files if they have 8 bits, but not these.
    return levels if tags.get(_PHOTOMETRIC, 1) else levels[::-1]
  if image.mode == 'I' and image.format == 'PPM':
    return 0, 65535  # to which Pillow scales such files
  if image.mode.startswith(('I', 'F')):
    raise BadInput(
      f'{where}: pixels of mode {image.mode}, whose range is not known; '
      'convert them to gray levels of 8 or 16 bits without sign'
    )
  return ()


def _of_eight_bits(image, black, white):
  """Return a gray image of 8 bits, with its transparency."""
  wide = np.asarray(image).astype(np.float64)
  scaled = np.rint((wide - black) / (white - black) * 255)
  gray = Image.fromarray(scaled.astype(np.uint8))
  clear = image.info.get('transparency')
  if clear is not None:
    opaque = np.where(wide == clear, 0, 255).astype(np.uint8)
    gray = Image.merge('LA', (gray, Image.fromarray(opaque)))
  return gray


def _upright(image):
  """Turn an image as its EXIF data say; unreadable ones say nothing."""
  try:
    orientation = image.getexif().get(_ORIENTATION, 1)
  except Exception:  # a viewer shows such an image as it is, too
    orientation = 1
  turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
  if turn is None:
    return image
  turned = image.transpose(turn)
  turned.info = image.info  # with its transparency
  return turned


def _on_ground(image):
  """Return an RGBA image on white or, if it is hard to see there, on black."""
  on_white = _composite(image, 'white')
  contrast = _contrast(on_white)
  if contrast * _CONTRAST_RATIO > 128:  # more than any image has
    return on_white
  on_black = _composite(image, 'black')
  more = _contrast(on_black) > _CONTRAST_RATIO * contrast
  return on_black if more else on_white


def _composite(image, colour):
  ground = Image.new('RGBA', image.size, colour)
  return Image.alpha_composite(ground, image).convert('RGB')


def _contrast(image):
  """Return the largest standard deviation of the colours of an image."""
  return max(ImageStat.Stat(image).stddev)
