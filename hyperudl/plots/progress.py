"""Drawn from runs: accuracy over time, and over a sequence of tasks."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics


def clock(workdirs):
  """A figure of training accuracy over minutes of training.

  Runs that differ in their last `-SEED` alone share a colour. Where a run has
  a test result, it stands at its end with a 95% interval over episodes: its gap
  to the curve is what is lost on classes that were not trained on.

  Args:
    workdirs: list of paths of runs.

  Raises:
    core.BadInput: if a run has no train.jsonl with accuracies.
  """
  figure = Figure(figsize=(7, 5), layout='constrained')
  axes = figure.subplots()
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
    found = [row['accuracy'] for row in rows]
    axes.plot(minutes, found, color=color, label=label, linewidth=0.8)
    for result in metrics.read_jsonl(path / 'eval' / 'test.jsonl')[-1:]:
      axes.errorbar(
        minutes[-1],
        result['accuracy'],
        yerr=result['accuracy_ci95'],
        color=color,
        fmt='o',
        capsize=3,
      )
  axes.set(
    xlabel='minutes of training',
    ylabel='accuracy: training (line), test (point)',
  )
  axes.grid(alpha=0.3)
  axes.legend(fontsize='small')
  return figure


def sequences(workdirs, tag=''):
  """A figure of what is known after each task of a sequence.

  Mean over the tasks met so far of A[t, tau], among all classes met and among
  those of the query's own task, with 95% intervals over sequences.

  Args:
    workdirs: list of paths of runs of `continual`.
    tag: of the test result; '' for the plain one.

  Raises:
    core.BadInput: if a run has no such result.
  """
  figure = Figure(figsize=(10, 4.5), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  name = f'{tag}-test' if tag else 'test'
  for i, workdir in enumerate(workdirs):
    path = pathlib.Path(workdir, 'eval', f'{name}_episodes.npz')
    arrays = {}
    if path.exists():
      with np.load(path) as stored:
        arrays = dict(stored)
    if 'matrix_class' not in arrays:
      raise core.BadInput(
        f'{workdir} has no result {name!r} of sequences of tasks; run python '
        f'-m hyperudl.evaluate --workdir={workdir} --once'
        + (f' --tag={tag}' if tag else '')
      )
    for axes, scenario in zip(panels, ('class', 'task')):
      matrix = arrays[f'matrix_{scenario}']
      steps = 1 + np.arange(matrix.shape[-1])
      known = matrix.sum(axis=-1) / steps
      mean, half = np.array([statistics.mean_ci95(v) for v in known.T]).T
      label = pathlib.Path(workdir).name
      axes.errorbar(steps, mean, yerr=half, color=f'C{i}', label=label)
  panels[0].set(
    title='among all classes so far', ylabel='accuracy, 95% interval'
  )
  panels[1].set(title="among those of the query's task")
  for axes in panels:
    axes.set(xlabel='tasks seen', xticks=steps)
    axes.grid(alpha=0.3)
  panels[0].legend(fontsize='small')
  return figure
