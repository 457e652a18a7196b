"""Loads image sets as uint8 pixels grouped by class."""

from typing import NamedTuple

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder as image_files
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
  name,
  split,
  dir,
  *,
  image_size=0,
  classes=0,
  shuffle=0,
  split_by='auto',
  seed=0,
):
  """Loads one split of a set, checked and as uint8.

  Args:
    name: str, `glyphs` or a set in `dir` in one of the forms of
      `formats.read`.
    split: 'train', 'valid', 'test' or 'all'.
    dir: str, the folder of the sets.
    image_size: int, pixels per side after antialiased resizing; 0 keeps the
      size of the set.
    classes: int, keep so many classes of the split: the first of a seeded
      shuffle, so that fewer are always some of more; 0 keeps all. They stay
      in the order of the set. Or ranges of classes, see `splits.by_ranges`.
    shuffle: int, seed of the numbers that ranges count by, 0 for the order of
      the set.
    split_by: 'auto' takes the split that the set brings, else whole alphabets,
      else classes, dealt by a seeded shuffle (64% train, 16% valid, 20% test);
      'alphabet' and 'class' deal them whatever the set brings; 'image' keeps
      every class in every split and deals the images of each class.
    seed: int, of the shuffles.

  Returns:
    A `Dataset`. Big uncompressed files stay on disk as a memmap when the
    classes of the split lie side by side in them.

  Raises:
    BadInput: an unknown set, a fault in its data or an impossible split.
  """
  _check_arguments(split, image_size, classes, split_by)
  data = resolve.read(name, dir, image_size)
  kept = _choose(data, split, split_by, classes, shuffle, seed)
  if split_by == 'image' and split != 'all':
    blocks = [_image_block(data, index, split, seed) for index in kept]
    images = np.concatenate(blocks)
  else:
    blocks = [data.blocks[index] for index in kept]
    images = _gather(data, kept)
  if image_size:
    images = image_files.resize(images, image_size)
  counts = np.array([len(block) for block in blocks], np.int64)
  return Dataset(
    images,
    np.cumsum(counts) - counts,
    counts,
    tuple(data.class_names[index] for index in kept),
    data.alphabets and tuple(data.alphabets[index] for index in kept),
  )


def _choose(data, split, split_by, classes, shuffle, seed):
  # -> the indices of the classes to load
  kept = list(range(len(data.blocks)))
  ranges = '' if splits.is_count(classes) else str(classes)
  classes = 0 if ranges else int(classes or 0)
  if ranges and split_by == 'image':
    raise BadInput(
      f'data.classes={ranges!r} deals classes to the splits and data.split_by='
      "'image' the images of each class: choose one of them"
    )
  if split != 'all' and split_by != 'image':
    of_class = splits.of_classes(data, split_by, seed)
    if ranges:
      of_class = splits.by_ranges(ranges, of_class, shuffle, data.where)
    class_table.check_disjoint(data, of_class)
    kept = [index for index in kept if of_class[index] == split]
    if not kept:
      there = {
        s: of_class.count(s) for s in class_table.SPLITS if s in of_class
      }
      raise BadInput(f'{data.where}: no class in split {split}; it has {there}')
  if classes > len(kept):
    raise BadInput(
      f'data.classes={classes}, but split {split} of {data.where} has only '
      f'{len(kept)} classes'
    )
  return splits.sample(kept, classes, seed) if classes else kept


def _check_arguments(split, image_size, classes, split_by):
  if split not in SPLITS:
    raise BadInput(f'split {split!r}; expected one of {", ".join(SPLITS)}')
  if split_by not in SPLIT_BY:
    raise BadInput(
      f'data.split_by={split_by!r}; expected one of {", ".join(SPLIT_BY)}'
    )
  for field, value in (('image_size', image_size), ('classes', classes)):
    if isinstance(value, int) and value < 0:
      raise BadInput(f'data.{field}={value}; expected 0 or more')


def _gather(data, kept):
  # Neighbours in one array stay a view of it, so that a memmap stays on disk.
  first, last = kept[0], kept[-1]
  if data.base is not None and last - first + 1 == len(kept):
    start = sum(len(block) for block in data.blocks[:first])
    size = sum(len(data.blocks[index]) for index in kept)
    return data.base[start : start + size]
  return np.concatenate([data.blocks[index] for index in kept])


def _image_block(data, index, split, seed):
  block = data.blocks[index]
  where = f'{data.where}: class {index} ({data.class_names[index]!r})'
  return block[splits.of_images(len(block), split, f'{seed} {index}', where)]
