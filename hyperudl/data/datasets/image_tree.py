"""Finds the class folders of an image set, and says what it passes over."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import errno
import os
import re
import stat
from typing import NamedTuple

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_file
from hyperudl.storage import filesystem

# Folders that systems and programs put beside images, in lower case.
_JUNK = (
  *('__macosx', '__pycache__', '@eadir', '@recycle', '#recycle', '#snapshot'),
  *('$recycle.bin', 'system volume information', 'lost+found'),
  *('thumbnails', 'thumbs'),
)
_DEEPEST = 3  # <split>/<alphabet>/<class>
_EXPECTED = (
  'expected <class>/<image>, <alphabet>/<class>/<image>, or these under train, '
  'valid and test'
)
_MOST_KINDS = 5  # of passed over files that are told


class ImageClass(NamedTuple):
  """A class folder."""

  split: str  # train, valid, test, or '' where the tree has no splits
  alphabet: str  # or ''
  name: str
  paths: list[str]  # of its images, sorted as text


class _Folder(NamedTuple):
  path: str
  parts: tuple[str, ...]  # of its path below the root
  folders: list[str]  # names
  images: list[str]  # paths


def natural_key(name: str) -> tuple:
  """Return a key that sorts class 2 before class 10."""
  parts = re.split(r'(\d+)', name)
  # Every second part is a number, so numbers are compared with numbers.
  return (*(int(p) if i % 2 else p for i, p in enumerate(parts)), name)


def find(folder: str) -> tuple[list[ImageClass], tuple[str, ...]]:
  """Find the class folders in a folder; symbolic links are followed.

  Args:
    folder: has `<class>/*.png`, `<alphabet>/<class>/*.png`, or either of them
      under folders of splits, whose names `class_table.to_split` knows. Images
      may have any of `image_file.endings()`.

  Returns:
    (the classes in the natural order of their names, lines about what was
    passed over: files with other endings, hidden ones and thumbnails).

  Raises:
    BadInput: a folder that may not be listed, a link that leads back, images at
      another level, or splits that can be understood in two ways.
  """
  skipped: dict[str, list[str]] = {}
  found = list(_walk(folder, (), (), skipped))
  notes = _describe(folder, skipped)
  lists = skipped.get('.csv', ())
  hint = f'; {lists[0]} is not read: sort images by class' if lists else ''
  classes = [entry for item in found if (entry := _to_class(item, hint))]
  if not classes:
    raise BadInput(
      f'{folder}: no class folders with images in it, {_EXPECTED}{hint}'
      + ''.join(f' ({note})' for note in notes)
    )
  _check_levels(classes)
  _check_split_names(folder, found, classes)
  return classes, notes


def find_images(folder: str) -> tuple[list[str], tuple[str, ...]]:
  """Find all images below a folder, at any level; links are followed.

  Returns:
    (paths, folder by folder in natural order, lines about what was passed
    over).

  Raises:
    BadInput: a folder that may not be listed, or a link that leads back.
  """
  skipped: dict[str, list[str]] = {}
  found = _walk(folder, (), (), skipped, deepest=100)
  paths = [path for item in found for path in item.images]
  return paths, _describe(folder, skipped)


def _walk(path, parts, parents, skipped, deepest=_DEEPEST) -> Iterator[_Folder]:
  """Yield a folder and those in it, and add to `skipped` {kind: paths}."""
  with _listing(path):
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    if identity in parents:
      raise BadInput(
        f'{path}: this link leads back to a folder that holds it; remove it'
      )
    here = _Folder(path, parts, [], [])
    for name in sorted(os.listdir(path)):
      inside = os.path.join(path, name)
      is_folder = name[0] != '.' and _is_folder(inside)
      if name[0] == '.' or (is_folder and name.lower() in _JUNK):
        kind = 'hidden' if name[0] == '.' else f'{name}/'
        skipped.setdefault(kind, []).append(inside)
      elif is_folder:
        here.folders.append(name)
      elif name.lower().endswith(image_file.endings()):
        here.images.append(inside)
      else:
        kind = os.path.splitext(name)[1].lower() or 'without an ending'
        skipped.setdefault(kind, []).append(inside)
  if len(parts) > deepest:
    raise BadInput(f'{path}: a folder at an unexpected level; {_EXPECTED}')
  yield here
  for name in sorted(here.folders, key=natural_key):
    below = (*parts, name)
    inside = os.path.join(path, name)
    yield from _walk(inside, below, (*parents, identity), skipped, deepest)


def _is_folder(path):
  """Return whether a path, or what it links to, is a folder."""
  try:
    return stat.S_ISDIR(os.stat(path).st_mode)
  except OSError as error:
    if error.errno not in (errno.ENOENT, errno.ELOOP):
      raise
    raise BadInput(f'{path}: this link leads nowhere; remove it') from None


@contextlib.contextmanager
def _listing(path):
  try:
    yield
  except OSError as error:
    raise BadInput(
      f'{path}: may not be listed ({filesystem.reason(error)}); change its '
      'permissions, or remove it'
    ) from None


def _to_class(folder: _Folder, hint: str) -> ImageClass | None:
  """Return the class of a folder; None if it only holds others."""
  path, parts, folders, images = folder
  if not folders and not images and parts:
    endings = ', '.join(image_file.endings())
    raise BadInput(
      f'{path}: class folder with 0 images; remove it or add images ({endings})'
      + hint
    )
  if not images:
    return None
  split = class_table.to_split(parts[0]) if len(parts) > 1 else ''
  below = parts[1:] if split else parts
  if not parts or folders or len(below) > 2:
    raise BadInput(f'{path}: images at an unexpected level; {_EXPECTED}{hint}')
  return ImageClass(split, below[0] if below[1:] else '', below[-1], images)


def _check_levels(classes: Sequence[ImageClass]):
  """Refuse classes of which only some are below a split or an alphabet."""
  for field, level in (
    ('split', 'train, valid or test'),
    ('alphabet', 'an alphabet folder'),
  ):
    without = [entry for entry in classes if not getattr(entry, field)]
    if without and len(without) < len(classes):
      raise BadInput(
        f'{os.path.dirname(without[0].paths[0])}: not under {level} as the '
        'other classes are; move it'
      )


def _check_split_names(folder, found, classes):
  """Refuse trees whose splits can be understood in two ways."""
  named: dict[str, str] = {}
  for split, name in (
    (class_table.to_split(name), name) for name in found[0].folders
  ):
    if classes[0].split and split and named.setdefault(split, name) != name:
      raise BadInput(
        f'{folder}: {named[split]!r} and {name!r} both name the split {split}; '
        'join them, or rename one of them'
      )
  groups: dict[str, list[str]] = {}
  for entry in classes:
    groups.setdefault(f'{entry.split}/{entry.alphabet}', []).append(entry.name)
  for names in groups.values():
    if len(names) > 1 and all(map(class_table.to_split, names)):
      raise BadInput(
        f'{folder}: the class folders are named like splits '
        f'({", ".join(names)}); expected train/<class>/<image>'
      )


def _describe(folder, skipped):
  """Return one line about what was passed over, or none."""
  if not skipped:
    return ()
  kinds = sorted(skipped.items(), key=lambda item: (-len(item[1]), item[0]))
  told = [
    f'{len(paths)} {kind} (such as {os.path.relpath(paths[0], folder)})'
    for kind, paths in kinds[:_MOST_KINDS]
  ]
  others = len(kinds) - len(told)
  told += [f'{others} other kinds'] * bool(others)
  plugin = any(kind in image_file.HEIF_ENDINGS for kind in skipped)
  hint = '; pip install pillow-heif, and HEIC files are read' * plugin
  total = sum(map(len, skipped.values()))
  return (f'{folder}: passed over {total} entries: {", ".join(told)}{hint}',)
