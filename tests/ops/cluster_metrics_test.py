"""Alignment against SciPy, indices against their definitions by counting."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from hyperudl.ops import cluster_metrics


@pytest.mark.parametrize('way', [1, 2, 4, 5, 20])
def test_alignment_is_that_of_scipy(way):
  rng = np.random.default_rng(way)
  tables = rng.normal(size=(1000, way, way)).astype(np.float32)
  orders = jax.jit(jax.vmap(cluster_metrics.align))(tables)
  for table, order in zip(tables, np.asarray(orders)):
    rows, columns = optimize.linear_sum_assignment(table, maximize=True)
    np.testing.assert_array_equal(order[rows], columns)


def test_names_turn_clusters_into_classes():
  y = jnp.array([0, 1, 2, 0, 1, 2])
  clusters = jnp.array([2, 0, 1, 2, 0, 1])
  logits = 5 * jax.nn.one_hot(clusters, 3)
  confusion = cluster_metrics.soft_confusion(jax.nn.log_softmax(logits), y, 3)
  order = cluster_metrics.align(confusion)
  assert order.tolist() == [2, 0, 1]
  named = logits[:, order].argmax(axis=-1)
  np.testing.assert_array_equal(named, y)


def test_images_of_no_class_do_not_count():
  log_p = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
  with_it = cluster_metrics.soft_confusion(log_p, jnp.array([0, 1, 2]), 2)
  without = cluster_metrics.soft_confusion(log_p[:2], jnp.array([0, 1]), 2)
  np.testing.assert_allclose(with_it, without, rtol=1e-6)
  masked = cluster_metrics.soft_confusion(log_p, jnp.array([0, 1, -1]), 2)
  np.testing.assert_allclose(masked, without, rtol=1e-6)


def test_alignment_has_no_gradient():
  table = jax.random.normal(jax.random.key(0), (4, 4))

  def aligned(table):
    return jnp.sum(table[jnp.arange(4), cluster_metrics.align(table)])

  gradient = jax.jit(jax.grad(aligned))(table)
  order = cluster_metrics.align(table)
  np.testing.assert_array_equal(gradient, jax.nn.one_hot(order, 4))


def _counted_rand(a, b):
  """From the definition: pairs that both partitions put together."""
  pairs = list(itertools.combinations(range(len(a)), 2))
  in_a = np.array([a[i] == a[j] for i, j in pairs], float)
  in_b = np.array([b[i] == b[j] for i, j in pairs], float)
  expected = in_a.sum() * in_b.sum() / len(pairs)
  most = (in_a.sum() + in_b.sum()) / 2
  return ((in_a * in_b).sum() - expected) / (most - expected)


def _counted_information(a, b):
  n, shared = len(a), 0.0
  fraction = lambda x, v: np.mean(np.array(x) == v)
  for i, j in itertools.product(set(a), set(b)):
    both = np.mean((np.array(a) == i) & (np.array(b) == j))
    if both:
      shared += both * np.log(both / (fraction(a, i) * fraction(b, j)))
  entropy = lambda x: (
    -sum(fraction(x, v) * np.log(fraction(x, v)) for v in set(x))
  )
  assert n
  return 2 * shared / (entropy(a) + entropy(b))


@pytest.mark.parametrize('seed', range(5))
def test_indices_equal_counting(seed):
  rng = np.random.default_rng(seed)
  a = rng.integers(0, 4, 30)
  b = np.where(rng.uniform(size=30) < 0.4, rng.integers(0, 4, 30), (a + 1) % 4)
  table = cluster_metrics.contingency(a, b, 4)
  assert table.sum() == 30
  np.testing.assert_allclose(
    cluster_metrics.adjusted_rand(table), _counted_rand(a, b), rtol=1e-4
  )
  np.testing.assert_allclose(
    cluster_metrics.normalised_information(table),
    _counted_information(list(a), list(b)),
    rtol=1e-4,
  )


def test_indices_of_partitions_with_unlike_entropies_equal_counting():
  a, b = [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 1, 0, 0]
  table = cluster_metrics.contingency(jnp.array(a), jnp.array(b), 4)
  np.testing.assert_allclose(
    cluster_metrics.adjusted_rand(table),
    _counted_rand(a, b),
    rtol=1e-4,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    cluster_metrics.normalised_information(table),
    _counted_information(a, b),
    rtol=1e-4,
  )


def test_the_same_partition_under_other_names_is_perfect():
  a = np.array([0, 0, 1, 1, 2, 2])
  for b in (a, (a + 1) % 3):
    table = cluster_metrics.contingency(a, b, 3)
    np.testing.assert_allclose(
      cluster_metrics.adjusted_rand(table), 1, rtol=1e-5
    )
    np.testing.assert_allclose(
      cluster_metrics.normalised_information(table), 1, rtol=1e-5
    )
  one = cluster_metrics.contingency(np.zeros(6, int), np.zeros(6, int), 3)
  assert cluster_metrics.adjusted_rand(one) == 1
  assert cluster_metrics.normalised_information(one) == 1


@pytest.mark.parametrize(
  'way, scored, chance',
  [(4, 16, 0.461), (4, 64, 0.354), (5, 25, 0.4), (5, 75, 0.313)],
)
def test_aligning_on_what_is_scored_makes_chance_look_good(way, scored, chance):
  """Chance of random predictions after alignment on the images scored."""

  def one(key):
    y = jnp.arange(scored) % way
    random = jax.random.randint(key, (scored,), 0, way)
    table = cluster_metrics.contingency(y, random, way)
    order = cluster_metrics.align(table)
    return jnp.sum(table[jnp.arange(way), order]) / scored

  keys = jax.random.split(jax.random.key(0), 4000)
  mean = float(jnp.mean(jax.jit(jax.vmap(one))(keys)))
  assert abs(mean - chance) < 0.01
