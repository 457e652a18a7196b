"""The linear analysis of a last layer, on points whose answer is known."""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'launch'))
import last_layer


def test_the_best_directions_are_those_in_which_classes_lie_apart():
  rng = np.random.default_rng(0)
  spread = np.array([1.0, 4.0, 0.5, 1.0])
  apart = np.array([0.0, 8.0, 3.0, 0.2])
  y = np.repeat(np.arange(300), 4)
  x = rng.normal(size=(300, 4))[y] * apart + rng.normal(size=(1200, 4)) * spread
  ratios, directions = last_layer.fisher([x], [y], ridge=0.0)
  # Variance of means of four over that within: apart^2 / spread^2 + 1 / 4.
  wanted = np.sort(apart**2 / spread**2 + 0.25)
  np.testing.assert_allclose(ratios, wanted, rtol=0.2)
  shares = np.abs(directions) * spread[:, None]
  np.testing.assert_array_equal(shares.argmax(axis=0)[-2:], [1, 2])
  # Unit variance within, in every direction.
  within = np.concatenate([x[y == c] - x[y == c].mean(0) for c in range(300)])
  covariance = within.T @ within / 900
  np.testing.assert_allclose(
    directions.T @ covariance @ directions, np.eye(4), atol=1e-6
  )


def test_own_directions_follow_the_support_where_ratios_are_level():
  support = np.array([[3.0, 0, 0], [-3.0, 0, 0], [0, 0.1, 0], [0, -0.1, 0]])
  own = last_layer.own_directions(np.ones(3), support, 1)
  np.testing.assert_allclose(np.abs(own[:, 0]), [1, 0, 0], atol=1e-9)
  # A large ratio wins over a small scatter.
  own = last_layer.own_directions(np.array([1.0, 9.0, 1.0]), support, 1)
  np.testing.assert_allclose(np.abs(own[:, 0]), [0, 1, 0], atol=1e-9)


def test_accuracies_are_those_of_the_nearest_mean():
  support = np.array([[[0.0], [2.0], [10.0]]])
  y = np.array([[0, 0, 1]])  # means 1 and 10
  query = np.array([[[5.0], [6.0], [-9.0], [5.4]]])
  wanted = np.array([[0, 1, 0, 1]])
  found = last_layer.accuracies(support, query, y, wanted)
  np.testing.assert_array_equal(found, [0.75])
