"""Soft k-means of prototypes against plain loops, k-means against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster import vq

from hyperudl.ops import clustering


def _numpy(head, features, mask, prior, mass, scale, iterations):
  unit = lambda v: v / np.linalg.norm(v)
  initial = [unit(row) for row in head]
  centroids = list(initial)
  for _ in range(iterations):
    sums = [prior * row for row in initial]
    totals = [prior] * len(initial)
    for feature, counts in zip(features, mask):
      feature = unit(feature)
      weights = [np.exp(scale * feature @ unit(row)) for row in centroids]
      for c, weight in enumerate(weights):
        assigned = mass * counts * weight / sum(weights)
        sums[c] = sums[c] + assigned * feature
        totals[c] += assigned
    centroids = [total / count for total, count in zip(sums, totals)]
  return np.stack(centroids)


def _case(seed=0):
  rng = np.random.default_rng(seed)
  head, features = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
  return head, features, np.array([1, 1, 0, 1, 1, 1, 0.0])


def test_refined_prototypes_equal_plain_loops():
  head, features, mask = _case()
  settings = {'prior': 2.0, 'mass': 0.7, 'scale': 4.0, 'iterations': 3}
  refined = clustering.refine_prototypes(
    jnp.asarray(head, jnp.float32),
    jnp.asarray(features, jnp.float32),
    jnp.asarray(mask, jnp.float32),
    **settings,
  )
  expected = _numpy(head, features, mask, **settings)
  np.testing.assert_allclose(refined, expected, rtol=1e-4, atol=1e-5)


def test_no_mass_or_no_rows_change_no_direction():
  head, features, mask = (jnp.asarray(a, jnp.float32) for a in _case())
  unit = head / jnp.linalg.norm(head, axis=1, keepdims=True)
  settings = {'prior': 1.0, 'scale': 4.0, 'iterations': 2}
  for rows, mass in ((mask, 0.0), (jnp.zeros(7), 1.0)):
    refined = clustering.refine_prototypes(
      head, features, rows, mass=mass, **settings
    )
    np.testing.assert_allclose(refined, unit, rtol=1e-5, atol=1e-6)


def test_two_clear_clusters_are_found_from_skewed_prototypes():
  rng = np.random.default_rng(1)
  centroids = np.eye(4)[:2]
  features = np.repeat(centroids, 20, axis=0) + 0.05 * rng.normal(size=(40, 4))
  skewed = centroids + np.array([[0, 0, 0.8, 0], [0, 0, 0.8, 0]])
  refined = clustering.refine_prototypes(
    jnp.asarray(skewed, jnp.float32),
    jnp.asarray(features, jnp.float32),
    jnp.ones(40),
    prior=1.0,
    mass=1.0,
    scale=10.0,
    iterations=3,
  )
  refined = refined / np.linalg.norm(refined, axis=1, keepdims=True)
  initial = skewed / np.linalg.norm(skewed, axis=1, keepdims=True)
  angle = lambda rows: np.sum(rows * centroids, axis=1)
  assert (angle(np.asarray(refined)) > angle(initial) + 0.1).all()


def _inertia(x, centroids):
  return np.sum(np.min(((x[:, None] - centroids) ** 2).sum(-1), axis=1))


@pytest.mark.parametrize('seed', range(3))
def test_k_means_is_as_good_as_that_of_scipy(seed):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(60, 3)) + 3 * rng.normal(size=(4, 3)).repeat(15, axis=0)
  centroids = clustering.k_means(
    jax.random.key(seed), jnp.asarray(x, jnp.float32), jnp.ones(60), 4
  )
  peers = [vq.kmeans2(x, 4, minit='++', rng=rng)[0] for _ in range(10)]
  best = min(_inertia(x, peer) for peer in peers)
  assert _inertia(x, np.asarray(centroids)) < 1.02 * best


def test_seeds_are_far_from_all_seeds_before_them():
  x = jnp.repeat(jnp.array([[0.0], [5.0], [10.0], [16.0]]), 3, axis=0)
  for seed in range(10):  # a single run, without iterations that could repair
    centroids = clustering.k_means(
      jax.random.key(seed), x, jnp.ones(12), 4, restarts=1, iterations=0
    )
    np.testing.assert_allclose(jnp.sort(centroids[:, 0]), [0, 5, 10, 16])


def test_masked_rows_neither_seed_nor_move_a_centroid():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(12, 2)), jnp.float32)
  mask = jnp.array([1.0] * 9 + [0.0] * 3)
  run = lambda x: clustering.k_means(jax.random.key(0), x, mask, 3)
  np.testing.assert_allclose(run(x), run(x.at[9:].set(50.0)), rtol=1e-5)
  assert float(jnp.abs(run(x)).max()) < 5


def test_centroids_have_the_gradient_of_a_mean():
  x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
  total = lambda x: jnp.sum(
    clustering.k_means(jax.random.key(0), x, jnp.ones(4), 2)
  )
  np.testing.assert_allclose(jax.grad(total)(x)[:, 0], 0.5, rtol=1e-6)


def test_equal_rows_are_clustered_without_harm():
  x = jnp.ones((5, 2))
  centroids = clustering.k_means(jax.random.key(0), x, jnp.ones(5), 3)
  assert jnp.isfinite(centroids).all()
