"""Assigns classes, or the images of each class, to train, valid and test."""

from collections.abc import Iterable
from collections.abc import Sequence
import pathlib
import random
import re
from typing import Any

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table

# Fractions of valid and test if a set has no split of its own; the rest is
# train (as in mini-ImageNet).
_FRACTIONS = (0.16, 0.2)
# The class ranges of HyperTransformer's training scripts: sizes of the three
# splits, and the seed of the preceding shuffle of the classes (0: none).
_PUBLISHED = {
  ('omniglot', 1623): ((1150, 50, 423), 2022),
  ('mini', 100): ((64, 16, 20), 0),
  ('tiered', 608): ((351, 97, 160), 0),
}
# A class or a range of classes: '7', '0-63' or '0-199:2'.
_RANGE = re.compile(r'(\d+)(?:-(\d+)(?::(0*[1-9]\d*))?)?')


def published(name: str, classes: int) -> tuple[str, ...] | None:
  """Return the published split of a well-known cache that holds pixels only.

  Args:
    name: name of the set.
    classes: number of its classes.

  Returns:
    train, valid or test per class in the order of the file; None for other
    sets.
  """
  if name.lower() == 'cub' and classes == 200:
    # CUB-200-2011 of Chen et al. 2019, arXiv:1904.04232: even classes train.
    return ('train', 'valid', 'train', 'test') * 50
  for (start, count), (sizes, seed) in _PUBLISHED.items():
    if name.lower().startswith(start) and classes == count:
      names = [s for s, n in zip(class_table.SPLITS, sizes) for _ in range(n)]
      split = dict(zip(_order(classes, seed), names))
      return tuple(split[index] for index in range(classes))
  return None


def _order(count, seed):
  """Return the numbers 0 .. count - 1, shuffled if the seed is not 0."""
  order = list(range(count))
  if seed:
    random.Random(seed).shuffle(order)
  return order


def from_file(path: str, table: class_table.Table) -> tuple[str, ...]:
  """Read a split from a text file.

  Args:
    path: text file. Each line is the name of an alphabet or class, a space, and
      train, valid, test or none (in none of these, but in 'all'). Empty lines
      and lines that start with # are skipped.
    table: the classes to split.

  Returns:
    train, valid, test or none per class; the line of a class takes precedence
    over that of its alphabet.

  Raises:
    BadInput: unreadable file, malformed line, or a class without a line.
  """
  with checks.reading(f'--split={path}', 'cannot be read', 'give UTF-8 text'):
    lines = pathlib.Path(path).read_text('utf-8').splitlines()
  listed = {}
  for number, line in enumerate(lines, 1):
    name, _, split = line.strip().rpartition(' ')
    if not line.strip() or line.startswith('#'):
      continue
    name = name.strip()
    known = (*class_table.SPLITS, class_table.UNUSED)
    if split not in known or not name or name in listed:
      raise BadInput(
        f'{path}:{number}: expected the name of an alphabet or class, once, '
        f'and one of {", ".join(known)}, not {line.strip()!r}'
      )
    listed[name] = split
  alphabets = table.alphabets or table.class_names
  for name, alphabet in zip(table.class_names, alphabets):
    if name not in listed and alphabet not in listed:
      raise BadInput(f'{path}: no line for the class {name!r} of {table.where}')
  return tuple(
    listed[name if name in listed else alphabet]
    for name, alphabet in zip(table.class_names, alphabets)
  )


def is_count(classes: str | int) -> bool:
  """Return whether `data.classes` is a number of classes: 64, '64', '' or 0."""
  return not str(classes).strip('0123456789')


def by_ranges(
  text: str, split_of_class: Sequence[str], shuffle: int, where: str
) -> tuple[str | None, ...]:
  """Split by ranges of class numbers, as HyperTransformer's flags do.

  Args:
    text: 'train/valid/test', each like '0-1149' or '1-10,20,30-40', inclusive,
      or '0-199:2' for every second one; or only one such list, of the classes
      to train on: valid and test are then as in `split_of_class`, without
      these classes.
    split_of_class: train, valid or test per class.
    shuffle: seed of a shuffle of all classes before they are numbered; 0 for
      none. The published Omniglot scripts use 2022.
    where: name of the set in error messages.

  Returns:
    train, valid, test or None (unused) per class.

  Raises:
    BadInput: a malformed range, or a class that does not exist or comes twice.
  """
  count = len(split_of_class)
  order = _order(count, shuffle)
  parts = text.split('/')
  if len(parts) not in (1, len(class_table.SPLITS)):
    raise BadInput(
      f'data.classes={text!r}: expected one list of ranges, to train on, or '
      "three for train/valid/test, like '0-63/64-79/80-99'"
    )
  dropped = ('train',) if len(parts) == 1 else class_table.SPLITS
  result = [None if split in dropped else split for split in split_of_class]
  taken = set()
  for split, part in zip(class_table.SPLITS, parts):
    for number in _numbers(part, text, count, where):
      if number in taken:
        raise BadInput(f'data.classes={text!r}: class {number} comes twice')
      taken.add(number)
      result[order[number]] = split
  return tuple(result)


