"""Soft k-means of prototypes against plain loops."""

import jax.numpy as jnp
import numpy as np

from hyperudl import clustering


def _numpy(head, features, mask, prior, mass, scale, iterations):
  unit = lambda v: v / np.linalg.norm(v)
  start = [unit(row) for row in head]
  moved = list(start)
  for _ in range(iterations):
    sums = [prior * row for row in start]
    totals = [prior] * len(start)
    for feature, counts in zip(features, mask):
      feature = unit(feature)
      weights = [np.exp(scale * feature @ unit(row)) for row in moved]
      for c, weight in enumerate(weights):
        share = mass * counts * weight / sum(weights)
        sums[c] = sums[c] + share * feature
        totals[c] += share
    moved = [total / count for total, count in zip(sums, totals)]
  return np.stack(moved)


def _case(seed=0):
  rng = np.random.default_rng(seed)
  head, features = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
  return head, features, np.array([1, 1, 0, 1, 1, 1, 0.0])


def test_it_equals_plain_loops():
  head, features, mask = _case()
  settings = {'prior': 2.0, 'mass': 0.7, 'scale': 4.0, 'iterations': 3}
  found = clustering.refine_prototypes(
    jnp.asarray(head, jnp.float32),
    jnp.asarray(features, jnp.float32),
    jnp.asarray(mask, jnp.float32),
    **settings,
  )
  expected = _numpy(head, features, mask, **settings)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_mass_or_no_rows_change_no_direction():
  head, features, mask = (jnp.asarray(a, jnp.float32) for a in _case())
  unit = head / jnp.linalg.norm(head, axis=1, keepdims=True)
  settings = {'prior': 1.0, 'scale': 4.0, 'iterations': 2}
  for rows, mass in ((mask, 0.0), (jnp.zeros(7), 1.0)):
    found = clustering.refine_prototypes(
      head, features, rows, mass=mass, **settings
    )
    np.testing.assert_allclose(found, unit, rtol=1e-5, atol=1e-6)


def test_two_clear_clusters_are_found_from_skewed_prototypes():
  rng = np.random.default_rng(1)
  centres = np.eye(4)[:2]
  features = np.repeat(centres, 20, axis=0) + 0.05 * rng.normal(size=(40, 4))
  skewed = centres + np.array([[0, 0, 0.8, 0], [0, 0, 0.8, 0]])
  found = clustering.refine_prototypes(
    jnp.asarray(skewed, jnp.float32),
    jnp.asarray(features, jnp.float32),
    jnp.ones(40),
    prior=1.0,
    mass=1.0,
    scale=10.0,
    iterations=3,
  )
  found = found / np.linalg.norm(found, axis=1, keepdims=True)
  start = skewed / np.linalg.norm(skewed, axis=1, keepdims=True)
  angle = lambda rows: np.sum(rows * centres, axis=1)
  assert (angle(np.asarray(found)) > angle(start) + 0.1).all()
