"""Defines the labelled images or features, by class, that readers return."""

from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import NamedTuple

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks

SPLITS = ('train', 'valid', 'test')
# Other names of the splits, alone or as in `meta-train`, `train_set`.
_SYNONYMS = {
  'train': 'train|training|trn',
  'valid': 'valid|val|validation|dev|devel|development',
  'test': 'test|testing|tst',
}
MAX_CLASSES = 200_000  # ImageNet has 21,841
UNUSED = 'none'  # marks a class that is in none of the splits
# Optional arrays of a file, one string per class; also fields of a `Table`.
STRINGS = ('class_names', 'alphabets', 'split')
# Array of a file -> how it is checked, and its axes without and with labels.
_KINDS = {
  'images': (
    checks.to_pixels,
    (5, '[classes, per_class, H, W] or [classes, per_class, H, W, C]'),
    (4, '[n, H, W] or [n, H, W, C] beside labels [n]'),
  ),
  'features': (
    checks.to_features,
    (3, '[classes, per_class, D], or [n, D] beside labels [n]'),
    (2, '[n, D] beside labels [n]'),
  ),
}
CONTENTS = tuple(_KINDS)


def to_split(name: str) -> str:
  """Return train, valid or test for one of their usual names, else ''.

  Case, and signs between the words, do not matter: 'Training', 'meta-val'.
  """
  letters = re.sub(r'[\W_]+', '', name.casefold())
  for split, names in _SYNONYMS.items():
    if re.fullmatch(f'(meta)?({names})(set|data|images|split)?', letters):
      return split
  return ''


class Table(NamedTuple):
  """All classes of a set, not yet split.

  `blocks[c]` are the images of class c. If all blocks are consecutive rows of
  one array, `base` is that array, and a range of classes can be a view of it.
  """

  where: str  # the file or folder, for error messages
  # uint8[n_c, H, W, C], images, or f32[n_c, D], features; one per class.
  blocks: Sequence[np.ndarray]
  class_names: tuple[str, ...]
  alphabets: tuple[str, ...] | None = None
  split: tuple[str, ...] | None = None  # of SPLITS or UNUSED, per class
  base: np.ndarray | None = None  # uint8[n, H, W, C] or f32[n, D]
  notes: tuple[str, ...] = ()  # for the user, such as what was not read


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> Table:
  """Make a table from the arrays of a `.npz` file.

  Args:
    arrays: `images` [classes, per_class, H, W(, C)], or `images`
      [n, H, W(, C)] and `labels` [n] (integers, or the class names as
      strings); or `features` [classes, per_class, D], or [n, D] beside
      labels; optional `class_names`, `alphabets` and `split`, one string per
      class.
    where: name of the file in error messages.

  Raises:
    BadInput: with the name of the array and its first bad element.
  """
  names = {
    key: checks.to_strings(np.asarray(arrays[key]), f'{where}[{key}]')
    for key in STRINGS
    if key in arrays
  }
  kinds = [kind for kind in _KINDS if kind in arrays]
  if len(kinds) > 1:
    raise BadInput(
      f'{where}: it has images and features; make a file of each, so that it '
      'is clear which of them to train on'
    )
  kind = kinds[0]
  values = np.asanyarray(arrays[kind])
  if 'labels' in arrays:
    labels = np.asarray(arrays['labels'])
    base, counts = _group(kind, values, labels, names, where)
  else:
    convert, (rank, layout), _ = _KINDS[kind]
    base = convert(values, rank, f'{where}[{kind}]', layout)
    base = base.reshape(-1, *base.shape[2:])
    counts = np.full(len(values), values.shape[1])
  check_count(len(counts), where)
  names.setdefault('class_names', default_names(len(counts)))
  blocks = np.split(base, np.cumsum(counts)[:-1])
  return check(Table(where, blocks, base=base, **names))


def check_count(classes: int, where: str) -> None:
  """Refuse a number of classes that would take minutes and gigabytes."""
  if classes > MAX_CLASSES:
    raise BadInput(
      f'{where}: {classes} classes, more than the {MAX_CLASSES} that are read; '
      'are the labels those of the images?'
    )


def default_names(classes: int) -> tuple[str, ...]:
  """Return names for unnamed classes: 'class0000', 'class0001', ..."""
  return tuple(f'class{index:04d}' for index in range(classes))


def labels(table: Table) -> tuple[str, ...]:
  """Return a name of each class that no other has: 'Latin/a', or 'dog'."""
  if not table.alphabets:
    return table.class_names
  return tuple(map('/'.join, zip(table.alphabets, table.class_names)))


def is_features(images: np.ndarray) -> bool:
  """Return whether an array holds features f32[n, D] in place of images."""
  return images.ndim == 2


