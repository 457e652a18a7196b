"""Temperatures and thresholds, by hand, by brute force and through files."""

import dataclasses

import jax
import numpy as np

import hyperudl
from hyperudl.learners import protonet
from hyperudl.models import calibrate
from hyperudl.ops import normalization
from tests.testing import errors
from tests.testing import models

# Logits that are twice too large: right in 3 of 4, with a probability of .9.
CONFIDENT = calibrate.Predictions(
  np.tile(np.float32([0.9, 0.1]), (4, 1)),
  np.array([0, 0, 0, 1]),
  np.array([-1.0, -2.0, -3.0, -4.0]),
  np.array([-9.0, -3.5]),
)
STORED = {
  'temperature': {'2': 1.0, '8': 3.0},
  'unknown': {'2': 0.8, '8': -0.4},
}


def test_the_temperature_and_the_threshold_are_those_by_hand():
  found = calibrate.summarise(CONFIDENT)
  # log(.9 / .1) / T = log(.75 / .25)
  np.testing.assert_allclose(found['temperature'], 2, rtol=1e-4)
  # Below -3 are both of the other images, and one of four.
  assert found['unknown'] == -3
  assert found['auroc'] == 7 / 8 and found['ece'] < 1e-4


def test_no_threshold_separates_better():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.ones(3), 60).astype(np.float32)
  near, far = rng.normal(1, 1, 60), rng.normal(-1, 1, 40)
  y = p.argmax(axis=1)
  found = calibrate.summarise(calibrate.Predictions(p, y, near, far))
  gap = lambda t: np.mean(far < t) - np.mean(near < t)
  best = max(gap(t) for t in np.linspace(-4, 4, 4001))
  assert gap(found['unknown']) >= best - 1e-9
  wins = near[:, None] > far
  np.testing.assert_allclose(found['auroc'], wins.mean())


def test_probabilities_are_the_softmax_of_the_logits():
  x, y = models.support()
  task, queries = models.make().adapt(x[:4], y[:4]), models.pixels(40)
  p = task.predict_proba(queries)
  # Of nearest means they fall with the distance: all logits are negative.
  best = task.best_logits(queries)
  assert best.shape == (40,) and (best < 0).all()
  config = protonet.Config(way=3, channels=(6, 6))
  logits = jax.jit(protonet.make(config).predict)
  with normalization.replaying(task.adapted.statistics):
    z = logits(
      task.model.params, task.adapted.task, queries[..., None] / 255.0, None
    )
  np.testing.assert_allclose(best, np.max(z[:, :2], axis=1), rtol=1e-4)
  np.testing.assert_allclose(p, jax.nn.softmax(z[:, :2]), atol=1e-5)


def test_between_numbers_of_classes_it_is_interpolated():
  model = models.make()
  assert calibrate.stored(model, 'temperature', 4) is None
  carries = lambda found: dataclasses.replace(
    model, about={'calibration': found}
  )
  values = [calibrate.stored(carries(STORED), 'temperature', n) for n in (2, 4)]
  np.testing.assert_allclose(values, [1, 2])
  assert calibrate.stored(carries(STORED), 'unknown', 20) == -0.4
  for bad in ({}, {'unknown': {'2': 'x'}}, {'unknown': {'2': np.inf}}, 3):
    text = errors.refusal(calibrate.stored, carries(bad), 'unknown', 2)
    assert 'Model.calibrate' in text


def test_a_model_carries_its_calibration_to_tasks_and_files(tmp_path):
  x, y = models.pixels(24, seed=1), np.repeat(range(8), 3)
  model = models.make().calibrate(x, y)
  found = model.about['calibration']
  assert found['tasks'] == 80 and set(found['temperature']) == {'2', '3'}
  model.save(tmp_path / 'model.npz')
  again = hyperudl.load(tmp_path / 'model.npz')
  assert again.about['calibration'] == found
  made = hyperudl.FewShotClassifier(again, unknown='auto')
  made.fit(*models.support(shots=1))
  assert made.task_.temperature == found['temperature']['3']
  queries = models.pixels(9)
  below = made.task_.best_logits(queries) < found['unknown']['3']
  assert (made.predict(queries) == 'unknown').tolist() == below.tolist()


def test_faults_are_refused():
  model, (x, y) = models.make(), models.support()
  assert '2 classes' in errors.refusal(model.calibrate, x[:4], y[:4])
  assert 'shape' in errors.refusal(model.calibrate, x, y[:4])
  assert 'load its run' in errors.refusal(model.calibrate)
  for unknown, words in (('auto', 'Model.calibrate'), (2, 'unknown=2')):
    made = hyperudl.FewShotClassifier(model, unknown=unknown)
    assert words in errors.refusal(made.fit, x, y)
