"""Decodes and resizes image files, and reads trees of class folders."""

import contextlib
import io
import os

import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp', '.tif', '.tiff')
# Usual names for the three splits of a folder tree.
_SPLIT_FOLDERS = {split: split for split in class_table.SPLITS} | {
  'val': 'valid',
  'validation': 'valid',
}


def resize(images: np.ndarray, size: int) -> np.ndarray:
  """Resize images to squares with an antialiasing (Lanczos) filter.

  Args:
    images: uint8[n, H, W, C].
    size: pixels per side; the aspect ratio is not kept.

  Returns:
    uint8[n, size, size, C]; the input itself if it already has this size.
  """
  rows, height, width, channels = images.shape
  if (height, width) == (size, size):
    return images
  resized = np.empty((rows, size, size, channels), np.uint8)
  for row in range(rows):
    for channel in range(channels):
      plane = Image.fromarray(np.ascontiguousarray(images[row, ..., channel]))
      plane = plane.resize((size, size), Image.Resampling.LANCZOS)
      resized[row, ..., channel] = np.asarray(plane)
  return resized


def decode(
  data: bytes, where: str, *, gray: bool, size: int = 0, invert: bool = False
) -> np.ndarray:
  """Decode one image file.

  Args:
    data: bytes of the file.
    where: name of the file in error messages.
    gray: whether to return one channel instead of three.
    size: pixels per side to resize to; 0 keeps the size.
    invert: swap black and white.

  Returns:
    uint8[H, W, 1 or 3]; transparent pixels become white.

  Raises:
    BadInput: not an image, or a damaged one.
  """
  with _open(io.BytesIO(data), where) as image:
    if image.mode in ('LA', 'PA', 'RGBA') or 'transparency' in image.info:
      image = image.convert('RGBA')
      white = Image.new('RGBA', image.size, 'white')
      image = Image.alpha_composite(white, image)
    image = image.convert('L' if gray else 'RGB')
  if size and image.size != (size, size):
    image = image.resize((size, size), Image.Resampling.LANCZOS)
  pixels = np.asarray(image).reshape(image.height, image.width, -1)
  return 255 - pixels if invert else pixels


@contextlib.contextmanager
def _open(source, where):
  with checks.reading(where, 'a damaged image', 'replace or remove it'):
    try:
      image = Image.open(source)
    except Image.UnidentifiedImageError:
      raise BadInput(
        f'{where}: not an image file; replace or remove it'
      ) from None
    with image:
      if image.mode.startswith(('I', 'F')):
        raise BadInput(
          f'{where}: pixels of more than 8 bits (mode {image.mode}); convert '
          'the file to 8 bits'
        )
      yield image


def read_tree(folder: str, image_size: int = 0) -> class_table.Table:
  """Read a tree of class folders.

  Args:
    folder: has `<class>/*.png`, `<alphabet>/<class>/*.png`, or either of them
      under `train`, `valid` (or `val`) and `test`. Files may have any of
      `ENDINGS`; others are ignored.
    image_size: pixels per side if images differ in size; otherwise ignored.

  Returns:
    A `class_table.Table`; one channel if every image is gray, else three.

  Raises:
    BadInput: with the name of the faulty file or folder.
  """
  classes = _find_classes(folder)
  split, alphabets, names, paths = zip(*classes)
  gray = True
  sizes: dict[tuple[int, int], str] = {}  # (width, height) -> a file
  for path in (path for of_class in paths for path in of_class):
    with _open(path, path) as image:  # reads only the header
      gray = gray and image.mode in ('1', 'L', 'LA')
      sizes.setdefault(image.size, path)
  if len(sizes) > 1 and not image_size:
    (first, one), (second, other) = list(sizes.items())[:2]
    raise BadInput(
      f'{folder}: images differ in size ({one} is {first[0]}x{first[1]}, '
      f'{other} is {second[0]}x{second[1]}); set data.image_size '
      '(--image_size in convert)'
    )
  size = image_size if len(sizes) > 1 else 0
  return class_table.check(
    class_table.Table(
      folder,
      [
        np.stack([_read(path, gray, size) for path in of_class])
        for of_class in paths
      ],
      names,
      alphabets if alphabets[0] else None,
      split if split[0] else None,
    )
  )


def _read(path, gray, size):
  with open(path, 'rb') as stream:
    return decode(stream.read(), path, gray=gray, size=size)


def _find_classes(folder):
  """Return a list of (split or '', alphabet or '', name, image paths)."""
  classes = []
  for place, folders, files in os.walk(folder):
    folders[:] = sorted(name for name in folders if name[0] not in '._')
    paths = [
      os.path.join(place, name)
      for name in sorted(files)
      if name.lower().endswith(ENDINGS) and name[0] != '.'
    ]
    parts = os.path.relpath(place, folder).split(os.sep)
    if not folders and not paths and place != folder:
      raise BadInput(
        f'{place}: class folder with 0 images; remove it or add images '
        f'({", ".join(ENDINGS)})'
      )
    if not paths:
      continue
    split = _SPLIT_FOLDERS.get(parts[0], '') if len(parts) > 1 else ''
    parts = parts[1:] if split else parts
    if place == folder or folders or len(parts) > 2:
      raise BadInput(
        f'{place}: images at an unexpected level; expected <class>/<image>, '
        '<alphabet>/<class>/<image>, or these under train, valid and test'
      )
    classes.append((split, parts[0] if parts[1:] else '', parts[-1], paths))
  if not classes:
    raise BadInput(f'{folder}: no class folders with images in it')
  for index, level in ((0, 'train, valid or test'), (1, 'an alphabet folder')):
    without = [entry for entry in classes if not entry[index]]
    if without and len(without) < len(classes):
      raise BadInput(
        f'{os.path.dirname(without[0][3][0])}: not under {level} as the other '
        'classes are; move it'
      )
  return classes
