"""Draws how the unsupervised inner loop changes accuracy."""

import pathlib

from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics
from hyperudl.plots import episode
from hyperudl.plots import figure as figures
from hyperudl.storage import selection
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import setup

IMAGES = 10  # of a row of pictures


def draw(workdir: StrPath, shift: str = '') -> Figure:
  """Draw accuracy by inner step, gain by shift family, and an inferred shift.

  The latter, for runs that infer one, shows the first test episode.

  Args:
    workdir: folder of a run with eval/*_episodes.npz.
    shift: shift of that episode, see `shifts.families`; '' for that of the run.

  Raises:
    core.BadInput: if there is no result with inner steps.
  """
  pictures = _inferred_shift(workdir, shift)
  figure = Figure(figsize=(11, 4.5 + len(pictures)), layout='constrained')
  heights = [4.5, *[1] * len(pictures)]
  parts = figure.subfigures(len(heights), 1, height_ratios=heights)
  parts = np.atleast_1d(parts)
  for part, (title, images) in zip(parts[1:], pictures.items()):
    episode.draw_images(part, title, images[:IMAGES])
  left, right = parts[0].subplots(1, 2)
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


def _inferred_shift(workdir, shift):
  """Return {title: images} of the first episode; {} if no shift is inferred."""
  if not pathlib.Path(workdir, 'config.json').exists():
    return {}  # results without their run
  config = setup.read_config(workdir)
  if 'shift' not in config.learner.get('adapt', ''):
    return {}
  with config.unlocked():
    config.data.shift = shift or config.data.shift
  checkpoint = selection.restore_step(workdir, 'latest')
  first, _, visuals = episode.evaluate_first(config, checkpoint)
  if 'image/shifted_support' not in visuals:
    return {}
  labelled = first.support.y >= 0
  clean, shifted = visuals['image/shifted_support'][:, labelled]
  return {
    'support': clean,
    'support, shifted': shifted,
    'queries': first.query.x,
    'reconstructed': visuals['image/reconstructed'][1],
  }


def _plot_by_step(axes, arrays, name):
  """Plot accuracy before, after some steps, and at the end (after k-means)."""
  prefix = 'accuracy_step_'
  steps = [name.removeprefix(prefix) for name in arrays if prefix in name]
  steps.sort(key=int)
  names = [f'{prefix}{step}' for step in steps]
  names = ['accuracy_unadapted', *names, 'accuracy']
  mean, half = np.array([statistics.mean_ci95(arrays[n]) for n in names]).T
  axes.errorbar(range(len(names)), mean, yerr=half, label=name, capsize=3)
  axes.set_xticks(range(len(names)), ['0', *steps, 'clustered'])
