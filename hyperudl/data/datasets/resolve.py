"""Finds the file or folder of a named set and reads it."""

import difflib
import glob
import os

from hyperudl.core import BadInput
from hyperudl.data.datasets import caches
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import npy

_DRAWN = ('glyphs', 'glyph_attributes')  # the sets of `glyphs_cache`
_ARRAYS = (*class_table.CONTENTS, 'labels', *class_table.STRINGS)
# Sets that are drawn here; no set of a user may have their names.
BUILT_IN = (*_DRAWN, 'glyphvqa')
_FORMS = '.npz, .npy, *_ch_first*.npy, a folder of .npy, pickles or images'


def read(name: str, folder: str, image_size: int = 0) -> class_table.Table:
  """Read the set `name`.

  Looks in this order for `<name>.npz`, `<name>.npy`, `*<name>_ch_first*.npy`
  and a folder `<name>/` of `.npy` chunks, mini- or tieredImageNet pickles, or
  class folders of images; then for such pickles in `folder` itself. The sets
  `glyphs` and `glyph_attributes` are drawn if their files do not exist.

  Args:
    name: name of the set.
    folder: `data.dir`.
    image_size: pixels per side for image files of different sizes.

  Returns:
    A `class_table.Table`.

  Raises:
    BadInput: unknown set or faulty data.
  """
  folder = os.path.expanduser(folder)
  if name in _DRAWN:
    return _read_built_in(name, folder)
  _check_folder(folder)
  if not name or os.path.basename(name) != name:
    raise BadInput(
      f'data.dataset={name!r}: expected the name of a set in {folder}'
    )
  stem = os.path.join(folder, name)
  if os.path.isfile(f'{stem}.npz'):
    return read_npz(f'{stem}.npz')
  pattern = f'*{glob.escape(name)}_ch_first*.npy'
  ports = glob.glob(os.path.join(glob.escape(folder), pattern))
  for path in (f'{stem}.npy', *sorted(ports)):
    if os.path.isfile(path):
      return caches.read_npy(path, name)
  if os.path.isdir(stem):
    return read_folder(stem, name, image_size)
  kind = caches.find_pickles(folder)
  if kind and name.lower().startswith(kind.partition('_')[0]):
    return caches.read_pickles(folder, kind)
  raise BadInput(_describe_unknown(name, folder))


def _check_folder(folder):
  if not os.path.isdir(folder):
    raise BadInput(
      f'data.dir={folder!r} is not a folder; put sets there or give another'
    )
  try:
    os.listdir(folder)  # glob would find nothing in it
  except OSError as error:
    raise BadInput(
      f'data.dir={folder!r} may not be listed ({error.strerror}); change its '
      'permissions or give another'
    ) from None


def read_npz(path: str) -> class_table.Table:
  """Read a `.npz` file with the arrays that `class_table.from_arrays` takes.

  Raises:
    BadInput: with the name of the array and its first bad element.
  """
  arrays, names = npy.read_npz(path, _ARRAYS)
  if not arrays.keys() & set(class_table.CONTENTS):
    raise BadInput(
      f"{path}: no array 'images' or 'features'; it has "
      f'{", ".join(names) or "nothing"}'
    )
  for name in names:
    # A misspelt `split` must not silently become a random split.
    close = difflib.get_close_matches(name, _ARRAYS[2:], 1, 0.8)
    if name not in _ARRAYS and close and close[0] not in arrays:
      raise BadInput(
        f'{path}: array {name!r} is not read; did you mean {close[0]!r}?'
      )
  return class_table.from_arrays(arrays, path)


def read_folder(
  folder: str, name: str, image_size: int = 0
) -> class_table.Table:
  """Read a folder of `.npy` chunks, of pickles or of class folders.

  Args:
    folder: folder to read.
    name: name of the set.
    image_size: pixels per side for image files of different sizes.

  Returns:
    A `class_table.Table`.

  Raises:
    BadInput: with the name of the faulty file.
  """
  contents = os.path.join(glob.escape(folder), '')
  if glob.glob(f'{contents}*.npy'):
    return caches.read_chunks(folder, name)
  kind = caches.find_pickles(folder)
  if kind:
    return caches.read_pickles(folder, kind)
  for pattern in ('dataset_info.json', '*/dataset_info.json'):
    if glob.glob(contents + pattern):
      raise BadInput(
        f'{folder}: a set prepared by tensorflow-datasets; convert it once: '
        f'python -m hyperudl.data.convert --kind=tfds --source={folder} '
        f'--out={os.path.dirname(folder)} --name={name}'
      )
  return image_folder.read_tree(folder, image_size)


def _read_built_in(name, folder):
  # Drawing glyphs needs scipy; nothing else here does.
  from hyperudl.data.datasets import glyphs_cache

  stem = os.path.join(folder, name)
  others = [path for path in (stem, f'{stem}.npy') if os.path.exists(path)]
  others += glob.glob(f'{glob.escape(stem)}_ch_first*.npy')
  if others:
    raise BadInput(
      f'{others[0]}: {name} is the name of the built-in set, so this one would '
      'not be read; rename it'
    )
  arrays = glyphs_cache.load(folder, name)
  return class_table.from_arrays(arrays, os.path.join(folder, f'{name}.npz'))


def _names(folder):
  """Return the sorted names of the sets that `folder` seems to hold."""
  available = set(_DRAWN)
  for entry in os.scandir(folder):
    stem, ending = os.path.splitext(entry.name)
    if entry.name[0] in '._':
      continue
    if ending in ('.npz', '.npy') and entry.is_file():
      available.add(stem.partition('_ch_first')[0])
    elif entry.is_dir():
      available.add(entry.name)
  return sorted(available)


def _describe_unknown(name, folder):
  available = _names(folder)
  listed = ', '.join(available[:20]) + ', ...' * (len(available) > 20)
  # Compare beginnings too, so that 'omniglt' matches 'omniglot_background'.
  spellings = {
    text.lower(): other
    for other in available
    for text in (other[: len(name)], other)
  }
  close = difflib.get_close_matches(name.lower(), spellings, 1, 0.7)
  hint = f' Did you mean {spellings[close[0]]!r}?' if close else ''
  if name.lower().startswith('omniglot'):
    hint += ' bash launch/data/omniglot.sh downloads Omniglot.'
  return (
    f'data.dataset={name!r} is not in {folder}, which has: {listed}.{hint} '
    f'Forms that are read: {_FORMS}'
  )
