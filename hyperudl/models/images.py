"""Turns a user's images into the arrays that a network takes."""

from collections.abc import Iterator
import os
from typing import Any
from typing import TypeAlias

import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_inputs
from hyperudl.data.datasets.image_inputs import Inputs
from hyperudl.models import files

# An array [n, H, W], [n, H, W, C] or [n, H W C]; a list of arrays, images of
# Pillow and paths; or the path of a folder or CSV file.
Images: TypeAlias = Any
_LAYOUT = '[n, H, W] or [n, H, W, C]'


def to_list(images: Images) -> Any:
  """Return an array or a list of images, with `len` and slices."""
  if isinstance(images, str | os.PathLike):
    return files.unlabelled(images)
  if isinstance(images, Image.Image):
    raise BadInput('expected several images, not one: put it into a list')
  if isinstance(images, list | tuple):
    return images
  if hasattr(images, 'toarray'):
    raise BadInput('sparse input is not supported; give images.toarray()')
  array = np.asarray(images)
  if array.ndim < 2:
    raise BadInput(
      f'Reshape your data, of shape {array.shape}: expected {_LAYOUT}, one '
      'flat image a row, or a list'
    )
  if array.dtype.kind == 'c':
    raise BadInput('Complex data not supported; give its real part')
  return array


def to_array(images: Images, inputs: Inputs) -> np.ndarray:
  """Return images as a network takes them.

  Args:
    images: an array, a list or a path, see `Images`. Floats in [0, 1] of the
      network's own shape are taken as they are; all others are resized as
      `inputs.fit` says, and drawings of the opposite polarity are inverted.
    inputs: of the network.

  Returns:
    f32[n, H, W, C] in [0, 1].

  Raises:
    BadInput: naming the first image that is none.
  """
  images = to_list(images)
  if isinstance(images, np.ndarray):
    return _from_array(images, inputs)
  out = np.empty((len(images), *inputs.shape), np.float32)
  with image_file.without_warnings():
    for row, image in enumerate(images):
      out[row] = _from_one(image, inputs, f'image {row}')
  return out


def batches(images: Images, inputs: Inputs, size: int) -> Iterator[np.ndarray]:
  """Yield `to_array` of so many images at a time: files are read when due."""
  if size < 1:
    raise BadInput(f'batch={size}; expected 1 or more')
  images = to_list(images)
  for start in range(0, len(images), size):
    yield to_array(images[start : start + size], inputs)


def _from_one(image, inputs, where):
  """Return f32[H, W, C] of a path, an image of Pillow or an array."""
  if isinstance(image, str | os.PathLike):
    pixels = image_inputs.read(os.fspath(image), inputs)
  elif isinstance(image, Image.Image):
    pixels = image_inputs.convert(image, inputs, where)
  else:
    return _from_array(np.asarray(image)[None], inputs, where)[0]
  return pixels.astype(np.float32) / 255


def _from_array(array, inputs, where='images'):
  if array.ndim == 2:
    array = _unflatten(array, inputs, where)
  if array.dtype.kind == 'f' and inputs.shape in (
    array.shape[1:],
    (*array.shape[1:], 1),
  ):
    array = array.reshape(-1, *inputs.shape)
    bad = ~((array >= 0) & (array <= 1))  # NaN too
    if bad.any():
      raise BadInput(
        f'{where}: {array[bad][0]} among them; expected numbers in [0, 1], '
        'without NaN and inf'
      )
    return array.astype(np.float32)
  pixels = checks.to_pixels(array, 4, where, _LAYOUT)
  out = np.empty((len(pixels), *inputs.shape), np.float32)
  for row, image in enumerate(pixels):
    out[row] = image_inputs.convert(image, inputs)
  return out / 255


def _unflatten(array, inputs, where):
  """Return images [n, H, W, C] of rows [n, H W C]."""
  size = int(np.prod(inputs.shape))
  if array.shape[1] != size:
    raise BadInput(
      f'{where}: rows of {array.shape[1]} numbers; the network takes images of '
      f'{" x ".join(map(str, inputs.shape))} = {size} numbers'
    )
  return array.reshape(-1, *inputs.shape)
