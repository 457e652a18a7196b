"""Turns pixels of any sane kind into uint8 and says what is wrong with others.

NumPy would cast NaN to 0 and 300 to 44 without a word, so every value that is
not already uint8 is looked at, in pieces, and the first bad one is named.
"""

import numpy as np

from hyperudl.core import BadInput

_PIECE = 1 << 24  # elements looked at in one go
_MOST_CHANNELS = 16  # more on the last axis are taken for a wrong layout


def to_pixels(images, rank, where, layout):
  """Checks images and converts them.

  Args:
    images: uint8, bool (0 or 1 becomes 0 or 255), integers in 0..255 or
      floats in [0, 1], of `rank` axes, the last of them channels, or one less.
    rank: int.
    where: str, the file and array as messages name them.
    layout: str, what the axes should be, for messages.

  Returns:
    uint8 of `rank` axes; a uint8 memmap is passed on unread.

  Raises:
    BadInput: another number of axes, channels first, no images, or naming the
      first element that is no pixel.
  """
  shape = _with_channels(images, rank, where, layout)
  return _convert(images, where).reshape(shape)


def _convert(images, where):
  if images.size == 0:
    raise BadInput(f'{where}: empty, shape {images.shape}')
  kind = images.dtype.kind
  if images.dtype == np.uint8:
    if not isinstance(images, np.memmap):
      _refuse_zero_one(int(images.max()), images, where)
    return images
  if kind not in 'biuf':
    raise BadInput(
      f'{where}: {images.dtype} values are not pixels; expected uint8'
    )
  pixels = np.empty(images.shape, np.uint8)
  largest = 0
  step = max(1, _PIECE * len(images) // images.size)
  for start in range(0, len(images), step):
    piece = np.asarray(images[start : start + step])
    if kind == 'b':
      converted = piece * np.uint8(255)
    elif kind == 'f':
      converted = _from_floats(piece, start, where)
    else:
      converted = _from_integers(piece, start, where)
    largest = max(largest, int(converted.max()))
    pixels[start : start + step] = converted
  if kind in 'iu':
    _refuse_zero_one(largest, images, where)
  return pixels


def _refuse_zero_one(largest, images, where):
  if largest == 1:
    raise BadInput(
      f'{where}: {images.dtype} with only 0 and 1, so ink would be 1/255; '
      'save it as bool, or times 255'
    )


def _from_floats(piece, start, where):
  bad = ~np.isfinite(piece)
  if bad.any():
    index, value = _first(bad, piece, start)
    raise BadInput(
      f'{where}: element {index} is {value}; pixels must be finite: repair '
      'that image'
    )
  # A rounding error on either side is not worth an error.
  bad = (piece < -1e-6) | (piece > 1 + 1e-6)
  if bad.any():
    index, value = _first(bad, piece, start)
    remedy = 'as uint8 if they are 0..255' if value > 0 else 'scaled to [0, 1]'
    raise BadInput(
      f'{where}: element {index} is {value}, outside [0, 1], where float '
      f'pixels must be; save them {remedy}'
    )
  return np.rint(np.clip(piece, 0, 1) * 255).astype(np.uint8)


def _from_integers(piece, start, where):
  bad = (piece < 0) | (piece > 255)
  if bad.any():
    index, value = _first(bad, piece, start)
    raise BadInput(
      f'{where}: element {index} is {value}; integer pixels must be in 0..255'
    )
  return piece.astype(np.uint8)


def _first(bad, piece, start):
  place = np.unravel_index(int(np.argmax(bad)), bad.shape)
  index = (int(place[0]) + start, *(int(axis) for axis in place[1:]))
  return list(index), piece[place].item()


def _with_channels(images, rank, where, layout):
  shape = images.shape
  if images.ndim == rank - 1 and shape[-1] in (1, 3):
    # A picture 1 or 3 pixels wide does not exist: an axis is missing.
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
  if shape[-1] > _MOST_CHANNELS:
    raise BadInput(
      f'{where}: shape {shape} has {shape[-1]} channels; expected {layout}'
    )
  return shape


def strings(values, where):
  """The tuple of str of a one-dimensional array of names.

  Args:
    values: str or bytes (UTF-8) array.
    where: str, the file and array as messages name them.

  Raises:
    BadInput: another rank or type, or an empty name.
  """
  if values.dtype.kind not in 'US' or values.ndim != 1:
    raise BadInput(
      f'{where}: {values.dtype} of shape {values.shape}; expected one string '
      'per class'
    )
  names = []
  for index, value in enumerate(values.tolist()):
    try:
      names.append(value if isinstance(value, str) else value.decode())
    except UnicodeDecodeError:
      raise BadInput(f'{where}: element {index} is not UTF-8') from None
    if not names[-1]:
      raise BadInput(f'{where}: element {index} is an empty string')
  return tuple(names)
