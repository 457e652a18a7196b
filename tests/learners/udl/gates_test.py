"""Gates: their initial values, and that they read the images."""

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
from tests.testing import udl as helper


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
    inputs = inner_loop.read(config, params, network, inputs, v)
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
