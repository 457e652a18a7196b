"""Drawn from evaluated runs: what label-free steps change."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics


def draw(workdir):
  """A figure of accuracy by inner step and of gain by shift family.

  Args:
    workdir: path of a run with eval/*_episodes.npz.

  Raises:
    core.BadInput: if there is no result with inner steps.
  """
  figure = Figure(figsize=(11, 4.5), layout='constrained')
  left, right = figure.subplots(1, 2)
  gains = {}
  files = sorted(pathlib.Path(workdir, 'eval').glob('*_episodes.npz'))
  for file in files:
    with np.load(file) as stored:
      arrays = dict(stored)
    if 'accuracy_unadapted' not in arrays:
      continue
    name = file.name.removesuffix('_episodes.npz')
    _by_step(left, arrays, name)
    change = arrays['accuracy'] - arrays['accuracy_unadapted']
    for family in np.unique(arrays['family']):
      gains.setdefault(shifts.family_name(family), []).append(
        change[arrays['family'] == family]
      )
  if not gains:
    raise core.BadInput(
      f'{workdir} has no result with label-free steps; run python -m '
      f'hyperudl.evaluate --workdir={workdir} --once'
    )
  left.set(ylabel='accuracy, 95% interval', xlabel='label-free steps')
  left.legend(fontsize='small')
  results = [statistics.mean_ci95(np.concatenate(g)) for g in gains.values()]
  mean, half = np.array(results).T
  right.errorbar(mean, np.arange(len(mean)), xerr=half, fmt='o', capsize=3)
  right.axvline(0, color='black', linewidth=0.8)
  right.set_yticks(np.arange(len(mean)), list(gains))
  right.set(xlabel='adapted - unadapted accuracy, paired, 95% interval')
  for axes in (left, right):
    axes.grid(alpha=0.3)
  return figure


def _by_step(axes, arrays, name):
  """Unadapted, after steps 1, 2, ..., and the end, which may cluster too."""
  names = ['accuracy_unadapted']
  while f'accuracy_step_{len(names)}' in arrays:
    names.append(f'accuracy_step_{len(names)}')
  names.append('accuracy')
  mean, half = np.array([statistics.mean_ci95(arrays[n]) for n in names]).T
  axes.errorbar(range(len(names)), mean, yerr=half, label=name, capsize=3)
  labels = [str(k) for k in range(len(names) - 1)]
  axes.set_xticks(range(len(names)), [*labels, 'end'])
