"""Lists the image files of a folder or of a CSV file."""

from collections.abc import Iterator
import csv
import os
from typing import NamedTuple

from absl import logging

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import image_tree
from hyperudl.storage.filesystem import StrPath

_MAX_LIST = 1 << 27  # bytes of a CSV file


class Labelled(NamedTuple):
  """Image files and their classes, in an order that depends on names alone."""

  paths: list[str]
  labels: list[str]  # of each file
  classes: list[str]  # in natural order


def labelled(source: StrPath) -> Labelled:
  """List labelled images.

  Args:
    source: a folder of class folders, `<class>/*` or `<group>/<class>/*`, or a
      CSV file with the columns `path` and `label`, whose paths are relative to
      its folder.

  Raises:
    BadInput: there are none, or folders of splits in place of classes.
  """
  source = os.fspath(source)
  if os.path.isdir(source):
    found, notes = image_tree.find(source)
    for note in notes:
      logging.warning('%s', note)
    if found[0].split:
      raise BadInput(
        f'{source}: has folders of splits; name one of them, such as '
        f'{os.path.join(source, found[0].split)}'
      )
    pairs = [
      (path, '/'.join(filter(None, (entry.alphabet, entry.name))))
      for entry in found
      for path in entry.paths
    ]
  else:
    pairs = list(_rows(source, 'label'))
  by_class: dict[str, list[str]] = {}
  for path, label in pairs:
    by_class.setdefault(label, []).append(path)
  classes = sorted(by_class, key=image_tree.natural_key)
  files = [(path, c) for c in classes for path in sorted(by_class[c])]
  paths, labels = map(list, zip(*files))
  return Labelled(paths, labels, classes)


def unlabelled(source: StrPath) -> list[str]:
  """List images without labels, in the order of their paths.

  Args:
    source: a folder, whose subfolders are searched too, a CSV file with the
      column `path`, or one image.

  Raises:
    BadInput: there are none.
  """
  source = os.fspath(source)
  if os.path.isdir(source):
    paths, notes = image_tree.find_images(source)
    for note in notes:
      logging.warning('%s', note)
  elif source.lower().endswith('.csv'):
    paths = sorted(path for path, _ in _rows(source, 'path'))
  elif os.path.exists(source):
    paths = [source]
  else:
    raise BadInput(f'{source}: there is no such file or folder')
  if not paths:
    raise BadInput(f'{source}: no images in it')
  return paths


def _rows(source, column) -> Iterator[tuple[str, str]]:
  """Yield (path, value of a column) of each row of a CSV file."""
  if not source.lower().endswith('.csv') or not os.path.isfile(source):
    raise BadInput(
      f'{source}: expected a folder of class folders, or a .csv file with the '
      'columns path,label'
    )
  if os.path.getsize(source) > _MAX_LIST:
    raise BadInput(f'{source}: more than {_MAX_LIST} bytes; divide it')
  folder, count = os.path.dirname(source), 0
  with (
    checks.reading(source, 'not a CSV file in UTF-8', 'save it again'),
    open(source, encoding='utf-8-sig', newline='') as file,
  ):
    rows = csv.DictReader(file, strict=True)
    fields = rows.fieldnames or ()
    if 'path' not in fields or column not in fields:
      raise BadInput(
        f'{source}: its first line names the columns {", ".join(fields)[:80]}; '
        f'expected path and {column}'
      )
    for count, row in enumerate(rows, start=1):
      if not row['path'] or not row[column]:
        raise BadInput(f'{source}: row {count} has no path or no {column}')
      yield os.path.join(folder, row['path']), row[column]
  if not count:
    raise BadInput(f'{source}: no images in it')
