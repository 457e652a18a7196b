"""Calibration against hand numbers, SciPy and known cases."""

import numpy as np
import pytest
from scipy import optimize
from scipy import special
from scipy import stats as scipy_stats

from hyperudl.evaluation import calibration


def draw(n=4000, ways=4, scale=2.0, seed=0):
  """Logits, and labels drawn from their softmax."""
  rng = np.random.default_rng(seed)
  logits = scale * rng.normal(size=(n, ways))
  p = special.softmax(logits, axis=-1)
  y = np.array([rng.choice(ways, p=row) for row in p])
  return logits, p, y


def test_scores_by_hand():
  p = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]])
  y = np.array([0, 2])
  np.testing.assert_allclose(
    calibration.nll(p, y), -(np.log(0.7) + np.log(0.4)) / 2
  )
  first = 0.3**2 + 0.2**2 + 0.1**2
  second = 0.1**2 + 0.5**2 + 0.6**2
  np.testing.assert_allclose(calibration.brier(p, y), (first + second) / 2)
  # Confidences .7 (right) and .5 (wrong) lie in bins of their own.
  error = calibration.expected_calibration_error(p, y)
  np.testing.assert_allclose(error, (0.3 + 0.5) / 2)


def test_bins_count_by_their_rows():
  p = np.array([[0.95, 0.05]] * 3 + [[0.55, 0.45]])
  error = calibration.expected_calibration_error(p, np.array([0, 0, 0, 1]))
  np.testing.assert_allclose(error, (3 * 0.05 + 0.55) / 4)


def test_certain_and_wrong_is_the_worst():
  p, y = np.eye(3)[[0, 1]], np.array([1, 2])
  assert calibration.brier(p, y) == 2
  assert calibration.expected_calibration_error(p, y) == 1
  assert np.isfinite(calibration.nll(p, y))


def test_a_true_model_is_calibrated_and_a_sharper_one_is_not():
  logits, p, y = draw()
  assert calibration.expected_calibration_error(p, y) < 0.03
  sharp = special.softmax(3 * logits, axis=-1)
  assert calibration.expected_calibration_error(sharp, y) > 0.1


def test_bins_of_a_reliability_diagram():
  p = np.array([[0.55, 0.45], [0.6, 0.4], [0.95, 0.05], [1.0, 0.0]])
  y = np.array([0, 1, 0, 0])
  mean, accuracy, count = calibration.reliability(p, y, bins=10)
  # .6 is the end of (.5, .6], 1 that of (.9, 1].
  np.testing.assert_array_equal(count, [0, 0, 0, 0, 0, 2, 0, 0, 0, 2])
  np.testing.assert_allclose([mean[5], accuracy[5]], [0.575, 0.5])
  np.testing.assert_allclose([mean[9], accuracy[9]], [0.975, 1.0])
  assert np.isnan(mean[0])


def test_entropies_are_those_of_scipy():
  _, p, _ = draw(50)
  np.testing.assert_allclose(
    calibration.entropy(p), scipy_stats.entropy(p, axis=-1)
  )


def test_models_that_agree_have_no_mutual_information():
  _, p, _ = draw(20)
  same = np.stack([p] * 5)
  np.testing.assert_allclose(
    calibration.mutual_information(same), 0, atol=1e-12
  )
  # Certain of different classes: all of the entropy is disagreement.
  apart = np.eye(4)[:, None]
  np.testing.assert_allclose(
    calibration.mutual_information(apart), np.log(4), rtol=1e-9
  )


@pytest.mark.parametrize('factor', [0.5, 1.0, 3.0])
def test_the_temperature_minimises_the_nll_and_undoes_a_factor(factor):
  logits, _, y = draw()
  logits = factor * logits
  temperature = calibration.fit_temperature(logits, y)
  loss = lambda t: -special.log_softmax(logits / t, -1)[np.arange(len(y)), y]
  # By another method, over T instead of 1 / T.
  best = optimize.minimize_scalar(
    lambda t: loss(t).mean(), bracket=(0.05, factor, 20.0), method='golden'
  )
  np.testing.assert_allclose(temperature, best.x, rtol=1e-4)
  np.testing.assert_allclose(temperature, factor, rtol=0.1)


def test_a_prior_holds_the_temperature_of_few_rows():
  logits, y = np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([0, 1])
  assert calibration.fit_temperature(logits, y) < 0.1  # all are correct
  found = calibration.fit_temperature(logits, y, near=2.0)
  loss = lambda t: 2 * np.log1p(np.exp(-4 / t)) + (np.log(t / 2) / 0.5) ** 2 / 2
  grid = np.exp(np.linspace(-3, 3, 60001))
  np.testing.assert_allclose(found, grid[loss(grid).argmin()], rtol=1e-3)
  # Many rows outweigh it.
  logits, _, y = draw()
  free = calibration.fit_temperature(logits, y)
  held = calibration.fit_temperature(logits, y, near=5.0)
  np.testing.assert_allclose(held, free, rtol=0.05)
