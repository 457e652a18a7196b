"""Losses against closed forms, Monte Carlo and hand numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special
from scipy import stats

from hyperudl.ops import losses

RNG = np.random.default_rng(0)


def test_cross_entropy_is_scipys():
  logits = RNG.normal(size=(6, 4))
  y = np.array([0, 3, 1, 1, 2, 0])
  expected = -np.mean(special.log_softmax(logits, axis=1)[range(6), y])
  got = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(y))
  np.testing.assert_allclose(got, expected, 1e-6)


def test_cross_entropy_ignores_unlabelled_rows():
  logits = jnp.asarray(RNG.normal(size=(6, 4)))
  y = jnp.array([0, 3, 1, -1, -1, -1])
  np.testing.assert_allclose(
    losses.cross_entropy(logits, y),
    losses.cross_entropy(logits[:3], y[:3]),
    1e-6,
  )
  assert losses.cross_entropy(logits, jnp.full(6, -1)) == 0


def test_accuracy_counts_hits():
  logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0], [0.0, 1.0]])
  assert losses.accuracy(logits, jnp.array([0, 1, 1, 0])) == 0.5


def test_accuracy_ignores_unlabelled_rows():
  logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0], [0.0, 1.0]])
  assert losses.accuracy(logits, jnp.array([0, -1, 1, -1])) == 0.5
  assert losses.accuracy(logits, jnp.full(4, -1)) == 0


def test_kl_is_the_monte_carlo_mean_of_the_log_ratio():
  mean = jnp.array([[0.3, -1.2, 0.0]])
  log_variance = jnp.array([[-0.5, 0.2, 1.0]])
  closed = losses.kl_standard_normal(mean, log_variance)[0]
  std = np.exp(0.5 * np.asarray(log_variance))
  z = np.asarray(mean) + std * RNG.normal(size=(400_000, 3))
  ratio = stats.norm.logpdf(z, mean, std) - stats.norm.logpdf(z)
  sampled = ratio.sum(axis=1)
  error = sampled.std() / np.sqrt(sampled.size)
  assert abs(closed - sampled.mean()) < 4 * error
  assert error < 0.01


def test_kl_of_the_prior_is_zero():
  assert losses.kl_standard_normal(jnp.zeros(5), jnp.zeros(5)) == 0


def test_gaussian_nll_is_scipys():
  x = RNG.normal(size=(3, 2, 2, 1))
  mean = RNG.normal(size=(3, 2, 2, 1))
  expected = -stats.norm.logpdf(x, mean, np.exp(0.5 * -0.7)).sum((1, 2, 3))
  np.testing.assert_allclose(
    losses.gaussian_nll(x, mean, jnp.asarray(-0.7)), expected, rtol=1e-5
  )


def test_elbo_of_a_linear_gaussian_model_is_below_its_evidence():
  # p(z) = N(0, 1), p(x|z) = N(az, s^2): p(x) = N(0, a^2 + s^2) exactly, and
  # the ELBO of the exact posterior is the evidence.
  a, variance, x = 1.5, 0.3, 0.8
  posterior_variance = 1 / (1 + a * a / variance)
  posterior_mean = posterior_variance * a * x / variance

  def elbo(mean, std):
    z = mean + std * RNG.normal(size=200_000)
    fit = stats.norm.logpdf(x, a * z, np.sqrt(variance)).mean()
    kl = losses.kl_standard_normal(
      jnp.array([mean]), jnp.array([2 * np.log(std)])
    )
    return fit - float(kl)

  evidence = stats.norm.logpdf(x, 0, np.sqrt(a * a + variance))
  exact = elbo(posterior_mean, np.sqrt(posterior_variance))
  assert abs(exact - evidence) < 0.01
  assert elbo(posterior_mean + 0.3, 0.8) < evidence - 0.05


def test_class_means_by_hand():
  features = jnp.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [9.0, 9.0]])
  means = losses.class_means(features, jnp.array([1, 1, 0, -1]), 3)
  np.testing.assert_allclose(means, [[5, 5], [2, 1], [0, 0]])


def test_squared_distances_by_loops():
  a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
  expected = [[np.sum((u - v) ** 2) for v in b] for u in a]
  got = losses.squared_distances(jnp.asarray(a), jnp.asarray(b))
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_squared_distance_has_a_finite_gradient_at_coincidence():
  x = jnp.ones((2, 3))
  grads = jax.grad(lambda a: losses.squared_distances(a, x).sum())(x)
  assert jnp.isfinite(grads).all()


def test_unit_has_a_finite_gradient_at_zero():
  grads = jax.grad(lambda v: losses.unit(v).sum())(jnp.zeros((1, 3)))
  assert jnp.isfinite(grads).all()


def test_masked_moments_are_those_of_the_rows_that_count():
  values = RNG.normal(size=(6, 3))
  mask = np.array([1, 0, 1, 1, 0, 0.0])
  rows = values[mask > 0]
  np.testing.assert_allclose(
    losses.masked_mean(jnp.asarray(values), mask), rows.mean(0), rtol=1e-5
  )
  np.testing.assert_allclose(
    losses.masked_variance(jnp.asarray(values), mask), rows.var(0), rtol=1e-4
  )
  assert losses.masked_mean(jnp.ones(3), jnp.zeros(3)) == 0


def test_geometry_is_blind_to_rotation_and_scale():
  reference = RNG.normal(size=(7, 3))
  turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
  scale = RNG.uniform(0.5, 2.0, size=(7, 1))
  mask = jnp.ones(7)
  same = losses.geometry(
    jnp.asarray(scale * (reference @ turn)), jnp.asarray(reference), mask
  )
  other = losses.geometry(
    jnp.asarray(RNG.normal(size=(7, 3))), jnp.asarray(reference), mask
  )
  assert same < 1e-10
  assert other > 0.05


def test_geometry_ignores_masked_rows():
  outputs, reference = RNG.normal(size=(2, 7, 3))
  mask = jnp.array([1, 1, 1, 1, 0, 0, 0.0])
  np.testing.assert_allclose(
    losses.geometry(jnp.asarray(outputs), jnp.asarray(reference), mask),
    losses.geometry(
      jnp.asarray(outputs[:4]), jnp.asarray(reference[:4]), jnp.ones(4)
    ),
    rtol=1e-5,
  )


def test_byol_is_zero_for_parallel_and_two_for_orthogonal_rows():
  online = jnp.array([[2.0, 0.0], [0.0, 3.0]])
  mask = jnp.ones(2)
  np.testing.assert_allclose(
    losses.byol(online, 5 * online, mask), 0, atol=1e-5
  )
  np.testing.assert_allclose(
    losses.byol(online, online[::-1], mask), 2, rtol=1e-5
  )


def test_references_and_targets_get_no_gradient():
  rows, others = (jnp.asarray(RNG.normal(size=(4, 3))) for _ in range(2))
  for loss in (losses.geometry, losses.byol):
    own, fixed = jax.grad(loss, (0, 1))(rows, others, jnp.ones(4))
    assert float(jnp.abs(own).max()) > 1e-3
    np.testing.assert_array_equal(fixed, 0)


def test_entropy_is_scipys():
  p = RNG.dirichlet(np.ones(5), size=4)
  np.testing.assert_allclose(
    losses.entropy(jnp.log(p)), stats.entropy(p, axis=1), rtol=1e-5
  )


def test_marginal_entropy_is_scipys_of_the_mean_of_the_rows_that_count():
  p = RNG.dirichlet(np.ones(5), size=4)
  entropy = losses.marginal_entropy(jnp.asarray(p), jnp.array([1, 0, 1, 1.0]))
  expected = stats.entropy(p[[0, 2, 3]].mean(axis=0))
  np.testing.assert_allclose(entropy, expected, rtol=1e-4)


def test_signed_log_keeps_signs():
  x = jnp.array([-np.e + 1, 0.0, np.e - 1, np.e**3 - 1])
  np.testing.assert_allclose(losses.signed_log(x), [-1, 0, 1, 3], rtol=1e-6)


def test_log_mean_probability_is_that_of_the_mixture():
  logits = RNG.normal(size=(3, 5, 4))
  mixture = losses.log_mean_probability(jax.nn.log_softmax(logits))
  expected = np.log(special.softmax(logits, axis=-1).mean(axis=0))
  np.testing.assert_allclose(mixture, expected, rtol=1e-5)
  np.testing.assert_allclose(np.exp(mixture).sum(-1), 1, rtol=1e-5)
