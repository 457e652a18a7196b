"""Reads the array caches that other few-shot systems leave on disk.

HyperTransformer: `NAME.npy` [classes, samples, H, W(, C)] or a folder `NAME/`
of `chunk_*.npy`; its PyTorch port: `*NAME_ch_first*.npy`.
mini-ImageNet: `mini-imagenet-cache-{train,val,test}.pkl` (`image_data`,
`class_dict`) or `miniImageNet_category_split_*.pickle` (`data`, `labels`).
tieredImageNet: `{train,val,test}_images.npz` and `{train,val,test}_labels.pkl`.
"""

import glob
import os
import reprlib

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import safe_pickle
from hyperudl.data.datasets import splits

# File pattern of each kind, and its names of (train, valid, test).
_PICKLES = {
  'mini': ('mini-imagenet-cache-{}.pkl', ('train', 'val', 'test')),
  'mini_labels': (
    'miniImageNet_category_split_{}.pickle',
    ('train_phase_train', 'val', 'test'),
  ),
  'tiered': ('{}_images.npz', ('train', 'val', 'test')),
}


def read_npy(path: str, name: str) -> class_table.Table:
  """Read a cache of one array, memory-mapped if it is big.

  Args:
    path: the file; `_ch_first` in its name means that channels come first.
    name: name of the set, which determines its published split.

  Returns:
    A `class_table.Table`.

  Raises:
    BadInput: with the name of the file and the first bad element.
  """
  return _with_split(path, name, *_read_classes(path))


def read_chunks(folder: str, name: str) -> class_table.Table:
  """Read a folder of `.npy` files, each with some of the classes.

  Args:
    folder: has the files, which are read in the order of their names. Each
      holds an array [classes, samples, H, W(, C)], or an object array of one
      array [samples, H, W(, C)] per class, which is read without running
      pickles.
    name: name of the set, which determines its published split.

  Returns:
    A `class_table.Table`.

  Raises:
    BadInput: with the name of the file and the first bad element.
  """
  paths = sorted(glob.glob(os.path.join(glob.escape(folder), '*.npy')))
  blocks = [block for path in paths for block in _read_classes(path)[0]]
  return _with_split(folder, name, blocks, None)


def _read_classes(path):
  """Return the images of each class, and the one array with all, or None."""
  images = npy.read_npy(path)
  if images.dtype.hasobject:
    return _class_blocks(images, path), None
  if '_ch_first' in os.path.basename(path):
    if images.ndim != 5 or images.shape[2] not in (1, 3):
      raise BadInput(
        f'{path}: shape {images.shape}; expected [classes, samples, C, H, W]'
      )
    images = np.moveaxis(images, 2, -1)
  table = class_table.from_arrays({'images': images}, path)
  return table.blocks, table.base


def _class_blocks(images, path):
  """Return uint8[n, H, W, C] for each class of an object array."""
  if images.ndim != 1:
    raise BadInput(
      f'{path}: object array of shape {images.shape}; expected one array of '
      'images per class'
    )
  blocks = []
  for index, block in enumerate(images):
    where = f'{path}[{index}]'
    if not isinstance(block, np.ndarray):
      raise BadInput(f'{where}: {type(block).__name__}; expected an array')
    layout = '[samples, H, W] or [samples, H, W, C]'
    blocks.append(checks.to_pixels(np.asarray(block), 4, where, layout))
  return blocks


def _with_split(where, name, blocks, base):
  names = class_table.default_names(len(blocks))
  split = splits.published(name, len(blocks))
  return class_table.check(
    class_table.Table(where, blocks, names, None, split, base)
  )


def find_pickles(folder: str) -> str | None:
  """Return the kind of the pickle cache in a folder, or None."""
  for kind, (pattern, tags) in _PICKLES.items():
    for tag in tags:
      if os.path.exists(os.path.join(folder, pattern.format(tag))):
        return kind
  return None


def read_pickles(folder: str, kind: str) -> class_table.Table:
  """Read a mini- or tieredImageNet cache without running its pickles.

  Args:
    folder: folder with the files of all three splits.
    kind: the result of `find_pickles`.

  Returns:
    A `class_table.Table` with the split given by the files.

  Raises:
    BadInput: with the names of file and array and the first bad element.
  """
  pattern, tags = _PICKLES[kind]
  files = [pattern.format(tag) for tag in tags]
  blocks, names, split = [], [], []
  for file, part in zip(files, class_table.SPLITS):
    path = os.path.join(folder, file)
    if not os.path.exists(path):
      raise BadInput(
        f'{path}: missing; the cache needs the files of {", ".join(files)}'
      )
    for name, images in _READERS[kind](path):
      blocks.append(images)
      # Labels are numbers that may be the same in different files.
      names.append(name if kind == 'mini' else f'{part}/{name}')
      split.append(part)
  return class_table.check(
    class_table.Table(folder, blocks, tuple(names), None, tuple(split))
  )


