"""Draws accuracy after each task of a sequence."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.evaluation import statistics
from hyperudl.plots import figure as figures


def draw(workdirs: figures.Workdirs, tag: str = '') -> Figure:
  """Draw the mean accuracy over the tasks so far, with 95% intervals.

  It is the mean of A[t, tau] over tau <= t; on the left among all classes so
  far, on the right among the classes of the query's task.

  Args:
    workdirs: folders of runs of `continual`.
    tag: tag of the test result; '' for the result without a tag.

  Raises:
    core.BadInput: if a run has no such result.
  """
  figure, (panels,) = figures.make(2, size=(10, 4.5))
  panels[1].sharey(panels[0])
  name = f'{tag}-test' if tag else 'test'
  for i, workdir in enumerate(workdirs):
    path = pathlib.Path(workdir, 'eval', f'{name}_episodes.npz')
    arrays = figures.read_arrays(path)
    if 'matrix_class' not in arrays:
      raise core.BadInput(
        f'{workdir} has no result {name!r} of sequences of tasks; run python '
        f'-m hyperudl.evaluate --workdir={workdir} --once'
        + (f' --tag={tag}' if tag else '')
      )
    for axes, scenario in zip(panels, ('class', 'task')):
      matrix = arrays[f'matrix_{scenario}']
      steps = 1 + np.arange(matrix.shape[-1])
      accuracy = matrix.sum(axis=-1) / steps
      mean, half = np.array([statistics.mean_ci95(v) for v in accuracy.T]).T
      options = {'color': f'C{i}', 'label': pathlib.Path(workdir).name}
      axes.errorbar(steps, mean, yerr=half, **options)
  panels[0].set(
    title='among all classes so far', ylabel='accuracy, 95% interval'
  )
  panels[1].set(title="among those of the query's task")
  figures.finish(*panels, xlabel='tasks so far', xticks=steps)
  return figure
