"""Would a last layer of the task's own help? A linear answer for one run.

  python launch/last_layer.py --workdir=runs/ht --data_dir=DIR

The run is a `hypertransformer` with prototypes. Its last convolution makes C
numbers of the D that come before it. Here linear maps stand in for it, and
queries go to the nearest prototype as ever:
  C of all tasks    the C best directions by Fisher's criterion (variance
                    between over within classes) on episodes of training classes
  2 C of all tasks  twice as many of these
  C of each task    in the span of the 2 C, those in which Fisher's ratios plus
                    the scatter of the task's own support are largest
Accuracies with 95% intervals over test episodes.
"""

import argparse

import jax
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.evaluation import evaluator as evaluation
from hyperudl.evaluation import statistics
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import episode_network
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.storage import selection
from hyperudl.training import runs

_CALL = 20  # episodes


def features(config, workdir, split, count):
  """Activations before the last convolution, and the features behind it.

  Returns:
    Dict of support, query f32[E, n, D], last_support, last_query f32[E, n, C],
    and the labels y, query_y i32[E, n].
  """
  evaluator = evaluation.Evaluator(config, split, count)
  raw, step, _ = selection.restore_step(workdir, 'latest')
  params = evaluation.fit(raw, evaluation.template(evaluator), step)
  settings = config_lib.learner_settings(config)
  s = hypertransformer.settings_of(config.episode.way, **settings)
  block = weight_generator.block(s)

  def of_one(episode):
    key = jax.random.key(0)
    task = episode_network.task_of(s, params, episode.support, key, False)
    found = {'y': episode.support.y, 'query_y': episode.query.y}
    for name, part in (('support', episode.support), ('query', episode.query)):
      z = episode_network.pixels(part.x)
      for i in range(s.depth - 1):
        z = block.apply({'params': task['cnn'][f'block{i}']}, z)
      found[name] = z.reshape(len(z), -1)
      found[f'last_{name}'] = episode_network.embed(s, task['cnn'], part.x)
    return found

  every = jax.jit(lambda episodes: jax.lax.map(of_one, episodes))
  parts = []
  for start in range(0, count, _CALL):
    batch, _ = evaluator.batch(start, min(_CALL, count - start))
    parts.append(
      jax.device_get(every(core.Episode(batch.support, batch.query)))
    )
  return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def accuracies(support, query, y, query_y):
  """f64[E], of the nearest prototype, per episode."""
  found = []
  for x, z, names, wanted in zip(support, query, y, query_y):
    classes = np.unique(names)
    means = np.stack([x[names == c].mean(0) for c in classes])
    distances = ((z[:, None] - means) ** 2).sum(-1)
    found.append(np.mean(classes[distances.argmin(1)] == wanted))
  return np.array(found)


def fisher(rows, labels, ridge=1e-3):
  """Directions in which classes lie apart, the best last.

  Args:
    rows: list of f[n, D], one an episode.
    labels: list of i[n].
    ridge: added to the variance within, times its mean.

  Returns:
    (ratios f64[D], directions f64[D, D] that have unit variance within).
  """
  size = rows[0].shape[1]
  within, between = np.zeros((size, size)), np.zeros((size, size))
  freedom = classes = 0
  for x, y in zip(rows, labels):
    for c in np.unique(y):
      own = x[y == c] - x[y == c].mean(0)
      within += own.T @ own
      freedom += len(own) - 1
      apart = x[y == c].mean(0) - x.mean(0)
      between += np.outer(apart, apart)
      classes += 1
  within = within / freedom
  within += ridge * np.trace(within) / size * np.eye(size)
  whiten = np.linalg.cholesky(np.linalg.inv(within))
  ratios, turned = np.linalg.eigh(whiten.T @ (between / classes) @ whiten)
  return ratios, whiten @ turned


def own_directions(ratios, support, count):
  """f64[D, count]: where ratios plus the scatter of `support` are largest."""
  centred = support - support.mean(0)
  scatter = centred.T @ centred / len(support)
  return np.linalg.eigh(np.diag(ratios) + scatter)[1][:, -count:]


def main():
  """Prints the four accuracies."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--data_dir', default='', help="the run's, if empty")
  parser.add_argument('--episodes', type=int, default=200)
  arguments = parser.parse_args()
  config = runs.read_config(arguments.workdir)
  with config.unlocked():
    config.data.dir = arguments.data_dir or config.data.dir
  learner = config.learner
  if (learner.get('head'), learner.get('net')) != ('prototypes', 'maxpool'):
    parser.error(
      f'{arguments.workdir} is no hypertransformer with head=prototypes and '
      'net=maxpool'
    )
  read = lambda split: features(
    config, arguments.workdir, split, arguments.episodes
  )
  train, test = read('train'), read('test')
  join = lambda a, b: list(np.concatenate([train[a], train[b]], axis=1))
  ratios, directions = fisher(join('support', 'query'), join('y', 'query_y'))
  count = test['last_support'].shape[-1]
  few, twice = directions[:, -count:], directions[:, -2 * count :]
  both = [test[name] @ twice for name in ('support', 'query')]
  own = [own_directions(ratios[-2 * count :], x, count) for x in both[0]]
  rows = {
    'as trained': (test['last_support'], test['last_query']),
    f'{count} of all tasks': (test['support'] @ few, test['query'] @ few),
    f'{2 * count} of all tasks': both,
    f'{count} of each task': [
      np.stack(list(map(np.matmul, x, own))) for x in both
    ],
  }
  for name, (support, query) in rows.items():
    found = accuracies(support, query, test['y'], test['query_y'])
    mean, half = statistics.mean_ci95(found)
    print(f'{name}: {100 * mean:.1f} +- {100 * half:.1f} %')


if __name__ == '__main__':
  main()
