"""Remembers which classes of a set a run was trained and tested on."""

from collections.abc import Mapping
from typing import NamedTuple

from hyperudl.core import BadInput

_MOST = 5  # differences that a message names


class StoredSplit(NamedTuple):
  """The classes of each split, by their labels (see `class_table.labels`)."""

  # By train, valid, test and none; or by 'image' alone, where every class is
  # in all splits.
  classes: Mapping[str, tuple[str, ...]]
  images: Mapping[str, int] = {}  # of each class, where they are divided
  added: tuple[str, ...] = ()  # those that were put into test later
  allow_new: bool = False  # put classes that are not stored into test

  @property
  def split_of(self) -> dict[str, str]:
    """Return {label: split}."""
    return {
      label: split for split, labels in self.classes.items() for label in labels
    }


def check(stored: StoredSplit, now: StoredSplit, where: str) -> StoredSplit:
  """Compare the classes that a set has now with those of a run.

  Args:
    stored: of the run.
    now: of the set, as it would be divided without the run.
    where: its file or folder, for the message.

  Returns:
    The split to use: the stored one, with new classes in test if
    `stored.allow_new` is set.

  Raises:
    BadInput: naming the differences.
  """
  before, after = stored.split_of, now.split_of
  new = [label for label in after if label not in before]
  lost = [f'{label!r} is missing' for label in before if label not in after]
  lost += [
    f'{label!r} has {now.images[label]} images, not {number}'
    for label, number in stored.images.items()
    if now.images.get(label, number) != number
  ]
  moved = [
    f'{label!r} goes from {split} to {after[label]}'
    for label, split in before.items()
    if after.get(label, split) != split
  ]
  # New classes change how the others would be divided.
  may_move = stored.added or (new and stored.allow_new)
  if not lost and (stored.allow_new or not new) and (may_move or not moved):
    test = (*stored.classes.get('test', ()), *new)
    classes = {**stored.classes, 'test': test} if new else stored.classes
    added = (*stored.added, *new)
    return StoredSplit(classes, now.images, added, stored.allow_new)
  told = [f'{label!r} is new' for label in new][:_MOST] + lost[:_MOST]
  told += moved[:_MOST]
  more = len(new) + len(lost) + len(moved) - len(told)
  told += [f'{more} more'] * bool(more)
  remedy = (
    ''
    if lost or not new
    else (', or give --allow_new_classes, which puts new classes into test')
  )
  raise BadInput(
    f'{where}: its classes are not those that the run was made with '
    f'({"; ".join(told)}), so images trained on could be tested on: restore '
    f'the set{remedy}'
  )


def to_dict(stored: StoredSplit) -> dict:
  """Return what `from_dict` reads; it fits in JSON."""
  classes = {split: list(labels) for split, labels in stored.classes.items()}
  return {
    'classes': classes,
    'images': dict(stored.images),
    'added': list(stored.added),
  }


def from_dict(values: dict, allow_new: bool = False) -> StoredSplit:
  """Return what `to_dict` wrote.

  Raises:
    ValueError: it is something else.
  """
  try:
    classes = {
      str(split): tuple(map(str, labels))
      for split, labels in values['classes'].items()
    }
    images = {str(k): int(v) for k, v in values['images'].items()}
    added = tuple(map(str, values['added']))
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f'no stored split: {error}') from error
  return StoredSplit(classes, images, added, allow_new)
