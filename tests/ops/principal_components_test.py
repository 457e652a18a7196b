"""Principal components of an episode against NumPy's SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.ops import principal_components

IMAGES = np.random.default_rng(0).normal(size=(7, 4, 3, 2))


def by_svd(x, count):
  """Scores of every row, from the singular vectors of the centred matrix."""
  x = x.reshape(len(x), -1)
  left, spread, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
  left *= np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])
  return (left * spread / (spread[0] / np.sqrt(len(x))))[:, :count]


@pytest.mark.parametrize('count', [1, 4, 6])
def test_scores_are_those_of_the_svd(count):
  ours = principal_components.principal_scores(
    jnp.asarray(IMAGES, jnp.float32), jnp.ones(7), count
  )
  np.testing.assert_allclose(ours, by_svd(IMAGES, count), atol=1e-4)


def test_a_row_that_is_masked_changes_nothing_and_gets_nothing():
  mask = jnp.array([1, 1, 0, 1, 1, 0, 1.0])
  one = principal_components.principal_scores(jnp.asarray(IMAGES), mask, 3)
  changed = jnp.asarray(IMAGES).at[jnp.array([2, 5])].set(9.0)
  two = principal_components.principal_scores(changed, mask, 3)
  np.testing.assert_allclose(one, two, atol=1e-6)
  rows = np.flatnonzero(mask)
  np.testing.assert_allclose(one[rows], by_svd(IMAGES[rows], 3), atol=1e-4)
  assert not one[jnp.array([2, 5])].any()


def test_more_columns_than_images_are_zeros_and_equal_images_are_finite():
  scores = principal_components.principal_scores(
    jnp.asarray(IMAGES), jnp.ones(7), 10
  )
  assert scores.shape == (7, 10)
  assert float(jnp.abs(scores[:, 6:]).max()) < 1e-3
  flat = principal_components.principal_scores(jnp.ones((4, 5)), jnp.ones(4), 3)
  assert np.isfinite(flat).all() and float(jnp.abs(flat).max()) < 1e-3


def test_no_gradient_passes():
  total = lambda x: principal_components.principal_scores(
    x, jnp.ones(7), 3
  ).sum()
  assert not jax.grad(total)(jnp.asarray(IMAGES)).any()
