"""Plots: `python -m hyperudl.plots --kind=curves --workdir=DIR[,DIR...]`.

curves   accuracy on the evaluated splits with 95% intervals, and the training
         loss, over steps; one colour a workdir. With label-free steps also the
         inner loss at the first and the last one, the accuracy without them
         and that of k-means.
episode  an episode as the run sees it: support, unlabelled, queries, and the
         answers of the newest checkpoint, before and after label-free steps
         where it has any; the queries as its canonicaliser shows them and as
         its autoencoder does. --shift=FAMILY puts them under that shift.
adaptation  accuracy after each label-free step and gain by shift family, with
         95% intervals, of everything that was evaluated in one workdir.

uncertainty  of runs with a result of `evaluate --uncertainty`: accuracy over
         confidence, and how unsure answers are at queries of classes in the
         support and of others. --tag names the result.

Writes a PNG: --out, by default <first workdir>/<kind>.png. Exit codes: 0
done; 2 bad flag or nothing to plot; 3 no checkpoint is readable.
"""

import pathlib

from absl import flags
from absl import logging
import jax
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
import numpy as np

from hyperudl import cli
from hyperudl import core
from hyperudl import doubt_figure
from hyperudl import evaluation
from hyperudl import metrics
from hyperudl import runs
from hyperudl import selection
from hyperudl import stats
from hyperudl.data import shifts

# Drawn pale beside the accuracy, where a result has them.
_REFERENCES = {
  'accuracy_unadapted': 'unadapted',
  'accuracy_kmeans_1': 'soft k-means',
  'accuracy_kmeans_features': 'k-means',
}


def curves(workdirs):
  """A figure of training loss and evaluated accuracy of several runs.

  Args:
    workdirs: list of paths.

  Raises:
    core.BadInput: if a folder has neither train.jsonl nor eval/*.jsonl.
  """
  figure = Figure(figsize=(10, 4), layout='constrained')
  left, right = figure.subplots(1, 2)
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
    name = path.name
    steps = [row['step'] for row in rows]
    left.plot(steps, [row['loss'] for row in rows], color=color, label=name)
    for key, style in (('inner_loss_first', ':'), ('inner_loss_last', '--')):
      if rows and key in rows[-1]:
        found = [row.get(key, np.nan) for row in rows]
        label = f'{name} {key.replace("_", " ")}'
        left.plot(steps, found, style, color=color, label=label)
    for split, style in (('valid', ':'), ('test', '-')):
      _accuracy(right, results[split], color, style, f'{name} {split}')
      for key in _REFERENCES:
        label = f'{name} {split} {_REFERENCES[key]}'
        _accuracy(right, results[split], color, style, label, key)
  left.set(xlabel='outer step', ylabel='training loss')
  right.set(xlabel='outer step', ylabel='accuracy, 95% interval')
  for axes in (left, right):
    axes.grid(alpha=0.3)
    if axes.has_data():
      axes.legend(fontsize='small')
  return figure


def _accuracy(axes, rows, color, style, label, key='accuracy'):
  if not rows or key not in rows[-1]:
    return
  # A step may have been evaluated twice by hand; the last line counts.
  rows = sorted({row['step']: row for row in rows}.items())
  steps = np.array([step for step, _ in rows])
  mean = np.array([row.get(key, np.nan) for _, row in rows])
  if key != 'accuracy':
    axes.plot(steps, mean, style, color=color, label=label, alpha=0.4)
    return
  half = np.array([row['accuracy_ci95'] or 0.0 for _, row in rows])
  axes.plot(steps, mean, style, marker='.', color=color, label=label)
  axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.15)


