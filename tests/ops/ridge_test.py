"""Ridge regression against least squares of NumPy, in both forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.ops import ridge


def problem(rows, size, classes=3):
  rng = np.random.default_rng(0)
  features = rng.normal(size=(rows, size)).astype(np.float32)
  targets = rng.normal(size=(rows, classes)).astype(np.float32)
  weights = rng.uniform(0.1, 2.0, rows).astype(np.float32)
  weights[1] = 0.0
  return features, targets, weights


def by_least_squares(features, targets, weights, penalty):
  """The penalty as further rows, sqrt(penalty) times the identity."""
  root = np.sqrt(weights)[:, None]
  size = features.shape[1]
  x = np.concatenate([root * features, np.sqrt(penalty) * np.eye(size)])
  y = np.concatenate([root * targets, np.zeros((size, targets.shape[1]))])
  return np.linalg.lstsq(x, y, rcond=None)[0]


@pytest.mark.parametrize('rows, size', [(4, 9), (12, 5), (6, 6)])
@pytest.mark.parametrize('penalty', [0.3, 5.0])
def test_weights_are_those_of_least_squares(rows, size, penalty):
  data = problem(rows, size)
  expected = by_least_squares(*data, penalty)
  fitted = ridge.fit(*map(jnp.asarray, data), penalty)
  np.testing.assert_allclose(fitted, expected, rtol=1e-3, atol=1e-4)


def test_gradients_are_finite_where_a_row_does_not_count():
  features, targets, weights = map(jnp.asarray, problem(4, 9))
  loss = lambda x, w, penalty: jnp.sum(ridge.fit(x, targets, w, penalty))
  grads = jax.grad(loss, (0, 1, 2))(features, weights, jnp.float32(0.3))
  assert all(np.isfinite(leaf).all() for leaf in grads)
  np.testing.assert_array_equal(grads[0][1], 0.0)


def test_the_gradient_of_the_penalty_is_a_finite_difference():
  data = tuple(map(jnp.asarray, problem(6, 6)))
  loss = lambda penalty: jnp.sum(ridge.fit(*data, penalty))
  step = 0.01
  difference = (loss(1.0 + step) - loss(1.0 - step)) / (2 * step)
  np.testing.assert_allclose(jax.grad(loss)(1.0), difference, rtol=1e-2)
