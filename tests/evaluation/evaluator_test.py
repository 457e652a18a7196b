"""The pixel baseline, ensembles and result lines by hand."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.evaluation import evaluator
from tests.testing import image_sets


def test_pixel_nearest_neighbour_by_loops():
  rng = np.random.default_rng(0)
  support = rng.uniform(size=(6, 3, 3, 1))
  query = rng.uniform(size=(20, 3, 3, 1))
  y = np.array([0, 1, 2, 0, -1, -1])
  target = rng.integers(0, 3, size=20)
  hits = 0
  for image, label in zip(query, target):
    similarity = [
      -np.inf
      if y[i] < 0
      else (image * s).sum() / np.sqrt((image**2).sum() * (s**2).sum())
      for i, s in enumerate(support)
    ]
    hits += y[int(np.argmax(similarity))] == label
  episode = core.Episode(
    core.Examples(jnp.asarray(support), jnp.asarray(y)),
    core.Examples(jnp.asarray(query), jnp.asarray(target)),
  )
  accuracy = evaluator.pixel_nearest_neighbour(episode)
  assert accuracy == pytest.approx(hits / 20)


def test_an_ensemble_averages_probabilities():
  y = np.array([[0, 1]])
  run = lambda p: {
    'probabilities': np.array([p]),
    'y': y,
    'accuracy_pixels': np.array([0.5]),
    'family': np.array([0]),
  }
  first = run([[0.9, 0.1], [0.6, 0.4]])
  second = run([[0.3, 0.7], [0.1, 0.9]])
  both = evaluator.ensemble([first, second])
  np.testing.assert_allclose(both['accuracy'], [1.0])
  expected = -(np.log(0.6) + np.log(0.65)) / 2
  np.testing.assert_allclose(both['nll'], [expected])


def test_a_row_has_means_with_intervals_and_the_conditions():
  config = importlib.import_module('configs.protonet').get_config()
  values = {
    'accuracy': np.array([0.2, 0.4, 0.6]),
    # Certain of class 0 and right in a third of the cases.
    'probabilities': np.tile(np.eye(5)[0], (3, 2, 1)),
    'y': np.array([[0, 1], [0, 2], [3, 4]]),
    'family': np.array([0, 1, 2]),
    'episode': np.array([7, 8, 9]),
  }
  row = evaluator.summarise(config, values)
  assert row['ece'] == pytest.approx(2 / 3)
  assert row['episodes'] == 3
  assert row['accuracy'] == pytest.approx(0.4)
  # 4.303 is the 97.5% point of Student's t with 2 degrees of freedom.
  half = 4.302653 * 0.2 / np.sqrt(3)
  assert row['accuracy_ci95'] == pytest.approx(half)
  # Batch statistics at query time are a transductive channel.
  assert row['transductive'] is True
  assert not {'family', 'episode', 'probabilities'} & row.keys()
  assert (row['support_query'], row['augment']) == ('disjoint', 'none')
  with config.unlocked():
    config.data.support_query, config.data.augment_tests = 'reference', True
  row = evaluator.summarise(config, values)
  assert (row['support_query'], row['augment']) == ('reference', 'rot90')


def test_an_ensemble_ignores_queries_without_a_label():
  p = np.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]])
  run = {'probabilities': p, 'y': np.array([[0, 1, -1]]), 'family': np.zeros(1)}
  values = evaluator.ensemble([run, run])
  np.testing.assert_allclose(values['accuracy'], [1.0])
  np.testing.assert_allclose(values['nll'], [-(np.log(0.9) + np.log(0.8)) / 2])


def test_a_row_has_the_accuracy_of_each_alphabet():
  config = importlib.import_module('configs.protonet').get_config()
  values = {
    'accuracy': np.array([0.2, 0.4, 0.6, 0.9]),
    'alphabet': np.array(['ink', 'tile', 'ink', 'size']),
  }
  row = evaluator.summarise(config, values)
  assert row['accuracy/ink'] == pytest.approx(0.4)
  # 12.71 is the 97.5% point of Student's t with one degree of freedom.
  half = 12.7062 * np.sqrt(0.08) / np.sqrt(2)
  assert row['accuracy/ink_ci95'] == pytest.approx(half, rel=1e-4)
  assert not {'alphabet', 'accuracy/size'} & row.keys()  # of one episode: none


def test_an_evaluation_tells_which_alphabet_each_episode_is_of(tmp_path):
  names = np.array([f'{alphabet}{i}' for alphabet in 'abc' for i in range(3)])
  image_sets.save(
    tmp_path,
    images=image_sets.pixels(9, 3, 28),
    class_names=names,
    alphabets=np.array([name[0] for name in names]),
    split=np.array(['train', 'valid', 'test'] * 3),
  )
  config = importlib.import_module('configs.protonet').get_config(
    'set,way=2,query=1,group=alphabet'
  )
  with config.unlocked():
    config.data.dir = str(tmp_path)
    config.learner.channels = (4, 4)
  tester = evaluator.Evaluator(config, 'all', 8)
  episodes = tester.batch(0, 8)[0]
  values = tester.run(trained(tester))
  drawn = names[np.asarray(episodes.extra['class_ids'])]
  assert values['alphabet'].tolist() == [each[0][0] for each in drawn]
  assert all(first[0] == second[0] for first, second in drawn)
  assert any(
    'accuracy/' in name for name in evaluator.summarise(config, values)
  )


def trained(tester):
  """Parameters of the learner; all are zero."""
  shapes = tester.param_shapes()
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