def episode(workdir, shift=''):
  """A figure of one test episode and the newest checkpoint's answers.

  Args:
    workdir: path of a run.
    shift: of the queries, see `shifts.families`; '' for that of the run.

  Raises:
    core.BadInput: if there is no run or no checkpoint.
  """
  config = runs.read_config(workdir)
  if config.episode.tasks:
    raise core.BadInput(
      f'{workdir} trains on sequences of tasks; --kind=episode draws one task'
    )
  with config.unlocked():
    config.data.shift = shift or config.data.shift
  raw, step, _ = selection.restore_step(workdir, 'latest')
  values, one, shown = _answers(config, raw, step)
  answers = {'': values['probabilities'].argmax(axis=-1)}
  if 'accuracy_unadapted' in values:
    with config.unlocked():
      config.episode.inner_data = 'none'
    before, _, _ = _answers(config, raw, step)
    answers = {'before': before['probabilities'].argmax(-1), **answers}
  y = one.support.y
  rows = [
    ('support', one.support.x[y >= 0], y[y >= 0], None),
    ('unlabelled', one.support.x[y < 0], None, None),
    *[
      (f'queries {when}'.strip(), one.query.x, one.query.y, given)
      for when, given in answers.items()
    ],
  ]
  for name in ('canonicalised', 'reconstructed'):
    if f'image/{name}' in shown:
      rows.append((name, shown[f'image/{name}'][1], None, None))
  rows = [row for row in rows if len(row[1])]
  heights = [-(-len(row[1]) // 10) for row in rows]
  figure = Figure(figsize=(10, 1.2 * sum(heights) + 0.4 * len(rows)))
  parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)
  for part, row in zip(parts[:, 0], rows):
    _images(part, *row)
  title = f'{config.learner.name}, step {step}'
  figure.suptitle(title, x=0.01, y=0.998, ha='left', fontsize=9)
  return figure


def _answers(config, raw, step):
  """(metrics of the first test episode, the episode, what there is to see)."""
  evaluator = evaluation.Evaluator(config, 'test', 1)
  params = evaluation.fit(raw, evaluation.template(evaluator), step)
  batch, keys = evaluator.batch(0, 1)
  values = jax.device_get(evaluator.step(params, batch, keys))
  one, shown = evaluator.visuals(params)
  return {name: value[0] for name, value in values.items()}, one, shown


def _images(figure, title, images, labels, answers):
  """Rows of ten images; the label above, green or red if answered."""
  count = -(-len(images) // 10)
  axes = figure.subplots(count, 10, squeeze=False).ravel()
  figure.supylabel(title, fontsize=9)
  for i, ax in enumerate(axes):
    ax.axis('off')
    if i >= len(images):
      continue
    image = np.clip(images[i], 0, 1)
    gray = image.shape[-1] == 1
    ax.imshow(image[..., 0] if gray else image, cmap='gray', vmin=0, vmax=1)
    if answers is not None:
      right = answers[i] == labels[i]
      color = 'tab:green' if right else 'tab:red'
      ax.set_title(f'{answers[i]} ({labels[i]})', fontsize=8, color=color)
    elif labels is not None:
      ax.set_title(str(labels[i]), fontsize=8)


def adaptation(workdir):
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
  results = [stats.mean_ci95(np.concatenate(g)) for g in gains.values()]
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
  mean, half = np.array([stats.mean_ci95(arrays[n]) for n in names]).T
  axes.errorbar(range(len(names)), mean, yerr=half, label=name, capsize=3)
  labels = [str(k) for k in range(len(names) - 1)]
  axes.set_xticks(range(len(names)), [*labels, 'end'])


def main(argv):
  """Draws the figure and writes it."""
  del argv
  cli.set_up()
  values = flags.FLAGS
  if values.shift and values.kind != 'episode':
    raise core.BadInput(
      f'--shift={values.shift} is for --kind=episode, not {values.kind}'
    )
  if values.tag and values.kind != 'uncertainty':
    raise core.BadInput(
      f'--tag={values.tag} is for --kind=uncertainty, not {values.kind}'
    )
  first = values.workdir[0]
  figure = {
    'curves': lambda: curves(values.workdir),
    'episode': lambda: episode(first, values.shift),
    'adaptation': lambda: adaptation(first),
    'uncertainty': lambda: doubt_figure.draw(values.workdir, values.tag),
  }[values.kind]()
  out = values.out or str(pathlib.Path(first, f'{values.kind}.png'))
  backend_agg.FigureCanvasAgg(figure)
  try:
    figure.savefig(out, dpi=120)
  except (OSError, ValueError) as error:
    raise core.Unwritable(f'cannot write {out}: {error}') from error
  logging.info('wrote %s', out)


if __name__ == '__main__':
  flags.DEFINE_enum(
    'kind',
    'curves',
    ['curves', 'episode', 'adaptation', 'uncertainty'],
    'What to plot.',
  )
  flags.DEFINE_string('tag', '', 'Of the result of --kind=uncertainty.')
  flags.DEFINE_list('workdir', None, 'Folders of runs.', required=True)
  flags.DEFINE_string('shift', '', 'Of the episode; the own one of the run.')
  flags.DEFINE_string('out', None, 'Picture to write.')
  cli.run(main)
