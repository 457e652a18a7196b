"""Draws the features of one episode in two dimensions by t-SNE.

Van der Maaten and Hinton 2008.
"""

from absl import logging
from matplotlib.figure import Figure
import numpy as np

from hyperudl import core
from hyperudl.evaluation import evaluator
from hyperudl.plots import episode as episode_plot
from hyperudl.plots import figure as figures
from hyperudl.storage import selection
from hyperudl.storage import tensorboard
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import setup

# (marker, size) of the features 'points/KIND', by KIND.
_MARKERS = {
  'query': ('o', 14),
  'support': ('*', 130),
  'hallucinated': ('x', 14),
}
SEED, PERPLEXITY = 0, 15
MAX_HALLUCINATED = 20  # of each class
QUERIES = 15  # of each class, if the data has that many
_TITLE_METRICS = ('diversity', 'purity', 'prototype_error')


def draw_run(workdir: StrPath) -> Figure:
  """Draw the features of one test episode of a run.

  Raises:
    core.BadInput: if the learner has no features to draw.
  """
  config = setup.read_config(workdir)
  checkpoint = selection.restore_step(workdir, 'latest')
  more = config.copy_and_resolve_references()
  with more.unlocked():
    more.episode.query = max(config.episode.query, QUERIES)
  try:
    first = episode_plot.evaluate_first(more, checkpoint)
  except core.BadInput:  # the data set has fewer queries
    first = episode_plot.evaluate_first(config, checkpoint)
  episode, values, visuals = first
  title = f'{config.learner.name}, step {checkpoint.step}'
  return draw(episode, visuals, values, title)


def draw(
  episode: core.Episode,
  visuals: evaluator.Metrics,
  values: evaluator.Metrics,
  title: str = '',
) -> Figure:
  """Draw all features of an episode in one t-SNE.

  Args:
    episode: of numpy arrays.
    visuals: {'points/support': f[S, D], 'points/query': f[Q, D]} and perhaps
      'points/hallucinated' f[N, M, D].
    values: metrics; those in `_TITLE_METRICS` are added to the title.
    title: of the figure.

  Raises:
    core.BadInput: if the learner has no features to draw, or without
      scikit-learn.
  """
  if 'points/query' not in visuals:
    raise core.BadInput(
      '--kind=tsne needs a learner that shows its features: protonet or '
      'hallucination'
    )
  groups = _groups(episode, visuals)
  features = np.concatenate([rows for rows, _ in groups.values()])
  sizes = [len(rows) for rows, _ in groups.values()]
  parts = np.split(_embed(features), np.cumsum(sizes)[:-1])
  figure, ((axes,),) = figures.make(size=(6.5, 6))
  for (name, (_, labels)), part in zip(groups.items(), parts):
    marker, size = _MARKERS[name]
    colors = [f'C{label % 10}' if label >= 0 else 'gray' for label in labels]
    edge = {'edgecolors': 'black'} if name == 'support' else {}
    axes.scatter(*part.T, size, colors, marker=marker, label=name, **edge)
  axes.set(xticks=[], yticks=[])
  axes.legend(fontsize='small')
  about = ', '.join(
    f'{name.replace("_", " ")} {values[name]:.2f}'
    for name in _TITLE_METRICS
    if name in values
  )
  axes.set_title('\n'.join([title, about]).strip(), fontsize=10)
  return figure


def _groups(episode, visuals):
  """Return the groups to draw: {name: (features f[n, D], labels i[n])}."""
  groups = {
    'query': (visuals['points/query'], episode.query.y),
    'support': (visuals['points/support'], episode.support.y),
  }
  if 'points/hallucinated' in visuals:
    generated = visuals['points/hallucinated'][:, :MAX_HALLUCINATED]
    labels = np.repeat(np.arange(generated.shape[0]), generated.shape[1])
    rows = generated.reshape(-1, generated.shape[-1])
    groups['hallucinated'] = rows, labels
  return groups


def _embed(features):
  """Return t-SNE positions f[n, 2] of features f[n, D]."""
  try:
    from sklearn import manifold
  except ImportError:
    raise core.BadInput(
      '--kind=tsne needs scikit-learn: pip install -e .[tsne]'
    ) from None
  count = len(features)
  if not np.isfinite(features).all() or not np.ptp(features) or count < 5:
    raise core.BadInput(
      'the features of this episode are all the same or not finite: there is '
      'nothing to draw'
    )
  perplexity = min(PERPLEXITY, max(1.0, (count - 1) / 3))
  tsne = manifold.TSNE(init='pca', random_state=SEED, perplexity=perplexity)
  return tsne.fit_transform(np.asarray(features, np.float64))


def write(
  writer: tensorboard.Writer,
  step: int,
  episode: core.Episode,
  visuals: evaluator.Metrics,
  values: evaluator.Metrics,
) -> None:
  """Write the figure of `draw` to TensorBoard; warn if it cannot be drawn."""
  try:
    figure = draw(episode, visuals, values, f'step {step}')
  except (core.BadInput, ValueError) as error:
    logging.warning('no picture of the features: %s', error)
  else:
    tensorboard.write_figure(writer, step, 'features', figure)
