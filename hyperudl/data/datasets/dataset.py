"""Loads image sets as uint8 pixels grouped by class."""

from typing import NamedTuple

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import splits

SPLITS = (*class_table.SPLITS, 'all')
SPLIT_BY = ('auto', 'alphabet', 'class', 'image')


class Dataset(NamedTuple):
  """One split of a set.

  The images of class c are the rows `starts[c] : starts[c] + counts[c]`.
  """

  images: np.ndarray  # uint8[n, H, W, C], an array or a read-only memmap
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
) -> Dataset:
  """Load one split of a set, checked and as uint8.

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

  Returns:
    A `Dataset`; a memmap for big uncompressed files in which the classes of the
    split are contiguous.

  Raises:
    BadInput: unknown set, faulty data or impossible split.
  """
  _check_arguments(split, image_size, classes, split_by)
  table = resolve.read(name, dir, image_size)
  chosen = _choose(table, split, split_by, classes, shuffle, seed)
  blocks = [table.blocks[index] for index in chosen]
  if split_by == 'image' and split != 'all':
    blocks = [_image_block(table, index, split, seed) for index in chosen]
    images = np.concatenate(blocks)
  else:
    images = _gather(table, chosen, blocks)
  if image_size:
    images = image_folder.resize(images, image_size)
  counts = np.array([len(block) for block in blocks], np.int64)
  of_chosen = lambda values: values and tuple(values[i] for i in chosen)
  names, alphabets = map(of_chosen, (table.class_names, table.alphabets))
  return Dataset(images, np.cumsum(counts) - counts, counts, names, alphabets)


def _check_arguments(split, image_size, classes, split_by):
  for field, value, choices in (
    ('split', split, SPLITS),
    ('data.split_by', split_by, SPLIT_BY),
  ):
    if value not in choices:
      raise BadInput(f'{field}={value!r}; expected one of {", ".join(choices)}')
  for field, value in (('image_size', image_size), ('classes', classes)):
    if isinstance(value, int) and value < 0:
      raise BadInput(f'data.{field}={value}; expected 0 or more')


def _choose(table, split, split_by, classes, shuffle, seed):
  """Return the indices of the classes to load."""
  chosen = list(range(len(table.blocks)))
  ranges = '' if splits.is_count(classes) else str(classes)
  count = 0 if ranges else int(classes or 0)
  if ranges and split_by == 'image':
    raise BadInput(
      f'data.classes={ranges!r} assigns classes to the splits and '
      "data.split_by='image' the images of each class: choose one of them"
    )
  if split != 'all' and split_by != 'image':
    split_of_class = splits.of_classes(table, split_by, seed)
    if ranges:
      split_of_class = splits.by_ranges(
        ranges, split_of_class, shuffle, table.where
      )
    class_table.check_disjoint(table, split_of_class)
    chosen = [index for index in chosen if split_of_class[index] == split]
    if not chosen:
      sizes = {s: split_of_class.count(s) for s in class_table.SPLITS}
      available = {s: size for s, size in sizes.items() if size}
      raise BadInput(
        f'{table.where}: no class in split {split}; it has {available}'
      )
  if count > len(chosen):
    raise BadInput(
      f'data.classes={count}, but split {split} of {table.where} has only '
      f'{len(chosen)} classes'
    )
  return splits.sample(chosen, count, seed) if count else chosen


def _gather(table, chosen, blocks):
  # Contiguous classes stay a view of their array, so a memmap stays on disk.
  if table.base is not None and chosen[-1] - chosen[0] + 1 == len(chosen):
    start = sum(len(block) for block in table.blocks[: chosen[0]])
    return table.base[start : start + sum(map(len, blocks))]
  return np.concatenate(blocks)


def _image_block(table, index, split, seed):
  block = table.blocks[index]
  where = f'{table.where}: class {index} ({table.class_names[index]!r})'
  return block[splits.of_images(len(block), split, f'{seed} {index}', where)]
