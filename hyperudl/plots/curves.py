"""Draws training loss and accuracy of evaluations over outer steps."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.plots import figure as figures
from hyperudl.storage import metrics

# Labels of other metrics of a result, drawn pale next to the accuracy.
_REFERENCES = {
  'accuracy_unadapted': 'unadapted',
  'accuracy_kmeans_1': 'soft k-means',
  'accuracy_kmeans_features': 'k-means',
}


def draw(workdirs: figures.Workdirs) -> Figure:
  """Draw the loss on the left and the accuracy of each split on the right.

  Args:
    workdirs: folders of runs; each gets its own colour.

  Raises:
    core.BadInput: if a folder has neither train.jsonl nor eval/*.jsonl.
  """
  figure, ((left, right),) = figures.make(2, size=(10, 4))
  for i, workdir in enumerate(workdirs):
    path, color = pathlib.Path(workdir), f'C{i}'
    rows = metrics.read_jsonl(path / 'train.jsonl')
    results = {
      split: metrics.read_jsonl(path / 'eval' / f'{split}.jsonl')
      for split in ('valid', 'test')
    }
    if not rows and not any(results.values()):
      raise core.BadInput(
        f'{workdir} has neither train.jsonl nor eval/test.jsonl; name the '
        'folder of a run'
      )
    for key, style, label in (
      ('loss', '-', path.name),
      ('inner_loss_first', ':', f'{path.name} inner loss first'),
      ('inner_loss_last', '--', f'{path.name} inner loss last'),
    ):
      _plot(left, rows, key, style, color=color, label=label)
    for split, style in (('valid', ':'), ('test', '-')):
      # If a step was evaluated several times, the last line counts.
      latest = {row['step']: row for row in results[split]}
      rows = [latest[step] for step in sorted(latest)]
      label = f'{path.name} {split}'
      _plot(right, rows, 'accuracy', style, color=color, label=label)
      for key, name in _REFERENCES.items():
        options = {'label': f'{label} {name}', 'alpha': 0.4}
        _plot(right, rows, key, style, color=color, **options)
  figures.finish(left, xlabel='outer step', ylabel='training loss')
  figures.finish(right, xlabel='outer step', ylabel='accuracy, 95% interval')
  return figure


def _plot(axes, rows, key, style, color, **options):
  """Plot a metric over steps, if the last row has it."""
  if not rows or key not in rows[-1]:
    return
  steps = np.array([row['step'] for row in rows])
  mean = np.array([row.get(key, np.nan) for row in rows], np.float64)
  marker = '.' if key == 'accuracy' else None
  axes.plot(steps, mean, style, marker=marker, color=color, **options)
  if key == 'accuracy':
    half = np.array([row['accuracy_ci95'] or 0.0 for row in rows])
    axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.15)
