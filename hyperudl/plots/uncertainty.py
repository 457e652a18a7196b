"""Draws calibration and predictive uncertainty of evaluated runs."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.evaluation import calibration
from hyperudl.plots import figure as figures

_LABELS = {
  'entropy': 'entropy of the prediction, nats',
  'disagreement': 'disagreement of the samples, nats',
}


def draw(workdirs: figures.Workdirs, tag: str = '') -> Figure:
  """Draw calibration and histograms of uncertainty, one row for each run.

  Left: accuracy over confidence in 15 bins; the area of a dot grows with its
  number of queries. Right: histograms of the uncertainty of queries whose
  class is in the support (inside) and of others (outside).

  Args:
    workdirs: folders of runs with eval/*uncertainty-test_episodes.npz, or
      -all_episodes.npz, from `evaluate --uncertainty`.
    tag: tag of the result; '' for the result without a tag.

  Raises:
    core.BadInput: if a run has no such result.
  """
  unique = len({pathlib.Path(w).name for w in workdirs}) == len(workdirs)
  names = [pathlib.Path(w).name if unique else str(w) for w in workdirs]
  results = [_read(workdir, tag) for workdir in workdirs]
  scores = [
    score
    for score in _LABELS
    if any(f'{score}_inside' in arrays for arrays in results)
  ]
  columns, rows = 1 + len(scores), len(results)
  figure, panels = figures.make(columns, rows, (10 / 3 * columns, 2.9 * rows))
  for row, name, arrays in zip(panels, names, results):
    _plot_reliability(row[0], arrays)
    row[0].set_title(name, fontsize=10, loc='left')
    for axes, score in zip(row[1:], scores):
      if f'{score}_inside' in arrays:
        _plot_histograms(axes, arrays, score)
      else:
        axes.axis('off')
  return figure


def _read(workdir, tag):
  """Read the result on the test split, or else that on all classes."""
  name = f'{tag}-uncertainty' if tag else 'uncertainty'
  for split in ('test', 'all'):
    path = pathlib.Path(workdir, 'eval', f'{name}-{split}_episodes.npz')
    if arrays := figures.read_arrays(path):
      return arrays
  raise core.BadInput(
    f'{workdir} has no eval/{name}-test_episodes.npz; run python -m '
    f'hyperudl.evaluate --workdir={workdir} --once --uncertainty'
    + (f' --tag={tag}' if tag else '')
  )


def _plot_reliability(axes, arrays):
  p = arrays['probabilities'].reshape(-1, arrays['probabilities'].shape[-1])
  y = arrays['y'].reshape(-1)
  confidence, accuracy, count = calibration.reliability(p, y)
  error = calibration.expected_calibration_error(p, y)
  axes.plot([0, 1], [0, 1], color='black', linewidth=0.8)
  axes.plot(confidence, accuracy, color='C0', linewidth=0.8)
  axes.scatter(confidence, accuracy, 300 * count / count.sum() + 4, color='C0')
  axes.text(0.04, 0.9, f'ECE {error:.3f}', transform=axes.transAxes)
  axes.set(xlim=(0, 1), ylim=(0, 1.02))
  figures.finish(axes, xlabel='confidence', ylabel='accuracy')


def _plot_histograms(axes, arrays, score):
  sides = {side: arrays[f'{score}_{side}'] for side in ('inside', 'outside')}
  top = max(1e-6, *(values.max() for values in sides.values()))
  for label, values in sides.items():
    options = {'bins': 40, 'range': (0, top), 'density': True, 'alpha': 0.6}
    axes.hist(values.ravel(), label=label, **options)
  ranks = [calibration.auroc(*pair) for pair in zip(*sides.values())]
  axes.set(xlabel=_LABELS[score], yticks=[])
  axes.set_title(f'AUROC {np.mean(ranks):.3f}', fontsize=10)
  axes.legend(fontsize='small')
