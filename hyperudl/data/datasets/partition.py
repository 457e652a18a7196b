"""Divides the classes and images of a set into train, valid and test."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import duplicates
from hyperudl.data.datasets import splits
from hyperudl.data.datasets import stored_split
from hyperudl.data.datasets.stored_split import StoredSplit


class Options(NamedTuple):
  """How a set is divided; see `dataset.load`."""

  ranges: str = ''  # of class numbers, see `splits.by_ranges`
  shuffle: int = 0
  split_by: str = 'auto'
  seed: int = 0
  stored: StoredSplit | None = None  # of the run that goes on


class Part(NamedTuple):
  """Classes of a table, and which images of each."""

  indices: list[int]
  rows: list[np.ndarray | None]  # None: all images of the class


class Division(NamedTuple):
  """The three splits of a set."""

  parts: dict[str, Part]  # of train, valid and test
  classes: StoredSplit  # what a run stores
  notes: tuple[str, ...]  # for the user


def divide(table: class_table.Table, options: Options) -> Division:
  """Divide a set as the options say.

  Images that occur in several splits stay in one of them; `notes` count them.

  Args:
    table: all classes.
    options: how to divide them.

  Raises:
    BadInput: a division that is impossible, or that differs from the stored
      one.
  """
  by_image = options.split_by == 'image'
  if options.ranges and by_image:
    raise BadInput(
      f'data.classes={options.ranges!r} assigns classes to the splits and '
      "data.split_by='image' the images of each class: choose one of them"
    )
  quick = duplicates.is_quick(table.blocks)
  copies = duplicates.first_copies(table.blocks) if quick else None
  return (_by_image if by_image else _by_class)(table, options, copies)


def everything(table: class_table.Table) -> Part:
  """Return all classes and images."""
  indices = list(range(len(table.blocks)))
  return Part(indices, [None] * len(indices))


def limit(
  table: class_table.Table, split: str, part: Part, count: int, seed: int
) -> Part:
  """Return `count` classes of a part, chosen by a seed; 0 for all.

  Raises:
    BadInput: it has fewer.
  """
  if not count:
    return part
  if count > len(part.indices):
    raise BadInput(
      f'data.classes={count}, but split {split} of {table.where} has only '
      f'{len(part.indices)} classes'
    )
  # Its classes themselves are shuffled, and looked up afterwards.
  place = {index: place for place, index in enumerate(part.indices)}
  taken = [place[index] for index in splits.sample(part.indices, count, seed)]
  return Part(*([values[i] for i in taken] for values in part))


def _by_class(table, options, copies):
  split: Sequence[str | None]
  split = splits.of_classes(table, options.split_by, options.seed)
  if options.ranges:
    split = splits.by_ranges(
      options.ranges, split, options.shuffle, table.where
    )
  labels = class_table.labels(table)
  names: dict[str, list[str]] = {
    name: [] for name in (*class_table.SPLITS, class_table.UNUSED)
  }
  for label, name in zip(labels, split):
    names[name or class_table.UNUSED].append(label)
  classes = StoredSplit({name: tuple(found) for name, found in names.items()})
  if options.stored:
    classes = stored_split.check(options.stored, classes, table.where)
    split_of = classes.split_of
    split = [split_of[label] for label in labels]
  class_table.check_disjoint(table, split)
  rows: list[np.ndarray | None] = [None] * len(split)
  notes = ()
  if copies is not None:
    late = [i for i, label in enumerate(labels) if label in classes.added]
    rows, left_out, dropped = duplicates.keep_on_one_side(copies, split, late)
    notes = _describe(table, left_out, dropped, split)
    split = [None if i in dropped else name for i, name in enumerate(split)]
  parts = {}
  for name in class_table.SPLITS:
    indices = [index for index, of in enumerate(split) if of == name]
    parts[name] = Part(indices, [rows[index] for index in indices])
  return Division(parts, classes, notes)


def _describe(table, left_out, dropped, split):
  if not left_out:
    return ()
  classes = [f'{table.class_names[i]!r} ({split[i]})' for i in dropped]
  whole = f', with them all of {", ".join(classes)}' if classes else ''
  return (
    f'{table.where}: {left_out} images occur in several splits too; they stay '
    f'in one of them and are left out of the others{whole}',
  )


def _by_image(table, options, copies):
  labels = class_table.labels(table)
  sizes = [len(block) for block in table.blocks]
  classes = StoredSplit({'image': labels}, dict(zip(labels, sizes)))
  if options.stored:
    classes = stored_split.check(options.stored, classes, table.where)
  known = {label: i for i, label in enumerate(classes.classes['image'])}
  if copies is None:
    ends = np.cumsum(sizes)
    copies = [np.arange(end - size, end) for end, size in zip(ends, sizes)]
  assigned: dict[int, str] = {}  # image -> the split that its copies share
  # Classes that came after training are only in test, and decide nothing.
  for index in sorted(range(len(labels)), key=lambda i: labels[i] not in known):
    where = f'{table.where}: class {index} ({table.class_names[index]!r})'
    split = ['test'] * sizes[index]
    if labels[index] in known:
      seed = f'{options.seed} {known[labels[index]]}'
      split = splits.of_images(copies[index].tolist(), seed, where)
    for number, name in zip(copies[index].tolist(), split):
      assigned.setdefault(number, name)
  parts = {}
  for name in class_table.SPLITS:
    rows = [
      [row for row, n in enumerate(numbers.tolist()) if assigned[n] == name]
      for numbers in copies
    ]
    indices = [index for index, found in enumerate(rows) if found]
    parts[name] = Part(indices, [np.array(rows[index]) for index in indices])
  repeated = duplicates.count(copies)
  note = (
    f'{table.where}: {repeated} images are copies of others; the copies of an '
    'image stay in one split'
  )
  return Division(parts, classes, (note,) * bool(repeated))