def _numbers(part, text, count, where):
  """Return the class numbers of a list like '1-10,20'."""
  numbers = []
  for piece in part.split(','):
    match = _RANGE.fullmatch(piece.strip())
    if not match:
      raise BadInput(
        f'data.classes={text!r}: {piece!r} is no class or range of classes '
        "like '0-63' or '0-199:2'"
      )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last >= count:
      raise BadInput(
        f'data.classes={text!r}: {piece!r} must lie in 0-{count - 1}, the '
        f'classes of {where}'
      )
    numbers.extend(range(first, last + 1, int(match[3] or 1)))
  return numbers


def by_group(
  groups: Sequence[str],
  seed: int | str,
  fractions: tuple[float, float] = _FRACTIONS,
) -> tuple[str, ...]:
  """Distribute groups of classes over the splits by a seeded shuffle.

  Args:
    groups: name of the group of each class.
    seed: seed of the shuffle.
    fractions: fractions of the groups for (valid, test), rounded, at least one
      group each; 0 leaves a split empty.

  Returns:
    train, valid or test per class.
  """
  names = sorted(set(groups))
  random.Random(f'split {seed}').shuffle(names)
  valid, test = (max(1, round(f * len(names))) if f else 0 for f in fractions)
  split = dict.fromkeys(names, 'train')
  split.update(dict.fromkeys(names[:test], 'test'))
  split.update(dict.fromkeys(names[test : test + valid], 'valid'))
  return tuple(split[group] for group in groups)


def of_classes(
  table: class_table.Table, split_by: str, seed: int
) -> tuple[str, ...]:
  """Return the split of each class of a set.

  Args:
    table: the classes.
    split_by: 'auto' (the set's own split, else by alphabet, else by class),
      'alphabet' or 'class' (a seeded split even if the set has its own).
    seed: seed of the split.

  Returns:
    train, valid or test per class.

  Raises:
    BadInput: fewer than three classes, or alphabets to split by.
  """
  if split_by == 'auto' and table.split:
    return table.split
  alphabets = len(set(table.alphabets or ()))
  if split_by == 'alphabet' and alphabets < 3:
    raise BadInput(
      f'{table.where}: {alphabets} alphabets cannot be split in three; use '
      "data.split_by='class'"
    )
  count = len(table.blocks)
  if count < 3:
    raise BadInput(
      f'{table.where}: {count} classes cannot be split in three; use '
      "data.split_by='image' or split all"
    )
  if table.alphabets and split_by != 'class' and alphabets >= 3:
    return by_group(table.alphabets, seed)
  return _by_number(count, seed)


def _by_number(count, seed):
  return by_group([f'{index:08d}' for index in range(count)], seed)


def of_images(first_copies: Sequence[int], seed: Any, where: str) -> list[str]:
  """Return the split of each image of one class.

  Args:
    first_copies: for each image the number of the first one with the same
      pixels; images with one number stay together.
    seed: any value that identifies the class and the seed of the split.
    where: name of the class in error messages.

  Returns:
    train, valid or test per image, each at least once.

  Raises:
    BadInput: fewer than three different images.
  """
  numbers = list(first_copies)
  different = len(set(numbers))
  if different < 3:
    kind = 'different images' if different < len(numbers) else 'images'
    raise BadInput(
      f'{where}: {different} {kind} cannot be split in three; add images or '
      'remove the class'
    )
  # Named by its first image, so a class without copies is split by number.
  return list(by_group([f'{numbers.index(n):08d}' for n in numbers], seed))


def sample(indices: Iterable[int], count: int, seed: int) -> list[int]:
  """Return the first `count` of a seeded shuffle of indices, sorted."""
  shuffled = list(indices)
  random.Random(f'classes {seed}').shuffle(shuffled)
  return sorted(shuffled[:count])
