"""Draws training accuracy over minutes of training."""

import pathlib

from matplotlib.figure import Figure

from hyperudl import core
from hyperudl.evaluation import statistics
from hyperudl.plots import figure as figures
from hyperudl.storage import metrics


def draw(workdirs: figures.Workdirs) -> Figure:
  """Draw a curve for each run, and its test result at the end of the curve.

  The gap between the two is the generalisation gap to new classes. Runs that
  differ only in their last `-SEED` share a colour.

  Args:
    workdirs: folders of runs.

  Raises:
    core.BadInput: if a run has no train.jsonl with accuracies.
  """
  figure, ((axes,),) = figures.make()
  colors = {}
  for workdir in workdirs:
    path = pathlib.Path(workdir)
    rows = metrics.read_jsonl(path / 'train.jsonl')
    if not rows or 'accuracy' not in rows[-1]:
      raise core.BadInput(
        f'{workdir} has no train.jsonl with accuracies; name the folder of a '
        'run of a classifier'
      )
    name, _, seed = path.name.rpartition('-')
    name = name if seed.isdigit() else path.name
    label = None if name in colors else name
    color = colors.setdefault(name, f'C{len(colors)}')
    minutes = statistics.training_seconds(rows) / 60
    accuracy = [row['accuracy'] for row in rows]
    axes.plot(minutes, accuracy, color=color, label=label, linewidth=0.8)
    for result in metrics.read_jsonl(path / 'eval' / 'test.jsonl')[-1:]:
      options = {'color': color, 'fmt': 'o'}
      figures.plot_intervals(axes, minutes[-1:], [result], **options)
  figures.finish(
    axes,
    xlabel='minutes of training',
    ylabel='accuracy: training (line), test (point)',
  )
  return figure
