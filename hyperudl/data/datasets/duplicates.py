"""Finds images that occur more than once in a set, by their pixels."""

import collections
from collections.abc import Collection
from collections.abc import Sequence
import hashlib

import numpy as np

from hyperudl.data.datasets import npy

# Of several splits that have an image, the highest keeps it.
_RANKS = {'train': 1, 'valid': 2, 'test': 3}


def first_copies(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Return for each image which image of the set has the same pixels first.

  Images of a single colour carry nothing and count as different.

  Args:
    blocks: uint8[n_c, H, W, C], one per class.

  Returns:
    i64[n_c] per class: numbers of images, counted over all classes.
  """
  first: dict[bytes, int] = {}
  result, number = [], 0
  for block in blocks:
    rows = np.empty(len(block), np.int64)
    flat = np.ascontiguousarray(block).reshape(len(block), -1)
    blank = (flat == flat[:, :1]).all(axis=1)
    for row, pixels in enumerate(flat):
      rows[row] = number
      if not blank[row]:
        digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
        rows[row] = first.setdefault(digest, number)
      number += 1
    result.append(rows)
  return result


def is_quick(blocks: Sequence[np.ndarray]) -> bool:
  """Return whether a set is in memory, and not mapped from a large file."""
  return sum(block.nbytes for block in blocks) < npy.MAP_BYTES


def count(copies: Sequence[np.ndarray]) -> int:
  """Return how many images repeat an earlier one, from `first_copies`."""
  together = np.concatenate(list(copies))
  return len(together) - len(np.unique(together))


def keep_on_one_side(
  copies: Sequence[np.ndarray],
  split_of_class: Sequence[str | None],
  late: Collection[int] = (),
) -> tuple[list[np.ndarray | None], int, list[int]]:
  """Decide which images to leave out so that no two splits share one.

  An image stays in test if it is there, else in valid. A class that shares more
  than half of its images, or of theirs, with a class of another split shows the
  same things, and is left out as a whole.

  Args:
    copies: from `first_copies`.
    split_of_class: train, valid, test, or anything else for unused classes.
    late: classes that came after training and keep none of its images.

  Returns:
    (the rows of each class to keep, None for all; the number of images left
    out; the classes left out as a whole).
  """
  ranks = [_RANKS.get(split or '', -1) for split in split_of_class]
  ranks = [0 if index in late else rank for index, rank in enumerate(ranks)]
  shared, leave = _compare(copies, ranks)
  sizes = [len(numbers) for numbers in copies]
  dropped = sorted(
    {
      index
      for (index, other), count in shared.items()
      if 2 * count > min(sizes[index], sizes[other])
    }
  )
  rows: list[np.ndarray | None] = [None] * len(copies)
  left_out = 0
  for index, numbers in leave.items():
    keep = [
      row
      for row, number in enumerate(copies[index].tolist())
      if number not in numbers and index not in dropped
    ]
    rows[index] = np.array(keep, np.int64)
    left_out += sizes[index] - len(keep)
  return rows, left_out, dropped


def _compare(copies, ranks):
  """Compare classes with those of splits of higher rank.

  Returns:
    ({(class, other class of higher rank): number of images that both have},
    {class: images that a class of higher rank has too}).
  """
  owners: dict[int, set[int]] = collections.defaultdict(set)
  for index, numbers in enumerate(copies):
    if ranks[index] >= 0:
      for number in numbers.tolist():
        owners[number].add(index)
  shared: collections.Counter = collections.Counter()
  leave: dict[int, set[int]] = collections.defaultdict(set)
  for number, classes in owners.items():
    for index in classes:
      above = [other for other in classes if ranks[other] > ranks[index]]
      shared.update((index, other) for other in above)
      if above:
        leave[index].add(number)
  return shared, leave
