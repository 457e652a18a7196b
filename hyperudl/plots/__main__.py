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
clock    training accuracy over minutes of training, with the test results; runs
         that differ in their seed alone (NAME-0, NAME-1) share a colour.
sequences  accuracy after each task of a sequence, of results of `continual`.
         --tag names the result.
tsne     the features of one episode in the plane: queries, support and, of
         `hallucination`, generated ones; with what the picture hides.
shots    accuracy over labelled images a class of everything that was evaluated
         with --shot=K, one line a workdir.
uncertainty  of runs with a result of `evaluate --uncertainty`: accuracy over
         confidence, and how unsure answers are at queries of classes in the
         support and of others. --tag names the result.

Writes a PNG: --out, by default <first workdir>/<kind>.png. Exit codes: 0
done; 2 bad flag or nothing to plot; 3 no checkpoint is readable.
"""

import pathlib

from absl import flags
from absl import logging
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.evaluation import evaluator as evaluation
from hyperudl.plots import adaptation
from hyperudl.plots import embeddings
from hyperudl.plots import progress
from hyperudl.plots import uncertainty
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.training import runs

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
  if one.query.x.ndim != 4:
    raise core.BadInput(
      f'{workdir} works on features, and --kind=episode draws images'
    )
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


def tsne(workdir):
  """A figure of the features of one test episode.

  It has 15 queries a class where there are as many.

  Args:
    workdir: path of a run.

  Raises:
    core.BadInput: if the learner shows no features.
  """
  config = runs.read_config(workdir)
  raw, step, _ = selection.restore_step(workdir, 'latest')
  own = config.episode.query
  try:
    with config.unlocked():
      config.episode.query = max(own, 15)
    values, one, shown = _answers(config, raw, step)
  except core.BadInput:  # the set has not as many
    with config.unlocked():
      config.episode.query = own
    values, one, shown = _answers(config, raw, step)
  title = f'{config.learner.name}, step {step}'
  return embeddings.tsne(one, shown, values, title)


def _answers(config, raw, step):
  """(metrics of the first test episode, the episode, what there is to see)."""
  evaluator = evaluation.Evaluator(config, 'test', 1)
  params = evaluation.fit(raw, evaluation.template(evaluator), step)
  _, values = evaluator.numbers(params)
  return values, *evaluator.visuals(params)


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


def main(argv):
  """Draws the figure and writes it."""
  del argv
  cli.set_up()
  values = flags.FLAGS
  if values.shift and values.kind != 'episode':
    raise core.BadInput(
      f'--shift={values.shift} is for --kind=episode, not {values.kind}'
    )
  tagged = ('uncertainty', 'sequences', 'shots')
  if values.tag and values.kind not in tagged:
    raise core.BadInput(
      f'--tag={values.tag} is for --kind={", ".join(tagged)}, not {values.kind}'
    )
  first = values.workdir[0]
  figure = {
    'curves': lambda: curves(values.workdir),
    'episode': lambda: episode(first, values.shift),
    'adaptation': lambda: adaptation.draw(first),
    'clock': lambda: progress.clock(values.workdir),
    'sequences': lambda: progress.sequences(values.workdir, values.tag),
    'tsne': lambda: tsne(first),
    'shots': lambda: embeddings.shots(values.workdir, values.tag),
    'uncertainty': lambda: uncertainty.draw(values.workdir, values.tag),
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
    [
      'curves',
      'episode',
      'adaptation',
      'clock',
      'sequences',
      'uncertainty',
      'tsne',
      'shots',
    ],
    'What to plot.',
  )
  flags.DEFINE_string(
    'tag', '', 'Of results of uncertainty, sequences and shots.'
  )
  flags.DEFINE_list('workdir', None, 'Folders of runs.', required=True)
  flags.DEFINE_string('shift', '', 'Of the episode; the own one of the run.')
  flags.DEFINE_string('out', None, 'Picture to write.')
  cli.run(main)
