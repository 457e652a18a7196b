"""Figures of embeddings: real and generated features, accuracy over shots."""

import importlib.util
import pathlib
import re

from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.storage import metrics

# Of a visual's name 'points/KIND': (marker, size).
_MARKERS = {
  'query': ('o', 14),
  'hallucinated': ('x', 14),
  'support': ('*', 130),
}
SEED, PERPLEXITY = 0, 15
DRAWN = 20  # hallucinations of each class
_NUMBERS = ('diversity', 'purity', 'prototype_error')


def _figure(**options):
  # Here, so that evaluations without pictures do without it.
  from matplotlib.figure import Figure

  return Figure(**options)


def has_points(visuals):
  """Whether a learner shows embeddings."""
  return 'points/query' in visuals


def can_draw(visuals):
  """Whether a learner shows embeddings, and scikit-learn is there."""
  return has_points(visuals) and bool(importlib.util.find_spec('sklearn'))


def tsne(episode, visuals, values, title=''):
  """All embeddings of an episode in one t-SNE (van der Maaten, Hinton 2008).

  Args:
    episode: `core.Episode` of NumPy arrays.
    visuals: {'points/support': f[S, D], 'points/query': f[Q, D]} and perhaps
      'points/hallucinated' f[N, M, D].
    values: {'diversity': ..., ...} to write above, or less.
    title: str.

  Raises:
    core.BadInput: if the learner shows no embeddings, or without scikit-learn.
  """
  if not has_points(visuals):
    raise core.BadInput(
      '--kind=tsne needs a learner that shows its features: protonet or '
      'hallucination'
    )
  try:
    from sklearn import manifold
  except ImportError:
    raise core.BadInput(
      '--kind=tsne needs scikit-learn: pip install -e .[tsne]'
    ) from None
  groups = {
    'query': (visuals['points/query'], episode.query.y),
    'support': (visuals['points/support'], episode.support.y),
  }
  if 'points/hallucinated' in visuals:
    made = visuals['points/hallucinated'][:, :DRAWN]
    labels = np.repeat(np.arange(made.shape[0]), made.shape[1])
    groups['hallucinated'] = made.reshape(-1, made.shape[-1]), labels
  points = np.concatenate([rows for rows, _ in groups.values()])
  if not np.isfinite(points).all() or not np.ptp(points) or len(points) < 5:
    raise core.BadInput(
      'the features of this episode are all the same or not finite: there is '
      'nothing to draw'
    )
  few = max(1.0, (len(points) - 1) / 3)
  places = manifold.TSNE(
    init='pca', random_state=SEED, perplexity=min(PERPLEXITY, few)
  ).fit_transform(np.asarray(points, np.float64))
  figure = _figure(figsize=(6.5, 6), layout='constrained')
  axes, start = figure.subplots(), 0
  for name, (rows, labels) in groups.items():
    own = places[start : start + len(rows)]
    start += len(rows)
    marker, size = _MARKERS[name]
    colors = [f'C{label % 10}' if label >= 0 else 'gray' for label in labels]
    edge = {'edgecolors': 'black'} if name == 'support' else {}
    axes.scatter(*own.T, size, colors, marker=marker, label=name, **edge)
  axes.set(xticks=[], yticks=[])
  axes.legend(fontsize='small')
  told = [
    f'{name.replace("_", " ")} {values[name]:.2f}'
    for name in _NUMBERS
    if name in values
  ]
  axes.set_title('\n'.join([title, ', '.join(told)]).strip(), fontsize=10)
  return figure


def show_tsne(writer, step, episode, visuals, values):
  """Draws `tsne` in TensorBoard, where `can_draw` says so."""
  try:
    figure = tsne(episode, visuals, values, f'step {step}')
  except (core.BadInput, ValueError) as error:
    logging.warning('no picture of the features: %s', error)
  else:
    metrics.write_figure(writer, step, 'features', figure)


def shots(workdirs, tag=''):
  """Accuracy over labelled images a class (`episode.shot`), one line a run.

  Args:
    workdirs: of runs with eval/<K>shot-test.jsonl for several K, as
      `evaluate --once --shot=K` writes them.
    tag: str; with one, <K>shot-<tag>-test.jsonl of --tag=<K>shot-<tag>.

  Raises:
    core.BadInput: if a run has fewer than two of them.
  """
  ending = f'shot-{tag}-test.jsonl' if tag else 'shot-test.jsonl'
  more = f' --split=test --tag=Kshot-{tag}' if tag else ''
  figure = _figure(figsize=(6, 4), layout='constrained')
  axes = figure.subplots()
  ticks = set()
  for workdir in workdirs:
    found = {}
    for path in pathlib.Path(workdir, 'eval').glob(f'*{ending}'):
      match = re.fullmatch(rf'(\d+){re.escape(ending)}', path.name)
      rows = metrics.read_jsonl(path)
      if match and rows:
        found[int(match[1])] = rows[-1]
    if len(found) < 2:
      raise core.BadInput(
        f'{workdir} has results of {len(found)} numbers of shots, and a line '
        'needs two: run python -m hyperudl.evaluate '
        f'--workdir={workdir} --once --shot=K{more} for several K'
      )
    ks = sorted(found)
    ticks |= set(ks)
    axes.errorbar(
      ks,
      [found[k]['accuracy'] for k in ks],
      yerr=[found[k]['accuracy_ci95'] or 0 for k in ks],
      marker='.',
      capsize=3,
      label=pathlib.Path(workdir).name,
    )
  axes.set_xscale('log')
  axes.set_xticks(sorted(ticks), [str(k) for k in sorted(ticks)])
  axes.minorticks_off()
  axes.set(xlabel='shots', ylabel='accuracy, 95% interval')
  axes.grid(alpha=0.3)
  axes.legend(fontsize='small')
  return figure