def _entry(content, path, *keys):
  """Return the value of the first of `keys` that the pickled dict has."""
  for key in keys:
    if isinstance(content, dict) and key in content:
      return content[key]
  is_dict = isinstance(content, dict)
  held = reprlib.repr(list(content)) if is_dict else type(content).__name__
  raise BadInput(f'{path}: expected a dict with {keys[0]!r}, found {held}')


def _to_pixels(images, where):
  if isinstance(images, list):
    arrays = [isinstance(image, np.ndarray) for image in images]
    shapes = {image.shape for image in images} if all(arrays) else ()
    if len(shapes) != 1:
      raise BadInput(
        f'{where}: a list, but not of arrays of one shape; save one array'
      )
    images = np.stack(images)
  if not isinstance(images, np.ndarray):
    raise BadInput(f'{where}: {type(images).__name__}; expected an array')
  return checks.to_pixels(images, 4, where, '[n, H, W, C]')


def _to_integers(values, where):
  # NumPy would make a text of each entry if one of them is a text.
  if isinstance(values, list) and all(
    isinstance(value, int | np.integer) for value in values
  ):
    values = np.array(values)
  if (
    not isinstance(values, np.ndarray)
    or values.ndim != 1
    or (values.size and values.dtype.kind not in 'iu')
  ):
    raise BadInput(f'{where}: expected a list of integers')
  return values.astype(np.int64)


def _check_range(values, limit, where, expected):
  bad = (values < 0) | (values >= limit)
  if bad.any():
    place = int(np.argmax(bad))
    raise BadInput(
      f'{where}: element {place} is {values[place]}; expected {expected}'
    )


def _read_class_dict(path):
  content = safe_pickle.load_file(path)
  images = _entry(content, path, 'image_data')
  images = _to_pixels(images, f'{path}[image_data]')
  rows_of = _entry(content, path, 'class_dict')
  if not isinstance(rows_of, dict):
    raise BadInput(
      f'{path}[class_dict]: {type(rows_of).__name__}; expected a dict'
    )
  left = len(images)
  for name, rows in rows_of.items():
    where = f'{path}[class_dict][{reprlib.repr(str(name))}]'
    rows = _to_integers(rows, where)
    expected = f'a row of the {len(images)} images'
    _check_range(rows, len(images), where, expected)
    left -= len(rows)
    if left < 0:  # rows that repeat could take any amount of memory
      raise BadInput(f'{where}: images are in several classes, or twice in one')
    yield str(name), _take(images, rows)


def _read_labelled(path):
  content = safe_pickle.load_file(path)
  images, labels = (_entry(content, path, key) for key in ('data', 'labels'))
  return _by_label(images, f'{path}[data]', labels, f'{path}[labels]')


def _read_tiered(path):
  arrays, names = npy.read_npz(path, ('images',))
  images = _entry(arrays, f'{path} ({names})', 'images')
  labels_path = path.replace('_images.npz', '_labels.pkl')
  content = safe_pickle.load_file(labels_path)
  labels = _entry(content, labels_path, 'labels', 'label_specific')
  return _by_label(images, path, labels, labels_path)


def _by_label(images, where, labels, labels_where):
  images = _to_pixels(images, where)
  labels = _to_integers(labels, labels_where)
  if len(images) != len(labels):
    raise BadInput(
      f'{labels_where}: {len(images)} images but {len(labels)} labels'
    )
  _check_range(labels, np.inf, labels_where, '0 or more')
  order = np.argsort(labels, kind='stable')
  values, starts = np.unique(labels[order], return_index=True)
  class_table.check_count(len(values), labels_where)
  for label, rows in zip(values, np.split(order, starts[1:])):
    yield f'{label:04d}', _take(images, rows)


def _take(images, rows):
  # Contiguous rows stay a view, as a copy would double the memory of the set.
  if len(rows) and (np.diff(rows) == 1).all():
    return images[rows[0] : rows[-1] + 1]
  return images[rows]


_READERS = {
  'mini': _read_class_dict,
  'mini_labels': _read_labelled,
  'tiered': _read_tiered,
}
