"""Gates: their initial values, and that they read the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners import udl
from hyperudl.learners.udl import gates
from hyperudl.learners.udl import hypernetwork
from tests.testing import udl as helper


@pytest.mark.parametrize(
  'gate, inputs', [('elbo', 13), ('predictions', 8), ('predictions+elbo', 21)]
)
def test_gates_begin_open_and_are_functions_of_the_images(gate, inputs):
  config = helper.tiny_config(gate=gate)
  params = dict(helper.random_params(udl.make(config)))
  assert params['inner']['gate']['first']['kernel'].shape[0] == inputs

  def compute(params, network, support):
    terms = hypernetwork.elbo_terms(config, params, support.x)
    unlabelled = (support.y < 0).astype(jnp.float32)
    return gates.compute(
      config,
      params['inner']['gate'],
      params['frozen']['vae']['moments'],
      gates.ImageSet(unlabelled, network.features, terms),
      gates.ImageSet(1 - unlabelled, network.features, terms),
      network.features[:, : helper.WAY],
    )

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
    images = gates.ImageSet(mask, jnp.asarray(features), {})
    return gates.prediction_inputs(images, images, jnp.asarray(logits))

  expected = inputs(features, logits)
  features[4], logits[4] = 9.0, -9.0
  np.testing.assert_allclose(inputs(features, logits), expected, rtol=1e-6)
