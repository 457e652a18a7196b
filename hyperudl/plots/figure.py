"""Creates, labels and saves the figures of all kinds of plots."""

from collections.abc import Sequence
import os
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.storage.filesystem import StrPath

Workdirs = Sequence[StrPath]


def make(
  columns: int = 1, rows: int = 1, size: tuple[float, float] = (7, 5)
) -> tuple[Figure, np.ndarray]:
  """Return (figure of `size` in inches, its axes [rows, columns])."""
  figure = Figure(figsize=size, layout='constrained')
  return figure, figure.subplots(rows, columns, squeeze=False)


def finish(*panels: Axes, **labels: Any) -> None:
  """Add a grid, axis labels and, if lines have labels, a legend to each panel.

  Args:
    *panels: axes.
    **labels: arguments of `Axes.set`, for all panels.
  """
  for axes in panels:
    axes.set(**labels)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
      axes.legend(fontsize='small')


def plot_intervals(
  axes: Axes, x: Sequence[float], rows: Sequence[dict], **options: Any
) -> None:
  """Plot the accuracies of results over x, with their 95% intervals."""
  means = [row['accuracy'] for row in rows]
  halves = [row['accuracy_ci95'] or 0 for row in rows]
  axes.errorbar(x, means, yerr=halves, capsize=3, **options)


def read_arrays(path: StrPath) -> dict[str, np.ndarray]:
  """Read the arrays over episodes of a result; {} if there is no file."""
  if not os.path.exists(path):
    return {}
  with np.load(path) as stored:
    return dict(stored)


def save(figure: Figure, path: StrPath) -> None:
  """Write a PNG, for which no display is needed.

  Raises:
    core.Unwritable: if the file cannot be written.
  """
  backend_agg.FigureCanvasAgg(figure)
  try:
    figure.savefig(path, dpi=120)
  except (OSError, ValueError) as error:
    raise core.Unwritable(f'cannot write {path}: {error}') from error
