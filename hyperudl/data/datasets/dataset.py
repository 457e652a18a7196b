"""Loads sets of images, or of features, grouped by class."""

from typing import NamedTuple

from absl import logging
import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import partition
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import splits
from hyperudl.data.datasets.stored_split import StoredSplit

SPLITS = (*class_table.SPLITS, 'all')
SPLIT_BY = ('auto', 'alphabet', 'class', 'image')


class Dataset(NamedTuple):
  """One split of a set.

  The images of class c are the rows `starts[c] : starts[c] + counts[c]`.
  """

  # uint8[n, H, W, C], or features f32[n, D]; an array or a read-only memmap.
  images: np.ndarray
  starts: np.ndarray  # i64[classes]
  counts: np.ndarray  # i64[classes]
  class_names: tuple[str, ...]
  alphabets: tuple[str, ...] | None


def load(
  name: str,
  split: str,
  dir: str,
  *,
  image_size: int = 0,
  classes: int | str = 0,
  shuffle: int = 0,
  split_by: str = 'auto',
  seed: int = 0,
  stored: StoredSplit | None = None,
) -> Dataset:
  """Load one split of a set, checked, as uint8 images or float32 features.

  Args:
    name: of a set that `resolve.read` knows, built-in or in `dir`.
    split: 'train', 'valid', 'test' or 'all'.
    dir: folder of the sets.
    image_size: pixels per side after antialiased resizing; 0 keeps the size.
    classes: number of classes (0: all), the first of a seeded shuffle, so that
      smaller sets are subsets of larger ones; or ranges of class numbers, see
      `splits.by_ranges`.
    shuffle: seed of the shuffle that numbers classes for ranges, or 0.
    split_by: 'auto' uses the set's own split; without one, a seeded shuffle of
      the alphabets, else of the classes (64% train, 16% valid, 20% test).
      'alphabet' and 'class' shuffle even if the set has a split. 'image' puts
      every class in all splits and distributes its images.
    seed: seed of the shuffles.
    stored: the classes of each split of the run that goes on, or None.

  Returns:
    A `Dataset`; a memmap for big uncompressed files in which the classes of the
    split are contiguous. Images of which copies are in several splits are in
    one of them only, with a warning (but for memory-mapped sets).

  Raises:
    BadInput: unknown set, faulty data or impossible split.
  """
  check_arguments(split, image_size, classes, split_by)
  table = resolve.read(name, dir, image_size)
  ranges = '' if splits.is_count(classes) else str(classes)
  count = 0 if ranges else int(classes or 0)
  options = partition.Options(ranges, shuffle, split_by, seed, stored)
  notes, division = table.notes, None
  if split != 'all':
    division = partition.divide(table, options)
    notes += division.notes
  for note in notes:
    logging.warning('%s', note)
  return take(table, division, split, count, image_size, seed)


def take(
  table: class_table.Table,
  division: partition.Division | None,
  split: str,
  count: int,
  image_size: int,
  seed: int = 0,
) -> Dataset:
  """Return one split of a table, or all of it.

  Args:
    table: all classes.
    division: of `partition.divide`; None for the split 'all'.
    split: train, valid, test or all.
    count: number of classes; 0 for all.
    image_size: pixels per side; 0 keeps the size.
    seed: of the choice of classes.

  Raises:
    BadInput: the split has no classes, or fewer than `count`.
  """
  part = division.parts[split] if division else partition.everything(table)
  if not part.indices:
    raise BadInput(describe_empty(table, split, division))
  part = partition.limit(table, split, part, count, seed)
  return select(table, part, image_size)


def select(
  table: class_table.Table, part: partition.Part, image_size: int = 0
) -> Dataset:
  """Return the part of a table as a `Dataset`, resized if a size is given.

  Raises:
    BadInput: a size for features, which have none.
  """
  if image_size and class_table.is_features(table.blocks[0]):
    raise BadInput(
      f'data.image_size={image_size}, but {table.where} has features, not '
      'images: set it to 0'
    )
  blocks = [
    table.blocks[index] if rows is None else table.blocks[index][rows]
    for index, rows in zip(part.indices, part.rows)
  ]
  if any(rows is not None for rows in part.rows):
    images = np.concatenate(blocks)
  else:
    images = _gather(table, part.indices, blocks)
  if image_size:
    images = image_folder.resize(images, image_size)
  return _make(table, part, images, [len(block) for block in blocks])


def outline(
  table: class_table.Table, part: partition.Part, image_size: int = 0
) -> Dataset:
  """Return a `Dataset` like that of `select`, but with zeros for images.

  It takes no memory: enough to check whether episodes can be drawn from it.
  """
  sizes = [
    len(table.blocks[index] if rows is None else rows)
    for index, rows in zip(part.indices, part.rows)
  ]
  first = table.blocks[0]
  shape = first.shape[1:]
  if image_size:
    shape = (image_size, image_size, *shape[2:])
  images = np.broadcast_to(first.dtype.type(0), (sum(sizes), *shape))
  return _make(table, part, images, sizes)


def _make(table, part, images, sizes):
  counts = np.array(sizes, np.int64)
  of_part = lambda values: values and tuple(values[i] for i in part.indices)
  names, alphabets = map(of_part, (table.class_names, table.alphabets))
  return Dataset(images, np.cumsum(counts) - counts, counts, names, alphabets)


def check_arguments(
  split: str, image_size: int, classes: int | str, split_by: str
) -> None:
  """Raise BadInput for arguments of `load` that are out of range."""
  for field, value, choices in (
    ('split', split, SPLITS),
    ('data.split_by', split_by, SPLIT_BY),
  ):
    if value not in choices:
      raise BadInput(f'{field}={value!r}; expected one of {", ".join(choices)}')
  for field, value in (('image_size', image_size), ('classes', classes)):
    if isinstance(value, int) and value < 0:
      raise BadInput(f'data.{field}={value}; expected 0 or more')


def describe_empty(
  table: class_table.Table, split: str, division: partition.Division
) -> str:
  """Return the message about a split without classes."""
  sizes = {s: len(part.indices) for s, part in division.parts.items()}
  available = {s: size for s, size in sizes.items() if size}
  return f'{table.where}: no class in split {split}; it has {available}'


def _gather(table, chosen, blocks):
  # Contiguous classes stay a view of their array, so a memmap stays on disk.
  if table.base is not None and chosen[-1] - chosen[0] + 1 == len(chosen):
    start = sum(len(block) for block in table.blocks[: chosen[0]])
    return table.base[start : start + sum(map(len, blocks))]
  return np.concatenate(blocks)