def _group(kind, images, labels, names, where):
  """Return (images grouped by class, images per class); fills class_names."""
  place = f'{where}[labels]'
  if labels.ndim != 1:
    raise BadInput(
      f'{place}: shape {labels.shape}; expected one label per image'
    )
  if images.ndim and len(images) != len(labels):
    raise BadInput(
      f'{where}: {len(images)} {kind} but {len(labels)} labels; the first '
      f'{min(len(images), len(labels))} may match: write the file again'
    )
  convert, _, (rank, layout) = _KINDS[kind]
  images = convert(images, rank, f'{where}[{kind}]', layout)
  if labels.dtype.kind in 'US':
    labels = _to_numbers(labels, names, place)
  elif labels.dtype.kind not in 'iu':
    raise BadInput(f'{place}: {labels.dtype}; expected integers or strings')
  classes = len(names.get('class_names', ())) or int(labels.max()) + 1
  _check_labels(labels, classes, place)
  labels = labels.astype(np.int64)
  if (np.diff(labels) < 0).any():
    images = images[np.argsort(labels, kind='stable')]
  return images, np.bincount(labels, minlength=classes)


def _to_numbers(labels, names, place):
  values = checks.to_strings(labels, place)
  known = names.setdefault('class_names', tuple(sorted(set(values))))
  numbers = {name: index for index, name in enumerate(known)}
  for row, value in enumerate(values):
    if value not in numbers:
      raise BadInput(f'{place}: element {row}, {value!r}, is no class name')
  return np.array([numbers[value] for value in values])


def _check_labels(labels, classes, place):
  for bad, reason in (
    (
      labels < 0,
      '; labels are 0..classes-1: leave unlabelled images out of the file',
    ),
    (labels >= classes, f' but there are only {classes} class_names'),
  ):
    if bad.any():
      row = int(np.argmax(bad))
      raise BadInput(f'{place}: element {row} is {labels[row]}{reason}')
  if classes > len(labels):  # also keeps a huge label from taking memory
    missing = np.setdiff1d(np.arange(len(labels) + 1), labels)[0]
    raise BadInput(
      f'{place}: class {missing} of {classes} has 0 images; number the '
      'classes 0..classes-1 without gaps'
    )


def check(table: Table) -> Table:
  """Check a table and return it unchanged.

  Raises:
    BadInput: no classes, an empty class, images of different sizes, or names
      or splits that do not fit.
  """
  where, classes = table.where, len(table.blocks)
  if not classes:
    raise BadInput(f'{where}: there are no classes in it')
  for field in STRINGS:
    values = getattr(table, field)
    if values is not None and len(values) != classes:
      raise BadInput(
        f'{where}[{field}]: {len(values)} entries for {classes} classes; '
        'expected one per class'
      )
  for index, block in enumerate(table.blocks):
    if not len(block):
      raise BadInput(
        f'{where}: class {index} ({table.class_names[index]!r}) has 0 images; '
        'remove the class or add images'
      )
    if block.shape[1:] != table.blocks[0].shape[1:]:
      size = lambda block: 'x'.join(map(str, block.shape[1:]))
      raise BadInput(
        f'{where}: images of class {index} are {size(block)}, those of class '
        f'0 {size(table.blocks[0])}; make them equal'
      )
  _check_splits(table)
  _check_names(table)
  return table


def _check_splits(table):
  for index, split in enumerate(table.split or ()):
    if split not in (*SPLITS, UNUSED):
      meant = to_split(split)
      hint = f'; write {meant!r}' if meant else ''
      raise BadInput(
        f'{table.where}[split]: element {index} is {split!r}; expected train, '
        f'valid, test or none{hint}'
      )


def _check_names(table):
  alphabets = table.alphabets or [''] * len(table.blocks)
  first_of = {}
  for index, key in enumerate(zip(alphabets, table.class_names)):
    first = first_of.setdefault(key, index)
    if first != index:
      pair = ''
      if table.split:
        pair = f' ({table.split[first]} and {table.split[index]})'
      raise BadInput(
        f'{table.where}: classes {first} and {index}{pair} have the same name '
        f'{key[1]!r}; a class must not be in two places: join or rename them'
      )


def check_disjoint(table: Table, split: Sequence[str | None]) -> None:
  """Refuse two classes in different splits that hold the same images.

  Args:
    table: a `Table`.
    split: train, valid, test, or None or 'none' (not used) for each class.

  Raises:
    BadInput: with the names of the two classes.
  """
  same_start: dict[
    bytes, list[int]
  ] = {}  # bytes of the first image -> classes that start with it
  for index, block in enumerate(table.blocks):
    # The first image tells most classes apart; skip classes where it is blank.
    if split[index] in (None, UNUSED) or np.ptp(block[0]) == 0:
      continue
    others = same_start.setdefault(block[0].tobytes(), [])
    for other in others:
      if split[other] != split[index] and np.array_equal(
        table.blocks[other], block
      ):
        raise BadInput(
          f'{table.where}: class {other} ({table.class_names[other]!r}, '
          f'{split[other]}) and class {index} ({table.class_names[index]!r}, '
          f'{split[index]}) hold the same images; remove one'
        )
    others.append(index)
