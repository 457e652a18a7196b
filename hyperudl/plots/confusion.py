"""Draws which classes `hyperudl classify` confuses."""

from collections.abc import Sequence
import csv
import os
import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import checks
from hyperudl.plots import figure as figures
from hyperudl.storage.filesystem import StrPath

_PREFIX = 'p:'  # of the columns of classes
_UNKNOWN = 'unknown'
_MOST = 60  # rows or columns of a figure


def draw(predictions: StrPath) -> Figure:
  """Draw how many images of each class were given which label.

  Args:
    predictions: file of `hyperudl classify` for queries in class folders.

  Raises:
    core.BadInput: it is no such file, or no folder has the name of a class.
  """
  counts, truths, labels = count(predictions)
  known = len(set(truths) & set(labels))
  correct = sum(counts[row, labels.index(truths[row])] for row in range(known))
  total = counts[:known].sum()
  side = 2.5 + 0.45 * np.array(counts.shape[::-1])
  figure, ((axes,),) = figures.make(size=tuple(np.maximum(side, 4)))
  axes.imshow(
    counts / counts.sum(axis=1, keepdims=True), 'Blues', vmin=0, vmax=1
  )
  for (row, column), value in np.ndenumerate(counts):
    if value:
      dark = value > counts[row].sum() / 2
      options = {'ha': 'center', 'va': 'center', 'fontsize': 8}
      axes.text(column, row, value, color='w' if dark else 'k', **options)
  axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
  axes.set_yticks(range(len(truths)), truths, fontsize=8)
  axes.set(xlabel='label', ylabel='folder')
  title = f'{100 * correct / total:.1f}% of {total} images correct'
  axes.set_title(title, fontsize=9)
  return figure


def count(
  predictions: StrPath,
) -> tuple[np.ndarray, Sequence[str], Sequence[str]]:
  """Return how many images of each folder have each label.

  Images that could not be read are left out.

  Args:
    predictions: file of `hyperudl classify`.

  Returns:
    (i64[folders, labels], folders: first those of the classes, labels: the
    classes, and 'unknown' if an image is).

  Raises:
    core.BadInput: as `draw`.
  """
  classes, rows = _read(predictions)
  pairs = [(_folder(row['path'], classes), _label(row)) for row in rows]
  folders = {folder for folder, _ in pairs}
  present = [name for name in classes if name in folders]
  if not present:
    raise core.BadInput(
      f'{predictions}: no image is in a folder of the name of a class '
      f'({", ".join(classes)[:80]}); classify images in class folders, so that '
      'their true classes are known'
    )
  truths = present + sorted(folders - set(classes))
  labels = list(classes)
  if any(label == _UNKNOWN for _, label in pairs) and _UNKNOWN not in labels:
    labels.append(_UNKNOWN)
  if max(len(truths), len(labels)) > _MOST:
    raise core.BadInput(
      f'{predictions}: {len(truths)} folders and {len(labels)} labels; at most '
      f'{_MOST} are drawn'
    )
  counts = np.zeros((len(truths), len(labels)), np.int64)
  for folder, label in pairs:
    counts[truths.index(folder), labels.index(label)] += 1
  return counts, truths, labels


def _read(path):
  """Return the classes and the rows without errors of a file of predictions."""
  if not os.path.isfile(path):
    raise core.BadInput(f'{path}: there is no such file; give predictions.csv')
  remedy = 'give the file that hyperudl classify --out has written'
  with (
    checks.reading(str(path), 'no predictions', remedy),
    open(path, encoding='utf-8', newline='') as file,
  ):
    reader = csv.DictReader(file, strict=True)
    fields = reader.fieldnames or ()
    classes = [f[len(_PREFIX) :] for f in fields if f.startswith(_PREFIX)]
    if not classes or not {'path', 'label', 'unknown', 'error'} <= set(fields):
      raise ValueError('its columns are others')
    rows = [row for row in reader if not row['error']]
    if any(row['label'] not in classes for row in rows):
      raise ValueError('a label is none of its classes')
  return classes, rows


def _folder(path, classes):
  """Return the class that the folders of an image name, or its folder."""
  parts = pathlib.PurePath(path).parts[:-1]
  names = ['/'.join(parts[-depth:]) for depth in (1, 2) if len(parts) >= depth]
  return next(
    (n for n in names[::-1] if n in classes), names[0] if names else ''
  )


def _label(row):
  return _UNKNOWN if row['unknown'] == '1' else row['label']
