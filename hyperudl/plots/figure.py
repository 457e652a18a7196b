"""Makes and finishes the figures of all kinds of plots."""

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
  """Return a figure of `size` inches and its axes [rows, columns]."""
  figure = Figure(figsize=size, layout='constrained')
  return figure, figure.subplots(rows, columns, squeeze=False)


def finish(*panels: Axes, **labels: Any) -> None:
  """Give each panel a grid, its labels and a legend of what it shows.

  Args:
    *panels: axes.
    **labels: of all of them, as in `Axes.set`.
  """
  for axes in panels:
    axes.set(**labels)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
      axes.legend(fontsize='small')


def plot_intervals(
  axes: Axes, x: Sequence[float], rows: Sequence[dict], **options: Any
) -> None:
  """Plot accuracies of result lines with their 95% intervals."""
  means = [row['accuracy'] for row in rows]
  halves = [row['accuracy_ci95'] or 0 for row in rows]
  axes.errorbar(x, means, yerr=halves, capsize=3, **options)


def read_arrays(path: StrPath) -> dict[str, np.ndarray]:
  """Read the numbers of each episode of a result; {} without a file."""
  if not os.path.exists(path):
    return {}
  with np.load(path) as stored:
    return dict(stored)


def save(figure: Figure, path: StrPath) -> None:
  """Write a PNG, without a display; core.Unwritable if that fails."""
  backend_agg.FigureCanvasAgg(figure)
  try:
    figure.savefig(path, dpi=120)
  except (OSError, ValueError) as error:
    raise core.Unwritable(f'cannot write {path}: {error}') from error
