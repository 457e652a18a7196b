"""Measure what a task says of itself, on classes that a run never saw.

  python -m experiments.labelling --workdir=runs/labelling --out=FILE.png

The run is a `protonet` of images whose norm is not 'batch'. Prints and draws:
1. accuracy by the number of labels, when in each round the image of the pool
   with the largest entropy is labelled, or one at random (mean of 5 orders);
2. leave-one-out accuracy of a support minus accuracy on further images;
3. calibration error by how the temperature is chosen, and how well unknown
   classes are told apart by the threshold of the validation classes.
All are means with 95% intervals over tasks of 5 test classes.
"""

import argparse
from collections.abc import Callable

import jax
import numpy as np
from scipy import special

from experiments import tables
from hyperudl import models
from hyperudl.core import config as config_lib
from hyperudl.evaluation import calibration
from hyperudl.evaluation import statistics
from hyperudl.learners import protonet
from hyperudl.models import calibrate
from hyperudl.plots import figure as figures
from hyperudl.training import setup

WAY, ROUNDS, POOL, ORDERS = 5, 15, 11, 5  # POOL images of each class


def draw(
  starts: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Return rows [WAY, 20] of classes drawn at random, and of as many others."""
  classes = rng.permutation(starts)[: 2 * WAY]
  rows = np.stack([start + rng.permutation(count) for start in classes])
  return rows[:WAY], rows[WAY:]


def curve(
  features: np.ndarray,
  scale: float,
  choose: Callable[[np.ndarray], int],
) -> np.ndarray:
  """Return the accuracy after each round of labelling, f64[ROUNDS + 1].

  Args:
    features: f32[WAY, n, D]; the first image of a class is labelled, the others
      of the first POOL may be, the rest are queries.
    scale: of squared distances to class means.
    choose: from probabilities f64[m, WAY] of the pool to the row to label.
  """
  labelled = np.zeros((WAY, POOL), bool)
  labelled[:, 0] = True
  pool, query = features[:, :POOL], features[:, POOL:]
  accuracies = []
  for _ in range(ROUNDS + 1):
    means = np.stack([z[rows].mean(0) for z, rows in zip(pool, labelled)])
    distances = lambda z: ((z[..., None, :] - means) ** 2).sum(-1)
    predictions = distances(query).argmin(-1)
    accuracies.append(np.mean(predictions == np.arange(WAY)[:, None]))
    places = np.argwhere(~labelled)
    p = special.softmax(-scale * distances(pool[~labelled]), axis=-1)
    labelled[tuple(places[choose(p)])] = True
  return np.array(accuracies)


def curves(
  features: np.ndarray, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Return the curves of the largest entropy and of a random choice."""
  least_certain = lambda p: int(calibration.entropy(p).argmax())
  at_random = lambda p: int(rng.integers(len(p)))
  orders = [curve(features, scale, at_random) for _ in range(ORDERS)]
  return curve(features, scale, least_certain), np.mean(orders, axis=0)


def say(name: str, values: np.ndarray, digits: int = 1) -> None:
  """Print a mean with its interval, in %."""
  mean, half = statistics.mean_ci95(100 * np.asarray(values))
  print(f'{name}: {tables.interval(mean, half, digits)}')


def labelling(
  z: np.ndarray, starts: np.ndarray, scale: float, tasks: int, out: str
) -> None:
  """Print and draw the curves of labelling."""
  rng = np.random.default_rng(0)
  drawn = [
    curves(z[draw(starts, 20, rng)[0]], scale, rng) for _ in range(tasks)
  ]
  entropy, random = np.array(drawn).transpose(1, 0, 2)
  for labels in (0, 1, 5, 10, ROUNDS):
    say(f'{labels} labels, entropy', entropy[:, labels])
    say(f'{labels} labels, random', random[:, labels])
    say(f'{labels} labels, difference', (entropy - random)[:, labels])
  say('all rounds, difference', (entropy - random)[:, 1:].mean(axis=1))
  figure, ((axes,),) = figures.make(size=(6, 4))
  for label, values in (('largest entropy', entropy), ('random', random)):
    mean, half = statistics.mean_ci95(values)
    axes.errorbar(range(ROUNDS + 1), mean, half, capsize=3, label=label)
  labels = {'xlabel': 'labels added to one of each class', 'ylabel': 'accuracy'}
  figures.finish(axes, **labels)
  figures.save(figure, out)


def folders(
  model: models.Model, x: np.ndarray, starts: np.ndarray, tasks: int
) -> None:
  """Print leave-one-out estimates, calibration, and unknown classes."""
  rng, y = np.random.default_rng(1), np.repeat(range(WAY), 10)
  found, kinds = [], {}
  limit = calibrate.stored(model, 'unknown', WAY)
  for _ in range(tasks):
    rows, others = draw(starts, 20, rng)
    queries = x[rows[:, 10:].ravel()]
    for shot in (1, 5):
      support = x[rows[:, :shot].ravel()]
      task = model.adapt(support, np.repeat(range(WAY), shot))
      for kind in (1.0, 'auto'):
        p = task.calibrate(kind).probabilities(queries)
        kinds.setdefault((shot, kind), []).append(p)
    accuracy, left_out = np.mean(p.argmax(1) == y), task.report['leave_one_out']
    low, high = left_out['ci95']
    near, far = map(task.best_logits, (queries, x[others[:, 10:].ravel()]))
    found.append(
      {
        'leave-one-out accuracy': left_out['accuracy'],
        'accuracy': accuracy,
        'leave-one-out minus accuracy': left_out['accuracy'] - accuracy,
        'intervals that hold the accuracy': low <= accuracy <= high,
        'AUROC of unknown classes': calibration.auroc(-near, -far),
        'images of its classes called unknown': np.mean(near < limit),
        'images of other classes called unknown': np.mean(far < limit),
      }
    )
  for name in found[0]:
    say(name, np.array([values[name] for values in found], float))
  for (shot, kind), parts in kinds.items():
    pair = np.concatenate(parts), np.tile(y, tasks)
    error = calibration.expected_calibration_error(*pair)
    nll = calibration.nll(*pair)
    print(f'{shot} shot, temperature={kind}: ECE {error:.3f}, NLL {nll:.3f}')


def main() -> None:
  """Print all numbers and draw the curves."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.labelling',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--out', default='labelling.png')
  parser.add_argument('--tasks', type=int, default=100)
  parser.add_argument('--folders', type=int, default=50)
  arguments = parser.parse_args()
  model = models.load(arguments.workdir, 'latest')
  data = setup.load_data(model.config, 'test')
  x = np.asarray(data.images, np.float32) / 255
  settings = config_lib.learner_settings(model.config)
  config = protonet.Config(way=WAY, **settings)
  embed = jax.jit(lambda x: protonet.embed(config, model.params, x))
  z = np.concatenate([embed(part) for part in np.split(x, len(x) // 20)])
  scale = float(np.exp(model.params['log_scale']))
  labelling(z, data.starts, scale, arguments.tasks, arguments.out)
  folders(model.calibrate(), x, data.starts, arguments.folders)


if __name__ == '__main__':
  main()
