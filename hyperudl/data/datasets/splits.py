"""Which class, or which image of a class, belongs to train, valid and test."""

import random

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table

# Shares of valid and test where a set brings no split: 16% and 20%, the rest
# is train (the shares of mini-ImageNet).
_SHARES = (0.16, 0.2)
# The class ranges of HyperTransformer's training scripts: sizes of the three
# splits and the seed with which the classes are shuffled first (0: not).
_PUBLISHED = {
  ('omniglot', 1623): ((1150, 50, 423), 2022),
  ('mini', 100): ((64, 16, 20), 0),
  ('tiered', 608): ((351, 97, 160), 0),
}


def published(name, classes):
  """The split of the published caches, which hold pixels only.

  Args:
    name: str, the name of the set.
    classes: int, how many it has.

  Returns:
    Tuple of train, valid or test per class in the order of the file; None for
    other sets.
  """
  if name.lower() == 'cub' and classes == 200:
    # CUB-200-2011 of Chen et al. 2019, arXiv:1904.04232: even classes train.
    return ('train', 'valid', 'train', 'test') * 50
  for (start, count), (sizes, seed) in _PUBLISHED.items():
    if name.lower().startswith(start) and classes == count:
      order = list(range(classes))
      if seed:
        random.Random(seed).shuffle(order)
      names = [s for s, n in zip(class_table.SPLITS, sizes) for _ in range(n)]
      split = dict(zip(order, names))
      return tuple(split[index] for index in range(classes))
  return None


def from_file(path, data):
  """The split that a text file lists.

  Args:
    path: str; each line is the name of an alphabet or of a class, a space and
      train, valid, test, or none for what is to be in none of these (but in
      'all'). Empty lines and those that start with # are skipped.
    data: `table.Table` whose classes it deals.

  Returns:
    Tuple of train, valid, test or none per class; the line of a class wins over
    that of its alphabet.

  Raises:
    BadInput: not readable, an odd line, or a class that no line names.
  """
  try:
    with open(path, encoding='utf-8') as stream:
      lines = stream.read().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
    raise BadInput(f'--split={path}: {reason}') from None
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
  alphabets = data.alphabets or data.class_names
  split = [
    listed.get(name, listed.get(alphabet))
    for name, alphabet in zip(data.class_names, alphabets)
  ]
  if None in split:
    missing = data.class_names[split.index(None)]
    raise BadInput(f'{path}: no line for the class {missing!r} of {data.where}')
  return tuple(split)


def is_count(classes):
  """Whether `data.classes` is a number of classes: 64, '64', '' or 0."""
  return not str(classes).strip('0123456789')


def by_ranges(text, of_class, shuffle, where):
  """The split by ranges of class numbers, as HyperTransformer's flags have it.

  Args:
    text: 'train/valid/test', each like '0-1149' or '1-10,20,30-40', inclusive,
      or '0-199:2' for every second one;
      or one such list of classes to train on: valid and test are then as in
      `of_class`, without these.
    of_class: train, valid or test per class.
    shuffle: int, seed of a shuffle of all classes before they are numbered; 0
      for none. 2022 is that of the published Omniglot scripts.
    where: str, the set, for messages.

  Returns:
    Tuple of train, valid, test or None per class.

  Raises:
    BadInput: a malformed range, a class that is not there or comes twice.
  """
  count = len(of_class)
  order = list(range(count))
  if shuffle:
    random.Random(shuffle).shuffle(order)
  parts = text.split('/')
  if len(parts) not in (1, len(class_table.SPLITS)):
    raise BadInput(
      f'data.classes={text!r}: expected one list of ranges, to train on, or '
      "three for train/valid/test, like '0-63/64-79/80-99'"
    )
  found = [None if split == 'train' else split for split in of_class]
  if len(parts) > 1:
    found = [None] * count
  taken = set()
  for split, part in zip(class_table.SPLITS, parts):
    for number in _numbers(part, text, count, where):
      if number in taken:
        raise BadInput(f'data.classes={text!r}: class {number} comes twice')
      taken.add(number)
      found[order[number]] = split
  return tuple(found)


def _numbers(part, text, count, where):
  # -> class numbers of a list like '1-10,20'
  numbers = []
  for piece in part.split(','):
    reach, colon, step = piece.strip().partition(':')
    first, dash, last = reach.partition('-')
    if (
      not first.isdecimal()
      or (dash and not last.isdecimal())
      or (colon and (not dash or not step.strip('0') or not step.isdecimal()))
    ):
      raise BadInput(
        f'data.classes={text!r}: {piece!r} is no class or range of classes '
        "like '0-63' or '0-199:2'"
      )
    first, last = int(first), int(last or first)
    if last < first or last >= count:
      raise BadInput(
        f'data.classes={text!r}: {piece!r} must lie in 0-{count - 1}, the '
        f'classes of {where}'
      )
    numbers.extend(range(first, last + 1, int(step or 1)))
  return numbers


def by_group(groups, seed, shares=_SHARES):
  """Deals groups of classes to the splits by a seeded shuffle.

  Args:
    groups: one str per class; equal ones stay together.
    seed: int.
    shares: shares of all groups for (valid, test), rounded, at least one
      group each; a share of 0 leaves a split out.

  Returns:
    Tuple of train, valid or test per class.
  """
  names = sorted(set(groups))
  random.Random(f'split {seed}').shuffle(names)
  valid, test = (max(1, round(s * len(names))) if s else 0 for s in shares)
  split = dict.fromkeys(names, 'train')
  split.update(dict.fromkeys(names[:test], 'test'))
  split.update(dict.fromkeys(names[test : test + valid], 'valid'))
  return tuple(split[group] for group in groups)


def of_classes(data, split_by, seed):
  """The split of each class of a set.

  Args:
    data: a `table.Table`.
    split_by: 'auto' (the split of the set, else by alphabet, else by class),
      'alphabet' or 'class' (a seeded split whatever the set brings).
    seed: int.

  Returns:
    Tuple of train, valid or test per class.

  Raises:
    BadInput: too few classes or no alphabets to split by.
  """
  if split_by == 'auto' and data.split:
    return data.split
  alphabets = len(set(data.alphabets or ()))
  if split_by == 'alphabet' and alphabets < 3:
    raise BadInput(
      f'{data.where}: {alphabets} alphabets cannot be split in three; use '
      "data.split_by='class'"
    )
  if len(data.blocks) < 3:
    raise BadInput(
      f'{data.where}: {len(data.blocks)} classes cannot be split in three; use '
      "data.split_by='image' or split all"
    )
  if split_by != 'class' and alphabets >= 3:
    return by_group(data.alphabets, seed)
  numbers = [f'{index:08d}' for index in range(len(data.blocks))]
  return by_group(numbers, seed)


def of_images(count, split, seed, where):
  """The images of one class that belong to a split.

  Args:
    count: int, images of the class.
    split: train, valid or test.
    seed: anything that names the class and the seed of the split.
    where: str, the class as messages name it.

  Returns:
    Sorted list of indices; those of the three splits are disjoint and
    together are all images.

  Raises:
    BadInput: fewer than three images.
  """
  if count < 3:
    raise BadInput(
      f'{where}: {count} images cannot be split in three; add images or '
      'remove the class'
    )
  numbers = [f'{index:08d}' for index in range(count)]
  chosen = by_group(numbers, seed)
  return [index for index in range(count) if chosen[index] == split]


def sample(indices, count, seed):
  """The first `count` of a seeded shuffle of `indices`, in ascending order."""
  shuffled = list(indices)
  random.Random(f'classes {seed}').shuffle(shuffled)
  return sorted(shuffled[:count])
