"""Draws how the unsupervised inner loop changes accuracy."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics
from hyperudl.plots import figure as figures
from hyperudl.storage.filesystem import StrPath


def draw(workdir: StrPath) -> Figure:
  """Draw accuracy by inner step, and gain by shift family.

  Args:
    workdir: folder of a run with eval/*_episodes.npz.

  Raises:
    core.BadInput: if there is no result with inner steps.
  """
  figure, ((left, right),) = figures.make(2, size=(11, 4.5))
  gains = {}
  for file in sorted(pathlib.Path(workdir, 'eval').glob('*_episodes.npz')):
    arrays = figures.read_arrays(file)
    if 'accuracy_unadapted' not in arrays:
      continue
    _plot_by_step(left, arrays, file.name.removesuffix('_episodes.npz'))
    change = arrays['accuracy'] - arrays['accuracy_unadapted']
    for family in np.unique(arrays['family']):
      gains.setdefault(shifts.family_name(family), []).append(
        change[arrays['family'] == family]
      )
  if not gains:
    raise core.BadInput(
      f'{workdir} has no result with unsupervised inner steps; run python -m '
      f'hyperudl.evaluate --workdir={workdir} --once'
    )
  results = [statistics.mean_ci95(np.concatenate(g)) for g in gains.values()]
  mean, half = np.array(results).T
  rows = np.arange(len(mean))
  right.errorbar(mean, rows, xerr=half, fmt='o', capsize=3)
  right.axvline(0, color='black', linewidth=0.8)
  right.set_yticks(rows, list(gains))
  figures.finish(
    left, ylabel='accuracy, 95% interval', xlabel='unsupervised inner steps'
  )
  figures.finish(
    right, xlabel='adapted - unadapted accuracy, paired, 95% interval'
  )
  return figure


def _plot_by_step(axes, arrays, name):
  """Plot accuracy before, after each step, and at the end (after k-means)."""
  names = ['accuracy_unadapted']
  while f'accuracy_step_{len(names)}' in arrays:
    names.append(f'accuracy_step_{len(names)}')
  names.append('accuracy')
  mean, half = np.array([statistics.mean_ci95(arrays[n]) for n in names]).T
  axes.errorbar(range(len(names)), mean, yerr=half, label=name, capsize=3)
  labels = [str(k) for k in range(len(names) - 1)]
  axes.set_xticks(range(len(names)), [*labels, 'end'])
