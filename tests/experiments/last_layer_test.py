"""The linear analysis of a last layer, on points whose answer is known."""

import numpy as np

from experiments import last_layer


def test_the_best_directions_are_those_in_which_classes_lie_apart():
  rng = np.random.default_rng(0)
  spread = np.array([1.0, 4.0, 0.5, 1.0])
  apart = np.array([0.0, 8.0, 3.0, 0.2])
  y = np.repeat(np.arange(300), 4)
  x = rng.normal(size=(300, 4))[y] * apart + rng.normal(size=(1200, 4)) * spread
  ratios, directions = last_layer.fisher([x], [y], ridge=0.0)
  # Variance of means of four over that within: apart^2 / spread^2 + 1 / 4.
  expected = np.sort(apart**2 / spread**2 + 0.25)
  np.testing.assert_allclose(ratios, expected, rtol=0.2)
  sizes = np.abs(directions) * spread[:, None]
  np.testing.assert_array_equal(sizes.argmax(axis=0)[-2:], [1, 2])
  # Unit variance within, in every direction.
  within = np.concatenate([x[y == c] - x[y == c].mean(0) for c in range(300)])
  covariance = within.T @ within / 900
  np.testing.assert_allclose(
    directions.T @ covariance @ directions, np.eye(4), atol=1e-6
  )


def test_directions_of_a_task_follow_its_support_where_ratios_are_level():
  support = np.array([[3.0, 0, 0], [-3.0, 0, 0], [0, 0.1, 0], [0, -0.1, 0]])
  best = last_layer.task_directions(np.ones(3), support, 1)
  np.testing.assert_allclose(np.abs(best[:, 0]), [1, 0, 0], atol=1e-9)
  # A large ratio wins over a small scatter.
  best = last_layer.task_directions(np.array([1.0, 9.0, 1.0]), support, 1)
  np.testing.assert_allclose(np.abs(best[:, 0]), [0, 1, 0], atol=1e-9)


def test_accuracies_are_those_of_the_nearest_mean():
  support = np.array([[[0.0], [2.0], [10.0]]])
  y = np.array([[0, 0, 1]])  # means 1 and 10
  query = np.array([[[5.0], [6.0], [-9.0], [5.4]]])
  expected = np.array([[0, 1, 0, 1]])
  values = last_layer.accuracies(support, query, y, expected)
  np.testing.assert_array_equal(values, [0.75])


def test_last_layers_are_compared_on_the_same_episodes():
  rng = np.random.default_rng(0)

  def draw(episodes, count):
    y = np.tile(np.arange(3), (episodes, count))
    centres = rng.normal(size=(episodes, 3, 8)) * 5
    noise = rng.normal(size=(episodes, 3 * count, 8))
    x = np.take_along_axis(centres, y[..., None], axis=1) + noise
    # The trained last layer sees what no class differs in.
    return last_layer.Features(y, x, rng.normal(size=(*y.shape, 2)))

  def pair(episodes):
    whole = draw(episodes, 8)
    return tuple(
      last_layer.Features(*(part[:, rows] for part in whole))
      for rows in (slice(0, 9), slice(9, None))
    )

  scores = last_layer.compare(pair(20), pair(30))
  names = [
    'as trained',
    *(f'{n} of all tasks' for n in (2, 4)),
    '2 of each task',
  ]
  assert list(scores) == names
  assert all(values.shape == (30,) for values in scores.values())
  assert scores['as trained'].mean() < 0.5 < scores['4 of all tasks'].mean()
