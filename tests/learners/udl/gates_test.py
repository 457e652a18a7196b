"""Gates: their initial values, and that they read the images."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners import udl
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from tests.testing import udl as helper

MASK = np.array([1, 1, 0, 1, 1.0])
LABELLED = np.array([0, 1, 1.0])


@pytest.mark.parametrize(
  'gate, inputs', [('elbo', 13), ('predictions', 8), ('predictions+elbo', 21)]
)
def test_gates_begin_open_and_are_functions_of_the_images(gate, inputs):
  config = helper.tiny_config(gate=gate)
  params = dict(helper.random_params(udl.make(config)))
  assert params['inner']['gate']['first']['kernel'].shape[0] == inputs

  def compute(params, network, support):
    images = inner_loop.select_images(support)
    terms = hypernetwork.elbo_terms(config, params, support.x)
    inputs = inner_losses.draw(images, terms['mean'], jax.random.key(1))
    v = fast_weights.identity(config, params, network)
    inputs = steps.read(config, params, network, inputs, v)
    return gates.compute(config, params, network, inputs, terms, terms)

  run = helper.on_network(config, compute, params)
  here, there = run(), run(1 - helper.episode().support.x)
  assert min(here) > 0 and max(here[:2]) < 1
  assert float(jnp.abs(jnp.stack(here) - jnp.stack(there)).max()) > 1e-6
  fresh = gates.init(jax.random.key(0), config)
  params['inner'] = {**params['inner'], 'gate': fresh}
  half_open = 1 / (1 + np.exp(-1.0))
  np.testing.assert_allclose(
    helper.on_network(config, compute, params)(),
    [half_open, half_open, 1],
    rtol=1e-5,
  )


def test_prediction_inputs_do_not_depend_on_images_that_do_not_count():
  rng = np.random.default_rng(0)
  features, logits = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
  mask = jnp.array([1, 1, 1, 1, 0.0])

  def inputs(features, logits):
    x = jnp.asarray(features)
    return gates.prediction_inputs(x, x, jnp.asarray(logits), mask, mask)

  expected = inputs(features, logits)
  features[4], logits[4] = 9.0, -9.0
  np.testing.assert_allclose(inputs(features, logits), expected, rtol=1e-6)


def signed_log(x):
  return np.sign(x) * np.log1p(np.abs(x))


def test_elbo_inputs_equal_those_of_numpy():
  rng = np.random.default_rng(0)
  moments = {'error_mean': 4.0, 'error_std': 2.0, 'kl_mean': 3.0, 'kl_std': 0.5}
  stored = {name: np.log(value) / 10 for name, value in moments.items()}
  stored['latent_mean'] = rng.normal(size=6)
  stored['latent_log_variance'] = rng.normal(size=6)
  terms, support_terms = (
    {
      'error': rng.uniform(1, 9, n),
      'kl': rng.uniform(1, 9, n),
      'mean': rng.normal(size=(n, 6)),
    }
    for n in (5, 3)
  )
  (error, kl, mean), (labelled_error, labelled_kl, labelled_mean) = (
    (
      signed_log((each['error'] - 4) / 2)[rows > 0],
      signed_log(0.5 * (each['kl'] - 3) / 0.5)[rows > 0],
      each['mean'][rows > 0],
    )
    for each, rows in ((terms, MASK), (support_terms, LABELLED))
  )
  variance = np.exp(stored['latent_log_variance'])
  far = lambda point: np.mean((mean.mean(axis=0) - point) ** 2 / variance)
  ratio = np.log(mean.var(axis=0) / variance + 1e-3).mean()
  expected = [
    *(error.mean(), kl.mean(), error.std(), kl.std()),
    *(error.mean() - labelled_error.mean(), kl.mean() - labelled_kl.mean()),
    *(labelled_error.mean(), labelled_kl.mean()),
    signed_log(far(stored['latent_mean'])),
    signed_log(far(labelled_mean.mean(axis=0))),
    *(ratio, ratio**2, np.mean(error**2)),
  ]
  inputs = gates.elbo_inputs(
    *jax.tree.map(jnp.asarray, (stored, terms, support_terms, MASK, LABELLED))
  )
  np.testing.assert_allclose(
    inputs, 2 * np.tanh(np.array(expected) / 3), rtol=1e-3, atol=1e-5
  )


def test_prediction_inputs_equal_those_of_numpy():
  rng = np.random.default_rng(0)
  features, support_features = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
  logits = rng.normal(size=(5, 3))
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  p = np.sort(p, axis=1)[MASK > 0]
  entropy = -np.sum(p * np.log(p), axis=1)
  # The marginal is that of classes in their own order.
  q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  q = q[MASK > 0].mean(axis=0)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  here = unit(features)[MASK > 0]
  there = unit(support_features)[LABELLED > 0]
  gap = here.mean(axis=0) - there.mean(axis=0)
  expected = [
    *(p[:, 2].mean(), p[:, 2].std(), np.mean(p[:, 2] - p[:, 1])),
    *(entropy.mean(), entropy.std(), -np.sum(q * np.log(q)), gap @ gap),
    np.log(here.var(axis=0).mean() / there.var(axis=0).mean()),
  ]
  inputs = gates.prediction_inputs(
    *map(jnp.asarray, (features, support_features, logits, MASK, LABELLED))
  )
  np.testing.assert_allclose(
    inputs, 2 * np.tanh(np.array(expected) / 2), rtol=1e-3, atol=1e-5
  )


def test_gates_are_sigmoids_and_the_scale_is_an_exponential():
  config = helper.tiny_config(gate='predictions')
  gate = gates.init(jax.random.key(0), config)
  bias = np.array([-0.5, 0.25, 2.0])
  gate['last']['bias'] = jnp.asarray(bias)
  support = helper.episode().support
  inputs = inner_losses.Inputs(
    **{
      **dict.fromkeys(inner_losses.Inputs._fields),
      'images': inner_loop.select_images(support),
      'features': jnp.ones((7, 4)),
      'logits': jnp.zeros((7, 3)),
    }
  )
  network = types.SimpleNamespace(features=jnp.ones((7, 4)))
  params = {'inner': {'gate': gate}}
  computed = gates.compute(config, params, network, inputs, {}, {})
  sigmoid = 1 / (1 + np.exp(-bias))
  np.testing.assert_allclose(
    [computed.step_size, computed.unlabelled_weight], sigmoid[:2], rtol=1e-5
  )
  initial = 1 / (1 + np.exp(-1))
  np.testing.assert_allclose(
    computed.cosine_scale, np.exp(2 * (sigmoid[2] - initial)), rtol=1e-5
  )
