"""Measure what a last layer chosen for each task would gain, for one run.

  python -m experiments.last_layer --workdir=runs/ht --data_dir=DIR

The run is a `hypertransformer` with prototypes. Its last convolution reduces
the D numbers of the layer before it to C. Here a linear map replaces it, and
queries are still assigned to the nearest prototype:
  C of all tasks    the C best directions by Fisher's criterion (variance
                    between over within classes) on episodes of training classes
  2 C of all tasks  twice as many of these
  C of each task    in the span of the 2 C, those in which Fisher's ratios plus
                    the scatter of the task's support are largest
Prints accuracies with 95% intervals over test episodes.
"""

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import jax
from ml_collections import config_dict
import numpy as np

from experiments import tables
from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.evaluation import evaluator as evaluator_lib
from hyperudl.evaluation import statistics
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import target_network
from hyperudl.storage import selection
from hyperudl.training import setup

_CALL = 20  # episodes
_RIDGE = 1e-3


class Features(NamedTuple):
  """Features of the support or the queries of E episodes."""

  y: np.ndarray  # i32[E, n]
  before: np.ndarray  # f32[E, n, D], activations before the last convolution
  last: np.ndarray  # f32[E, n, C], activations after it


def features(
  config: config_dict.ConfigDict, workdir: str, split: str, count: int
) -> tuple[Features, Features]:
  """Return the features of support and queries of the episodes of a split.

  Args:
    config: of the run.
    workdir: of the run.
    split: 'train', 'valid' or 'test'.
    count: number of episodes E.
  """
  evaluator = evaluator_lib.Evaluator(config, split, count)
  checkpoint = selection.restore_step(workdir, 'latest')
  params = setup.fit_params(checkpoint, evaluator.param_shapes())
  settings = config_lib.learner_settings(config)
  hyper = hypertransformer.Config(way=config.episode.way, **settings)

  def embed(cnn, examples):
    z = target_network.scale_pixels(examples.x)
    specs = target_network.layer_specs(hyper, z)
    for spec in specs[:-1]:
      z = spec.block.apply({'params': cnn[spec.name]}, z)
    last = target_network.embed(hyper, cnn, examples.x)
    return Features(examples.y, z.reshape(len(z), -1), last)

  def of_episode(episode):
    key, support = jax.random.key(0), episode.support
    task = hypertransformer.adapt(hyper, params, support, key, train=False)
    return embed(task['cnn'], support), embed(task['cnn'], episode.query)

  of_batch = jax.jit(lambda episodes: jax.lax.map(of_episode, episodes))
  parts = []
  for start in range(0, count, _CALL):
    batch, _ = evaluator.batch(start, min(_CALL, count - start))
    batch = core.Episode(batch.support, batch.query)
    parts.append(jax.device_get(of_batch(batch)))
  return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def accuracies(
  support: Iterable[np.ndarray],
  query: Iterable[np.ndarray],
  y: Iterable[np.ndarray],
  query_y: Iterable[np.ndarray],
) -> np.ndarray:
  """Return f64[E], the accuracy of the nearest class mean per episode.

  Args:
    support, query: features f[n, D], one array an episode.
    y, query_y: labels i[n].
  """
  values = []
  for x, z, labels, expected in zip(support, query, y, query_y):
    classes = np.unique(labels)
    means = np.stack([x[labels == c].mean(0) for c in classes])
    distances = ((z[:, None] - means) ** 2).sum(-1)
    values.append(np.mean(classes[distances.argmin(1)] == expected))
  return np.array(values)


def fisher(
  rows: Iterable[np.ndarray],
  labels: Iterable[np.ndarray],
  ridge: float = _RIDGE,
) -> tuple[np.ndarray, np.ndarray]:
  """Return directions that separate the classes, the best last.

  Args:
    rows: features f[n, D], one array an episode.
    labels: i[n], one array an episode.
    ridge: added to the variance within classes, times its mean.

  Returns:
    (ratios f64[D], directions f64[D, D] that have unit variance within).
  """
  rows = list(rows)
  size = rows[0].shape[1]
  within, between = np.zeros((size, size)), np.zeros((size, size))
  freedom = classes = 0
  for x, y in zip(rows, labels):
    for c in np.unique(y):
      deviations = x[y == c] - x[y == c].mean(0)
      within += deviations.T @ deviations
      freedom += len(deviations) - 1
      apart = x[y == c].mean(0) - x.mean(0)
      between += np.outer(apart, apart)
      classes += 1
  within = within / freedom
  within += ridge * np.trace(within) / size * np.eye(size)
  whiten = np.linalg.cholesky(np.linalg.inv(within))
  ratios, turned = np.linalg.eigh(whiten.T @ (between / classes) @ whiten)
  return ratios, whiten @ turned


def task_directions(
  ratios: np.ndarray, support: np.ndarray, count: int
) -> np.ndarray:
  """Return f64[D, count]: where ratios plus scatter of f[n, D] are largest."""
  centred = support - support.mean(0)
  scatter = centred.T @ centred / len(support)
  return np.linalg.eigh(np.diag(ratios) + scatter)[1][:, -count:]


def compare(
  train: tuple[Features, Features], test: tuple[Features, Features]
) -> dict[str, np.ndarray]:
  """Return {kind of last layer: accuracies f64[E] on test episodes}."""
  join = lambda name: np.concatenate([getattr(p, name) for p in train], axis=1)
  ratios, directions = fisher(join('before'), join('y'))
  support, query = test
  count = support.last.shape[-1]
  few, twice = directions[:, -count:], directions[:, -2 * count :]
  both = support.before @ twice, query.before @ twice
  chosen = [task_directions(ratios[-2 * count :], x, count) for x in both[0]]
  pairs = {
    'as trained': (support.last, query.last),
    f'{count} of all tasks': (support.before @ few, query.before @ few),
    f'{2 * count} of all tasks': both,
    f'{count} of each task': [list(map(np.matmul, x, chosen)) for x in both],
  }
  return {
    name: accuracies(*pair, support.y, query.y) for name, pair in pairs.items()
  }


def main() -> None:
  """Print the four accuracies."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.last_layer',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--data_dir', default='', help="the run's, if empty")
  parser.add_argument('--episodes', type=int, default=200)
  arguments = parser.parse_args()
  config = setup.read_config(arguments.workdir)
  with config.unlocked():
    config.data.dir = arguments.data_dir or config.data.dir
  learner = config.learner
  if (learner.get('head'), learner.get('net')) != ('prototypes', 'maxpool'):
    parser.error(
      f'{arguments.workdir} is no hypertransformer with head=prototypes and '
      'net=maxpool'
    )
  train, test = (
    features(config, arguments.workdir, split, arguments.episodes)
    for split in ('train', 'test')
  )
  for name, values in compare(train, test).items():
    mean, half = statistics.mean_ci95(values)
    print(f'{name}: {tables.interval(100 * mean, 100 * half, 1)} %')


if __name__ == '__main__':
  main()
