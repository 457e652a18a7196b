"""Drawn from `evaluate --uncertainty`: reliability, doubt in and outside."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.evaluation import calibration

_NAMES = {
  'entropy': 'entropy of the answer, nats',
  'disagreement': 'disagreement of the samples, nats',
}


def draw(workdirs, tag=''):
  """A figure with a row for each run.

  Left: accuracy over confidence in 15 bins, the area of a dot being its share
  of the queries. Beside it: histograms of doubt at queries of classes in the
  support (inside) and of others (outside).

  Args:
    workdirs: of runs with eval/*uncertainty-test_episodes.npz, or -all_.
    tag: of the result, '' for the one without.

  Raises:
    core.BadInput: if one has none.
  """
  results = []
  unique = len({pathlib.Path(w).name for w in workdirs}) == len(workdirs)
  for workdir in workdirs:
    name = f'{tag}-uncertainty' if tag else 'uncertainty'
    path, whole = (
      pathlib.Path(workdir, 'eval', f'{name}-{split}_episodes.npz')
      for split in ('test', 'all')
    )
    if not path.exists() and whole.exists():
      path = whole
    if not path.exists():
      raise core.BadInput(
        f'{workdir} has no eval/{path.name}; run python -m hyperudl.evaluate '
        f'--workdir={workdir} --once --uncertainty'
        + (f' --tag={tag}' if tag else '')
      )
    with np.load(path) as stored:
      label = pathlib.Path(workdir).name if unique else str(workdir)
      results.append((label, dict(stored)))
  scores = [
    score
    for score in _NAMES
    if any(f'{score}_inside' in arrays for _, arrays in results)
  ]
  columns = 1 + len(scores)
  size = 10 / 3 * columns, 2.9 * len(results)
  figure = Figure(figsize=size, layout='constrained')
  axes = figure.subplots(len(results), columns, squeeze=False)
  for row, (name, arrays) in zip(axes, results):
    _reliability(row[0], arrays)
    row[0].set_title(name, fontsize=10, loc='left')
    for place, score in zip(row[1:], scores):
      if f'{score}_inside' in arrays:
        _histograms(place, arrays, score)
      else:
        place.axis('off')
  return figure


def _reliability(axes, arrays):
  p = arrays['probabilities'].reshape(-1, arrays['probabilities'].shape[-1])
  y = arrays['y'].reshape(-1)
  confidence, accuracy, count = calibration.reliability(p, y)
  error = calibration.expected_calibration_error(p, y)
  axes.plot([0, 1], [0, 1], color='black', linewidth=0.8)
  axes.plot(confidence, accuracy, color='C0', linewidth=0.8)
  axes.scatter(confidence, accuracy, 300 * count / count.sum() + 4, color='C0')
  axes.text(0.04, 0.9, f'ECE {error:.3f}', transform=axes.transAxes)
  axes.set(xlabel='confidence', ylabel='accuracy', xlim=(0, 1), ylim=(0, 1.02))
  axes.grid(alpha=0.3)


def _histograms(axes, arrays, score):
  inside, outside = (
    arrays[f'{score}_{side}'] for side in ('inside', 'outside')
  )
  top = max(inside.max(), outside.max(), 1e-6)
  for values, label, color in (
    (inside, 'inside', 'C0'),
    (outside, 'outside', 'C1'),
  ):
    axes.hist(
      values.ravel(),
      bins=40,
      range=(0, top),
      density=True,
      alpha=0.6,
      label=label,
      color=color,
    )
  ranks = [calibration.auroc(*pair) for pair in zip(inside, outside)]
  axes.set(xlabel=_NAMES[score], yticks=[])
  axes.set_title(f'AUROC {np.mean(ranks):.3f}', fontsize=10)
  axes.legend(fontsize='small')
