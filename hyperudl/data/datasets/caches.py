"""Reads the array caches that other few-shot systems leave on disk.

HyperTransformer: `NAME.npy` [classes, samples, H, W(, C)], a folder `NAME/` of
`chunk_*.npy`, or `*NAME_ch_first*.npy` of its PyTorch port.
mini-ImageNet: `mini-imagenet-cache-{train,val,test}.pkl` (`image_data`,
`class_dict`) or `miniImageNet_category_split_*.pickle` (`data`, `labels`).
tieredImageNet: `{train,val,test}_images.npz` and `{train,val,test}_labels.pkl`.
"""

import glob
import os

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import safe_pickle
from hyperudl.data.datasets import splits

# File patterns per kind; the tag is that of (train, valid, test).
_PICKLES = {
  'mini': (
    'mini-imagenet-cache-{}.pkl',
    ('train', 'val', 'test'),
  ),
  'mini_labels': (
    'miniImageNet_category_split_{}.pickle',
    ('train_phase_train', 'val', 'test'),
  ),
  'tiered': (
    '{}_images.npz',
    ('train', 'val', 'test'),
  ),
}
_FIRST = '[classes, samples, C, H, W]'


def read_npy(path, name):
  """Reads a cache of one array, memory-mapped if it is big.

  Args:
    path: str; `_ch_first` in the file name says that channels come first.
    name: str, the name of the set, by which its published split is known.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: naming the file and the first bad element.
  """
  images = npy.read_npy(path)
  if images.dtype.hasobject:
    blocks = _class_blocks(images, path)
    return _with_split(path, name, blocks, None)
  if '_ch_first' in os.path.basename(path):
    if images.ndim != 5 or images.shape[2] not in (1, 3):
      raise BadInput(f'{path}: shape {images.shape}; expected {_FIRST}')
    images = np.moveaxis(images, 2, -1)
  data = class_table.from_arrays({'images': images}, path)
  return _with_split(path, name, data.blocks, data.base)


def read_chunks(folder, name):
  """Reads a folder of `.npy` files, each with some of the classes.

  Args:
    folder: str; the files are taken in the order of their names. Each holds an
      array [classes, samples, H, W(, C)], or an object array of one array
      [samples, H, W(, C)] per class, which is read without running pickles.
    name: str, the name of the set, by which its published split is known.

  Returns:
    A `table.Table`.

  Raises:
    BadInput: naming the file and the first bad element.
  """
  blocks = []
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.npy'))):
    records = npy.read_npy(path)
    if records.dtype.hasobject:
      blocks.extend(_class_blocks(records, path))
    else:
      blocks.extend(class_table.from_arrays({'images': records}, path).blocks)
  return _with_split(folder, name, blocks, None)


def _class_blocks(records, path):
  if records.ndim != 1:
    raise BadInput(
      f'{path}: object array of shape {records.shape}; expected one array of '
      'images per class'
    )
  blocks = []
  for index, record in enumerate(records):
    where = f'{path}[{index}]'
    if not isinstance(record, np.ndarray):
      raise BadInput(f'{where}: {type(record).__name__}; expected an array')
    layout = '[samples, H, W] or [samples, H, W, C]'
    blocks.append(checks.to_pixels(np.asarray(record), 4, where, layout))
  return blocks


def _with_split(where, name, blocks, base):
  names = class_table.default_names(len(blocks))
  split = splits.published(name, len(blocks))
  return class_table.check(
    class_table.Table(where, blocks, names, None, split, base)
  )


def find_pickles(folder):
  """The kind of the pickle cache in `folder` (str), or None."""
  for kind, (pattern, tags) in _PICKLES.items():
    if any(os.path.exists(_path(folder, pattern, tag)) for tag in tags):
      return kind
  return None


