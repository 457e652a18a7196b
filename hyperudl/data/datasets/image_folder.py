"""Image files: decoding, resizing, and trees of class folders."""

import io
import os

import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp', '.tif', '.tiff')
# The words that people use for the three splits of a folder tree.
_SPLIT_FOLDERS = {
  'train': 'train',
  'valid': 'valid',
  'val': 'valid',
  'validation': 'valid',
  'test': 'test',
}


def resize(images, size):
  """Resizes images to squares with an antialiasing (Lanczos) filter.

  Args:
    images: uint8[n, H, W, C].
    size: int, pixels per side; the aspect ratio is not kept.

  Returns:
    uint8[n, size, size, C]; the input itself if it has this size.
  """
  rows, height, width, channels = images.shape
  if (height, width) == (size, size):
    return images
  resized = np.empty((rows, size, size, channels), np.uint8)
  for row in range(rows):
    for channel in range(channels):
      plane = Image.fromarray(np.ascontiguousarray(images[row, ..., channel]))
      resized[row, ..., channel] = plane.resize(
        (size, size), Image.Resampling.LANCZOS
      )
  return resized


def decode(data, where, *, gray, size=0, invert=False):
  """Decodes one image file.

  Args:
    data: bytes of the file.
    where: str, the file as messages name it.
    gray: bool, one channel instead of three.
    size: int, pixels per side to resize to; 0 keeps the size.
    invert: bool, swap black and white.

  Returns:
    uint8[H, W, 1 or 3]; what is transparent becomes white.

  Raises:
    BadInput: not an image, or a damaged one.
  """
  try:
    with Image.open(io.BytesIO(data)) as image:
      _refuse_deep(image, where)
      if image.mode in ('LA', 'PA', 'RGBA') or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(
          Image.new('RGBA', image.size, 'white'), image
        )
      image = image.convert('L' if gray else 'RGB')
  except BadInput:
    raise
  # Pillow's decoders raise many types for damaged files.
  except Exception as error:
    raise BadInput(f'{where}: {_reason(error)}; replace or remove it') from None
  if size and image.size != (size, size):
    image = image.resize((size, size), Image.Resampling.LANCZOS)
  pixels = np.asarray(image).reshape(image.height, image.width, -1)
  return 255 - pixels if invert else pixels


def _reason(error):
  if isinstance(error, Image.UnidentifiedImageError):
    return 'not an image file'
  return 'a damaged image (' + ' '.join(str(error).split())[:100] + ')'


def _refuse_deep(image, where):
  if image.mode.startswith(('I', 'F')):
    raise BadInput(
      f'{where}: pixels of more than 8 bits (mode {image.mode}); convert the '
      'file to 8 bits'
    )


def read_tree(folder, image_size=0):
  """Reads a tree of class folders.

  Args:
    folder: str, with `<class>/*.png`, `<alphabet>/<class>/*.png`, or either of
      them under `train`, `valid` (or `val`) and `test`. Other file types that
      Pillow reads are fine too; files of other endings are passed over.
    image_size: int, pixels per side to resize to; needed if sizes differ.

  Returns:
    A `table.Table`; one channel if every image is gray, else three.

  Raises:
    BadInput: naming the file or folder.
  """
  classes = _find_classes(folder)
  gray, sizes = _survey(classes)
  if len(sizes) > 1 and not image_size:
    (first, one), (second, other) = list(sizes.items())[:2]
    raise BadInput(
      f'{folder}: images differ in size ({one} is {first[0]}x{first[1]}, '
      f'{other} is {second[0]}x{second[1]}); set data.image_size '
      '(--image_size in convert)'
    )
  size = image_size if len(sizes) > 1 else 0
  blocks = [
    np.stack([_read(path, gray=gray, size=size) for path in paths])
    for _, _, _, paths in classes
  ]
  splits = tuple(split for split, _, _, _ in classes)
  alphabets = tuple(alphabet for _, alphabet, _, _ in classes)
  return class_table.check(
    class_table.Table(
      folder,
      blocks,
      tuple(name for _, _, name, _ in classes),
      alphabets if alphabets[0] else None,
      splits if splits[0] else None,
    )
  )


def _read(path, *, gray, size):
  with open(path, 'rb') as stream:
    return decode(stream.read(), path, gray=gray, size=size)


def _find_classes(folder):
  # -> sorted list of (split or '', alphabet or '', name, paths of the images)
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
  for index, what in ((0, 'train, valid or test'), (1, 'an alphabet folder')):
    plain = [entry for entry in classes if not entry[index]]
    if plain and len(plain) < len(classes):
      raise BadInput(
        f'{os.path.dirname(plain[0][3][0])}: not under {what} as the other '
        'classes are; move it'
      )
  return classes


def _survey(classes):
  # Reads the headers alone: -> (all gray?, dict (width, height) -> a path).
  gray, sizes = True, {}
  for _, _, _, paths in classes:
    for path in paths:
      try:
        with Image.open(path) as image:
          _refuse_deep(image, path)
          gray = gray and image.mode in ('1', 'L', 'LA')
          sizes.setdefault(image.size, path)
      except BadInput:
        raise
      except Exception as error:
        raise BadInput(
          f'{path}: {_reason(error)}; replace or remove it'
        ) from None
  return gray, sizes


def turned(data, transpose, invert):
  """The same `table.Table` with rows and columns exchanged, or inverted."""
  if not transpose and not invert:
    return data
  blocks = data.blocks
  if transpose:
    blocks = [np.swapaxes(block, 1, 2) for block in blocks]
  if invert:
    blocks = [255 - block for block in blocks]
  return data._replace(blocks=blocks, base=None)
