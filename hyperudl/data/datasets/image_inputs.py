"""Describes the images that a network takes, and makes others like them."""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import Literal
from typing import get_args

import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import image_file

Polarity = Literal['light_on_dark', 'dark_on_light', 'any']
_SHARE = 0.95  # of the images that must agree for a set to have a polarity
_DARK, _LIGHT = 64, 191  # medians of borders that are clearly dark or light
_SAMPLE = 1000  # images of a set that are looked at


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What images a network takes: size, channels, polarity, and how to fit."""

  height: int  # pixels
  width: int  # pixels
  channels: int  # 1: gray, 3: colour
  # What drawings look like; others are inverted. 'any': nothing is.
  polarity: Polarity = 'any'
  fit: image_file.Fit = 'pad'  # of images with another aspect ratio

  @property
  def shape(self) -> tuple[int, int, int]:
    """The shape (H, W, C) of an image."""
    return self.height, self.width, self.channels

  def to_dict(self) -> dict[str, Any]:
    """Return what `from_dict` reads; it fits in JSON."""
    return dataclasses.asdict(self)


def from_dict(values: Mapping[str, Any]) -> Inputs:
  """Return the `Inputs` that `Inputs.to_dict` wrote.

  Raises:
    ValueError: it is something else.
  """
  try:
    inputs = Inputs(**values)
    sizes = inputs.shape
    if not all(type(n) is int and 0 < n < 1 << 16 for n in sizes):
      raise ValueError(f'sizes {sizes}')
    if inputs.polarity not in get_args(Polarity):
      raise ValueError(f'polarity {inputs.polarity!r}')
    if inputs.fit not in get_args(image_file.Fit):
      raise ValueError(f'fit {inputs.fit!r}')
  except TypeError as error:
    raise ValueError(f'no description of images: {error}') from error
  return inputs


def describe(images: np.ndarray, fit: image_file.Fit) -> Inputs:
  """Return the `Inputs` of a set of images.

  Args:
    images: uint8[n, H, W, C], of which at most a thousand are looked at.
    fit: how they were resized.
  """
  height, width, channels = images.shape[1:]
  return Inputs(height, width, channels, _polarity(images), fit)


def _polarity(images):
  """Return the polarity that nearly all gray images have, or 'any'."""
  if images.shape[-1] != 1:
    return 'any'  # an inverted photograph is no photograph
  rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
  found = [_ground(np.asarray(images[row])) for row in rows]
  for polarity in ('light_on_dark', 'dark_on_light'):
    if found.count(polarity) >= _SHARE * len(found):
      return polarity
  return 'any'


def _ground(pixels, dark=_DARK, light=_LIGHT):
  """Return the polarity of a drawing uint8[H, W, 1], 'any' if it is unclear."""
  ground, mean = np.median(image_file.border(pixels)), pixels.mean()
  if ground < dark and mean > ground:
    return 'light_on_dark'
  if ground > light and mean < ground:
    return 'dark_on_light'
  return 'any'


def read(path: str, inputs: Inputs) -> np.ndarray:
  """Read an image file as a network takes it: uint8[H, W, C].

  Raises:
    BadInput: it may not be read, is not an image, or is damaged.
  """
  pixels = image_file.read(path, **_options(inputs))
  return _with_polarity(pixels, inputs)


def decode(data: bytes, where: str, inputs: Inputs) -> np.ndarray:
  """Decode the bytes of an image file as a network takes it: uint8[H, W, C].

  Args:
    data: of the file.
    where: name of the file in error messages.
    inputs: of the network.

  Raises:
    BadInput: it is not an image, or is damaged.
  """
  pixels = image_file.decode(data, where, **_options(inputs))
  return _with_polarity(pixels, inputs)


def convert(
  image: Image.Image | np.ndarray, inputs: Inputs, where: str = 'image'
) -> np.ndarray:
  """Return an image as a network takes it: uint8[H, W, C].

  Args:
    image: of Pillow, or pixels uint8[h, w, 1 or 3].
    inputs: of the network.
    where: name of the image in error messages.

  Raises:
    BadInput: it has floats, or integers of more than 16 bits.
  """
  if isinstance(image, np.ndarray):
    flat = image[..., 0] if image.shape[-1] == 1 else image
    image = Image.fromarray(np.ascontiguousarray(flat))
  pixels = image_file.to_pixels(image, where, **_options(inputs))
  return _with_polarity(pixels, inputs)


def _options(inputs):
  if inputs.channels not in (1, 3):
    raise BadInput(
      f'the network takes images of {inputs.channels} channels, and files have '
      '1 or 3: give it floats in [0, 1] of its own shape'
    )
  return {
    'gray': inputs.channels == 1,
    'size': (inputs.height, inputs.width),
    'fit': inputs.fit,
  }


def _with_polarity(pixels, inputs):
  """Invert a drawing whose polarity is the opposite of the network's."""
  if inputs.polarity == 'any':
    return pixels
  polarity = _ground(pixels, 128, 127)
  return pixels if polarity in ('any', inputs.polarity) else 255 - pixels