def read_pickles(folder, kind):
  """Reads a mini- or tieredImageNet cache without running its pickles.

  Args:
    folder: str, with the files of all three splits.
    kind: what `find_pickles` said.

  Returns:
    A `table.Table` with the split of the files.

  Raises:
    BadInput: naming the file, the array and the first bad element.
  """
  readers = {
    'mini': _read_class_dict,
    'mini_labels': _read_labelled,
    'tiered': _read_tiered,
  }
  pattern, tags = _PICKLES[kind]
  blocks, names, split = [], [], []
  for tag, part in zip(tags, class_table.SPLITS):
    path = _path(folder, pattern, tag)
    if not os.path.exists(path):
      raise BadInput(
        f'{path}: missing; the cache needs the files of '
        f'{", ".join(os.path.basename(_path("", pattern, t)) for t in tags)}'
      )
    for name, images in readers[kind](path):
      blocks.append(images)
      names.append(name)
      split.append(part)
  if kind != 'mini':  # labels are numbers that start again in each file
    names = [f'{part}/{name}' for part, name in zip(split, names)]
  return class_table.check(
    class_table.Table(folder, blocks, tuple(names), None, tuple(split))
  )


def _path(folder, pattern, tag):
  return os.path.join(folder, pattern.format(tag))


def _entry(content, path, *keys):
  # The first of `keys` that the pickled dict has.
  for key in keys:
    if isinstance(content, dict) and key in content:
      return content[key]
  found = list(content) if isinstance(content, dict) else type(content).__name__
  raise BadInput(f'{path}: expected a dict with {keys[0]!r}, found {found}')


def _pixels(images, where):
  try:
    mapped = isinstance(images, np.memmap)
    images = images if mapped else np.asarray(images)
  except ValueError:
    raise BadInput(f'{where}: images of different shapes') from None
  return checks.to_pixels(images, 4, where, '[n, H, W, C]')


def _read_class_dict(path):
  content = safe_pickle.load_file(path)
  images = _pixels(_entry(content, path, 'image_data'), f'{path}[image_data]')
  classes = _entry(content, path, 'class_dict')
  for name, rows in _items(classes, f'{path}[class_dict]'):
    where = f'{path}[class_dict][{name!r}]'
    rows = _integers(rows, where)
    bad = (rows < 0) | (rows >= len(images))
    if bad.any():
      place = int(np.argmax(bad))
      raise BadInput(
        f'{where}: element {place} is {rows[place]}; expected a row of the '
        f'{len(images)} images'
      )
    yield name, _take(images, rows)


def _items(classes, where):
  if not isinstance(classes, dict):
    raise BadInput(f'{where}: {type(classes).__name__}; expected a dict')
  for name, rows in classes.items():
    yield str(name), rows


def _integers(values, where):
  try:
    values = np.asarray(values)
  except ValueError:
    values = np.zeros((0, 0))
  if values.ndim != 1 or (values.size and values.dtype.kind not in 'iu'):
    raise BadInput(f'{where}: expected a list of integers')
  return values.astype(np.int64)


def _read_labelled(path):
  content = safe_pickle.load_file(path)
  images = _pixels(_entry(content, path, 'data'), f'{path}[data]')
  labels = _integers(_entry(content, path, 'labels'), f'{path}[labels]')
  return _by_label(images, labels, path)


def _read_tiered(path):
  arrays, found = npy.read_npz(path, ('images',))
  images = _pixels(_entry(arrays, f'{path} ({found})', 'images'), path)
  labels_path = path.replace('_images.npz', '_labels.pkl')
  content = safe_pickle.load_file(labels_path)
  labels = _entry(content, labels_path, 'labels', 'label_specific')
  return _by_label(images, _integers(labels, labels_path), labels_path)


def _by_label(images, labels, path):
  if len(images) != len(labels):
    raise BadInput(f'{path}: {len(images)} images but {len(labels)} labels')
  if (labels < 0).any():
    row = int(np.argmax(labels < 0))
    raise BadInput(f'{path}[labels]: element {row} is {labels[row]}')
  for label in np.unique(labels):
    yield f'{label:04d}', _take(images, np.flatnonzero(labels == label))


def _take(images, rows):
  # Neighbouring rows stay a view: these sets fill the memory once already.
  if len(rows) and (np.diff(rows) == 1).all():
    return images[rows[0] : rows[-1] + 1]
  return images[rows]
