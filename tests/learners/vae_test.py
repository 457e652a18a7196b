"""The autoencoder: its ELBO by Monte Carlo, its moments by counting."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hyperudl import core
from hyperudl.learners import vae
from hyperudl.nets import vae as vae_net
from tests.testing import by_hand

NET = vae_net.VAE((6, 6, 1), 2, (8,))
CONFIG = vae.Config(way=2, latent=2, hidden=(8,), beta_steps=100)


@functools.cache
def images_and_variables():
  x = jax.random.uniform(jax.random.key(0), (5, 6, 6, 1))
  variables = jax.jit(NET.init)(jax.random.key(1), x, jnp.zeros((5, 2)))
  return x, variables


def test_the_elbo_is_a_lower_bound_of_the_evidence():
  x, variables = images_and_variables()
  rng = np.random.default_rng(0)
  draws = jnp.asarray(rng.normal(size=(4000, 2)), jnp.float32)
  decode = jax.jit(functools.partial(NET.apply, method='decode'))
  spread = float(np.exp(0.5 * variables['params']['log_variance']))

  def log_likelihood(i, z):
    means = np.asarray(decode(variables, z)).reshape(len(z), -1)
    return stats.norm.logpdf(np.asarray(x[i]).ravel(), means, spread).sum(1)

  apply = jax.jit(NET.apply)
  terms = [
    apply(variables, x, jnp.asarray(rng.normal(size=(5, 2)), jnp.float32))
    for _ in range(300)
  ]
  elbo = -np.mean([t['nll'] + t['kl'] for t in terms], axis=0)
  for i in range(5):
    # Importance sampling from the posterior: unbiased for the evidence.
    mean, log_variance = terms[0]['mean'][i], terms[0]['log_variance'][i]
    z = mean + jnp.exp(0.5 * log_variance) * draws
    weight = log_likelihood(i, z) + stats.norm.logpdf(z).sum(1)
    weight -= stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance)).sum(1)
    evidence = np.logaddexp.reduce(weight) - np.log(len(weight))
    assert elbo[i] <= evidence + 0.05
    assert evidence - elbo[i] < 10


@functools.cache
def small_learner():
  """(loss of parameters and step, initial parameters)."""
  learner = vae.make(CONFIG)
  x, y = images_and_variables()[0], jnp.arange(5) % 2
  episode = core.Episode(core.Examples(x, y), core.Examples(x, y))
  key = jax.random.key(0)
  loss = lambda params, step: learner.loss(params, episode, key, step)
  return loss, learner.init(key, episode)


def test_beta_warms_up_linearly_and_stays():
  loss, params = small_learner()
  beta = lambda step: loss(params, step)[1]['beta']
  np.testing.assert_allclose(
    [beta(0), beta(50), beta(100), beta(500)], [0.25, 0.625, 1, 1], rtol=1e-6
  )


def test_beta_weighs_the_kl_in_nats_per_pixel():
  loss, params = small_learner()
  (first, metrics), (last, _) = loss(params, 0), loss(params, 100)
  np.testing.assert_allclose(last - first, 0.75 * metrics['kl'] / 36, rtol=1e-3)


def test_stored_moments_have_no_gradient_at_those_of_the_images():
  loss, params = small_learner()
  mean, log_variance = vae.encode(CONFIG, params, images_and_variables()[0])
  mean, variance = np.asarray(mean), np.exp(log_variance)
  kl = np.sum(mean**2 + variance - 1 - np.log(variance), axis=1) / 2
  # Those of the error depend on noise and are left out.
  truth = {
    'kl_mean': np.log(kl.mean()) / 10,
    'kl_std': np.log(kl.std()) / 10,
    'latent_mean': mean.mean(axis=0),
    'latent_log_variance': np.log(mean.var(axis=0)),
  }
  gradient = jax.jit(jax.grad(lambda params: loss(params, 0)[0]))
  moved = {**params, 'moments': {**params['moments'], **truth}}
  here, there = gradient(params)['moments'], gradient(moved)['moments']
  for name in truth:
    assert np.abs(here[name]).max() > 1e-3, name
    np.testing.assert_allclose(there[name], 0, atol=1e-5)


def test_stored_moments_do_not_train_the_autoencoder():
  loss, params = small_learner()
  other = jax.tree.map(lambda leaf: leaf + 0.3, params['moments'])
  gradient = jax.jit(jax.grad(lambda params: loss(params, 0)[0]))
  one = gradient(params)['net']
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
    one,
    gradient({**params, 'moments': other})['net'],
  )
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(one)) > 1e-3


def test_noise_is_on_what_the_encoder_reads_and_not_on_its_target():
  x, variables = images_and_variables()
  noise, other = jnp.zeros((5, 2)), x[::-1]
  terms = NET.apply(variables, x, noise, other)
  of_other = NET.apply(variables, other, noise)
  for name in ('mean', 'log_variance', 'kl', 'image'):
    np.testing.assert_array_equal(terms[name], of_other[name])
  errors = np.square(x - of_other['image']).sum(axis=(1, 2, 3))
  np.testing.assert_allclose(terms['error'], errors, rtol=1e-5)
  # In training; moments, latents and evaluations are those of clean images.
  episode = core.Episode(
    core.Examples(x, jnp.zeros(5, int)), core.Examples(x, jnp.zeros(5, int))
  )
  losses, moments = [], []
  for denoise in (0.0, 1e-6, 2.0):
    learner = vae.make(dataclasses.replace(CONFIG, denoise=denoise))
    params = jax.jit(learner.init)(jax.random.key(0), episode)
    loss = lambda params: learner.loss(params, episode, jax.random.key(1), 0)[0]
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    losses.append(value)
    moments.append(gradient['moments'])
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
  assert losses[2] > losses[0] + 1e-3
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    *(moments[0], moments[2]),
  )


def test_nll_is_the_error_in_units_of_the_variance():
  x, variables = images_and_variables()
  terms = NET.apply(variables, x, jnp.zeros((5, 2)))
  log_variance = variables['params']['log_variance']
  expected = 0.5 * (
    terms['error'] / np.exp(log_variance)
    + 36 * (log_variance + np.log(2 * np.pi))
  )
  np.testing.assert_allclose(terms['nll'], expected, rtol=1e-5)


def test_standard_scores_of_a_typical_image_are_zero():
  moments = {
    'error_mean': 4.0,
    'error_std': 2.0,
    'kl_mean': 3.0,
    'kl_std': 1.0,
  }
  terms = {
    'error': jnp.array([4.0, 8.0, 2.0]),
    'kl': jnp.array([3.0, 5.0, 1.0]),
  }
  scores = vae_net.standardise(terms, moments)
  expected = [[0, 2, -1], [0, 1, -1]]
  np.testing.assert_allclose(scores.T, expected, rtol=1e-6)


def test_moments_are_learned_and_travel_with_the_parameters():
  learner = vae.make(vae.Config(way=2, latent=3, hidden=(8,), beta_steps=10))
  x = jax.random.uniform(jax.random.key(0), (40, 6, 6, 1))
  examples = core.Examples(x[:20], jnp.arange(20) % 2)
  query = core.Examples(x[20:], jnp.arange(20) % 2)
  episode = core.Episode(examples, query)
  params = jax.jit(learner.init)(jax.random.key(1), episode)

  @jax.jit
  def step(params, key):
    # Only the moments change, so that their targets do not.
    grads = jax.grad(lambda p: learner.loss(p, episode, key, 0)[0])(params)
    moments = jax.tree.map(
      lambda p, g: p - 0.2 * g, params['moments'], grads['moments']
    )
    return {**params, 'moments': moments}

  for i in range(200):
    params = step(params, jax.random.key(i))
  net = vae_net.VAE((6, 6, 1), 3, (8,))
  terms = net.apply({'params': params['net']}, x, jnp.zeros((40, 3)))
  moments = vae_net.read_moments(params['moments'])
  noise = jax.random.normal(jax.random.key(9), (50, 40, 3))
  sampled = jax.jit(
    jax.vmap(lambda n: net.apply({'params': params['net']}, x, n))
  )
  error = sampled(noise)['error'].mean()
  np.testing.assert_allclose(moments['error_mean'], error, rtol=0.05)
  np.testing.assert_allclose(moments['kl_mean'], terms['kl'].mean(), rtol=0.05)
  np.testing.assert_allclose(moments['kl_std'], terms['kl'].std(), rtol=0.05)
  np.testing.assert_allclose(
    params['moments']['latent_mean'], terms['mean'].mean(0), atol=0.02
  )


def test_latents_are_active_if_their_means_vary_over_all_images():
  learner = vae.make(vae.Config(way=2, latent=4, hidden=(8,)))
  x = jax.random.uniform(jax.random.key(0), (12, 6, 6, 1))
  x = x.at[:6].multiply(0.1)  # those of the support alone vary little
  y = jnp.arange(6) % 2
  episode = core.Episode(core.Examples(x[:6], y), core.Examples(x[6:], y))
  params = jax.jit(learner.init)(jax.random.key(1), episode)

  def means(net):
    layers = net['encoder_0'], net['posterior']
    flat = np.asarray(x).reshape(len(x), -1)
    return by_hand.silu_perceptron(layers, flat)[:, :4]

  # Two variances are above .01.
  wanted = np.sqrt([0.005, 0.009, 0.011, 0.02])
  factors = np.ones(8)
  factors[:4] = wanted / means(params['net']).std(axis=0)
  kernel = params['net']['posterior']['kernel'] * factors
  params['net']['posterior']['kernel'] = jnp.asarray(kernel, jnp.float32)
  params['net']['posterior']['bias'] += 0.3
  np.testing.assert_allclose(means(params['net']).std(0), wanted, rtol=1e-3)
  metrics = jax.jit(learner.evaluate)(params, episode, jax.random.key(2))
  assert metrics['active_latents'] == 2


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'latent': 0}, 'latent = 0'),
    ({'hidden': ()}, 'hidden must have a layer'),
    ({'width': 6}, 'width be a multiple of 4'),
    ({'architecture': 'flow'}, 'architecture = .*flow'),
    ({'beta_end': -1.0}, 'beta_end = -1.0'),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    vae.Config(**changes)
