"""Finds the file or folder of a named set and reads it."""

import difflib
import glob
import os

from hyperudl.core import BadInput
from hyperudl.data.datasets import caches
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import npy

_ARRAYS = ('images', 'labels', 'class_names', 'alphabets', 'split')
_FORMS = '.npz, .npy, *_ch_first*.npy, a folder of .npy, pickles or images'


def read(name, folder, image_size=0):
  """Reads the set `name`.

  Looks in this order for `<name>.npz`, `<name>.npy`, `*<name>_ch_first*.npy`
  and a folder `<name>/` of `.npy` chunks, mini- or tieredImageNet pickles, or
  class folders of images. The set `glyphs` is generated when it is not there.

  Args:
    name: str.
    folder: str, `data.dir`.
    image_size: int, pixels per side for image files of different sizes.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: no such set, or one with a fault.
  """
  if name == 'glyphs':
    return _read_glyphs(folder)
  if not os.path.isdir(folder):
    raise BadInput(
      f'data.dir={folder!r} is not a folder; put sets there or give another'
    )
  if not name or os.path.basename(name) != name:
    raise BadInput(
      f'data.dataset={name!r}: expected the name of a set in {folder}'
    )
  stem = os.path.join(folder, name)
  if os.path.isfile(f'{stem}.npz'):
    return read_npz(f'{stem}.npz')
  if os.path.isfile(f'{stem}.npy'):
    return caches.read_npy(f'{stem}.npy', name)
  pattern = f'*{glob.escape(name)}_ch_first*.npy'
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
    return caches.read_npy(path, name)
  if os.path.isdir(stem):
    return read_folder(stem, name, image_size)
  kind = caches.find_pickles(folder)
  if kind and name.lower().startswith(kind.partition('_')[0]):
    return caches.read_pickles(folder, kind)
  raise BadInput(_unknown(name, folder))


def read_npz(path):
  """Reads a `.npz` file of the forms in `table.from_arrays`.

  Args:
    path: str.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: naming the array and its first bad element.
  """
  arrays, found = npy.read_npz(path, _ARRAYS)
  if 'images' not in arrays:
    raise BadInput(
      f"{path}: no array 'images'; it has {', '.join(found) or 'nothing'}"
    )
  for other in found:
    # A misspelt `split` must not turn into a random one.
    close = difflib.get_close_matches(other, _ARRAYS, 1, 0.8)
    if other not in _ARRAYS and close and close[0] not in arrays:
      raise BadInput(
        f'{path}: array {other!r} is not read; did you mean {close[0]!r}?'
      )
  return class_table.from_arrays(arrays, path)


def read_folder(folder, name, image_size=0):
  """Reads a folder of chunks, of pickles or of class folders.

  Args:
    folder: str.
    name: str, the name of the set.
    image_size: int, pixels per side for image files of different sizes.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: naming the file at fault.
  """
  if glob.glob(os.path.join(glob.escape(folder), '*.npy')):
    return caches.read_chunks(folder, name)
  kind = caches.find_pickles(folder)
  if kind:
    return caches.read_pickles(folder, kind)
  for pattern in ('dataset_info.json', '*/dataset_info.json'):
    if glob.glob(os.path.join(glob.escape(folder), pattern)):
      raise BadInput(
        f'{folder}: a set prepared by tensorflow-datasets; convert it once: '
        f'python -m hyperudl.data.convert --kind=tfds --source={folder} '
        f'--out={os.path.dirname(folder)} --name={name}'
      )
  return image_folder.read_tree(folder, image_size)


def _read_glyphs(folder):
  # Generating glyphs needs scipy; nothing else here does.
  from hyperudl.data.datasets import glyphs

  arrays = glyphs.load(folder, progress=None)
  return class_table.from_arrays(arrays, os.path.join(folder, 'glyphs.npz'))


def names(folder):
  """The sorted names of the sets that `folder` (str) seems to hold."""
  found = {'glyphs'}
  for entry in os.scandir(folder):
    stem, ending = os.path.splitext(entry.name)
    if entry.name[0] in '._':
      continue
    if ending in ('.npz', '.npy') and entry.is_file():
      found.add(stem.partition('_ch_first')[0])
    elif entry.is_dir():
      found.add(entry.name)
  return sorted(found)


def _unknown(name, folder):
  there = names(folder)
  listed = ', '.join(there[:20]) + (', ...' if len(there) > 20 else '')
  close = max(there, key=lambda other: _likeness(name, other))
  likely = _likeness(name, close) >= 0.7
  hint = f' Did you mean {close!r}?' if likely else ''
  if name.lower().startswith('omniglot'):
    hint += ' bash launch/data_omniglot.sh downloads Omniglot.'
  return (
    f'data.dataset={name!r} is not in {folder}, which has: {listed}.{hint} '
    f'Forms that are read: {_FORMS}'
  )


def _likeness(name, other):
  # 'omniglt' should find 'omniglot_background' too: compare the beginnings.
  return max(
    difflib.SequenceMatcher(None, name.lower(), text).ratio()
    for text in (other.lower(), other.lower()[: len(name)])
  )
