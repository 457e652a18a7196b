"""Checks images, features and class names from files, and converts them.

NumPy would silently cast NaN to 0 and 300 to 44, so every value that is not
already uint8 is checked, in pieces, and the error names the first bad one.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import sys

import numpy as np

from hyperudl.core import BadInput
from hyperudl.storage import filesystem

PIECE = 1 << 24  # elements checked at a time
_MAX_CHANNELS = 16  # a longer last axis is taken for a wrong layout


@contextlib.contextmanager
def reading(where: str, fault: str, remedy: str) -> Iterator[None]:
  """Convert any exception that a damaged file causes into `BadInput`.

  Readers of zip files, pickles and images raise a dozen types of exceptions.

  Args:
    where: name of the file in the message.
    fault: what is wrong with it.
    remedy: what the user should do.

  Raises:
    BadInput: with these three texts and the reason.
  """
  try:
    yield
  except BadInput:
    raise
  except Exception as error:
    raise BadInput(
      f'{where}: {fault} ({filesystem.reason(error)}); {remedy}'
    ) from None


def to_pixels(
  images: np.ndarray, rank: int, where: str, layout: str
) -> np.ndarray:
  """Check images and convert them to uint8.

  Args:
    images: uint8, bool (0 or 1 becomes 0 or 255), integers in 0..255 or
      floats in [0, 1]; of `rank` axes, or one less without channels.
    rank: number of axes, the last of them channels.
    where: name of the file and array in error messages.
    layout: the expected axes, for error messages.

  Returns:
    uint8 of `rank` axes; a uint8 memmap is passed on unread.

  Raises:
    BadInput: wrong number of axes, channels first, no images, or an element
      that is no pixel value (the message names the first).
  """
  shape = _shape_with_channels(images, rank, where, layout)
  return _convert(images, where).reshape(shape)


def to_features(
  values: np.ndarray, rank: int, where: str, layout: str
) -> np.ndarray:
  """Check features and convert them to float32.

  Args:
    values: floats of any width; of `rank` axes, the last of them features.
    rank: number of axes.
    where: name of the file and array in error messages.
    layout: the expected axes, for error messages.

  Returns:
    f32 of `rank` axes; a float32 memmap is read but not copied.

  Raises:
    BadInput: another type or number of axes, no features, or an element that
      is not finite in float32 (the message names the first).
  """
  shape = values.shape
  if values.ndim != rank:
    raise BadInput(
      f'{where}: wrong rank {values.ndim}, shape {shape}; expected {layout}'
    )
  if values.dtype.kind != 'f':
    raise BadInput(
      f'{where}: {values.dtype} values; expected floats: save '
      'features.astype(numpy.float32), or pixels as an array named images'
    )
  if values.size == 0:
    raise BadInput(f'{where}: empty, shape {shape}')
  keep = values.dtype == np.float32
  features = values if keep else np.empty(shape, np.float32)
  step = max(1, PIECE * len(values) // values.size)
  for start in range(0, len(values), step):
    rows = slice(start, start + step)
    with np.errstate(over='ignore'):
      piece = np.asarray(values[rows], np.float32)
    index, _ = _first(~np.isfinite(piece), piece, start)
    if index:
      raise BadInput(
        f'{where}: element {index} is {values[tuple(index)]}; features must '
        'be finite in float32: repair or leave out that row'
      )
    if not keep:
      features[rows] = piece
  return features


def _convert(images, where):
  if images.size == 0:
    raise BadInput(f'{where}: empty, shape {images.shape}')
  kind = images.dtype.kind
  if kind not in 'biuf':
    raise BadInput(
      f'{where}: {images.dtype} values are not pixels; expected uint8'
    )
  if isinstance(images, np.memmap) and images.dtype == np.uint8:
    return images
  pixels = images
  if images.dtype != np.uint8:
    pixels = np.empty(images.shape, np.uint8)
    step = max(1, PIECE * len(images) // images.size)
    for start in range(0, len(images), step):
      piece = np.asarray(images[start : start + step])
      pixels[start : start + step] = _CONVERTERS[kind](piece, start, where)
  if kind in 'iu' and pixels.max() == 1:
    raise BadInput(
      f'{where}: {images.dtype} with only 0 and 1, so ink would be 1/255; '
      'save it as bool, or times 255'
    )
  return pixels


def _from_floats(piece, start, where):
  # Tolerate rounding errors on both sides.
  legal = (piece >= -1e-6) & (piece <= 1 + 1e-6)
  index, value = _first(~legal, piece, start)
  if index and not np.isfinite(value):
    raise BadInput(
      f'{where}: element {index} is {value}; pixels must be finite: repair '
      'that image'
    )
  if index:
    remedy = 'as uint8 if they are 0..255' if value > 0 else 'scaled to [0, 1]'
    raise BadInput(
      f'{where}: element {index} is {value}, outside [0, 1], where float '
      f'pixels must be; save them {remedy}'
    )
  return np.rint(np.clip(piece, 0, 1) * 255)


def _from_integers(piece, start, where):
  index, value = _first((piece < 0) | (piece > 255), piece, start)
  if index:
    raise BadInput(
      f'{where}: element {index} is {value}; integer pixels must be in 0..255'
    )
  return piece


_CONVERTERS = {
  'b': lambda piece, start, where: piece * np.uint8(255),
  'f': _from_floats,
  'i': _from_integers,
  'u': _from_integers,
}


def _first(bad, piece, start):
  """Return (index, value) of the first bad element, or ([], None)."""
  if not bad.any():
    return [], None
  place = np.unravel_index(int(np.argmax(bad)), bad.shape)
  index = [int(axis) for axis in place]
  return [index[0] + start, *index[1:]], piece[place].item()


def _shape_with_channels(images, rank, where, layout):
  shape = images.shape
  if images.ndim == rank - 1 and shape[-1] in (1, 3):
    # Images are wider than 3 pixels, so these are channels: an axis is missing.
    raise BadInput(
      f'{where}: shape {shape} ends with channels but has only {rank - 1} '
      f'axes; expected {layout}'
    )
  if images.ndim == rank - 1:
    return (*shape, 1)
  if images.ndim != rank:
    raise BadInput(
      f'{where}: wrong rank {images.ndim}, shape {shape}; expected {layout}'
    )
  if shape[-3] in (1, 3) and shape[-1] not in (1, 3):
    raise BadInput(
      f'{where}: shape {shape} is channels first; expected {layout}: save '
      'numpy.moveaxis(images, -3, -1), or rename a .npy file to '
      'NAME_ch_first.npy'
    )
  if shape[-1] > _MAX_CHANNELS:
    raise BadInput(
      f'{where}: shape {shape} has {shape[-1]} channels; expected {layout}'
    )
  return shape


def require_contrast(blocks: Iterable[np.ndarray], where: str) -> None:
  """Refuse images, or features, of which all elements have one value.

  Args:
    blocks: uint8[n, H, W, C] or f32[n, D]; read up to the first difference.
    where: name of the set in the message.

  Raises:
    BadInput: there is nothing to learn from them.
  """
  values: set[float] = set()
  for block in blocks:
    for image in block:
      values |= {image.min().item(), image.max().item()}
      if len(values) > 1:
        return
  raise BadInput(
    f'{where}: all pixels of all images are {values.pop()}, so there is '
    'nothing to learn; look at the files (for instance at their transparency)'
  )


def to_strings(values: np.ndarray, where: str) -> tuple[str, ...]:
  """Return the strings of a one-dimensional array of names.

  Args:
    values: str or bytes (UTF-8) array.
    where: name of the file and array in error messages.

  Raises:
    BadInput: wrong rank or type, or an empty name.
  """
  if values.dtype.kind not in 'US' or values.ndim != 1:
    raise BadInput(
      f'{where}: {values.dtype} of shape {values.shape}; expected one string '
      'per class'
    )
  if values.dtype.kind == 'U' and values.size:
    codes = np.ascontiguousarray(values).view(
      np.dtype('u4').newbyteorder(values.dtype.byteorder)
    )
    if codes.max() > sys.maxunicode:
      raise BadInput(f'{where}: a character that Unicode does not have')
  names = []
  for index, value in enumerate(values.tolist()):
    try:
      names.append(value if isinstance(value, str) else value.decode())
    except UnicodeDecodeError:
      raise BadInput(f'{where}: element {index} is not UTF-8') from None
    if not names[-1]:
      raise BadInput(f'{where}: element {index} is an empty string')
  return tuple(names)
