"""The variational autoencoder of weights."""

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import weight_vae
from tests.testing import by_hand
from tests.testing import errors
from tests.testing import guidance
from tests.testing import laws

LAWS = {
  'hvae': laws.Laws(
    slow='compiling and training it takes too long for every run',
    untrained='its upstreams are random here; see the tests of this file',
  )
}


@pytest.mark.slow
def test_reconstructed_weights_are_nearest_to_their_own():
  _, params, metrics = guidance.trained('hvae')
  # In units of the spread about the base: a constant decoder has 1.
  assert metrics['error'] < 0.5
  net, codes = (
    hypernetwork.unfreeze(guidance.NET, params),
    guidance.codes_of(params),
  )

  def reconstruct(code):
    fast = hypernetwork.FastWeights(code)
    mean, _ = weight_vae.encode(params, net, fast)
    return guidance.flatten(weight_vae.decode(params, net, mean).weights)

  weights = guidance.weights_of(params, codes)
  tasks = guidance.nearest(jax.vmap(reconstruct)(codes), weights)
  assert (tasks == jnp.arange(guidance.TASKS)).mean() > 0.8


def test_each_accuracy_is_that_of_the_network_in_its_name():
  learner = guidance.make('hvae', inner_rate=0.5)
  batch = guidance.batch_of('hvae', train=False)
  params = guidance.random_params(learner, guidance.first(batch))
  params['log_spread'] = jnp.asarray(-1.5)
  key, query = jax.random.key(0), batch.query
  evaluate = jax.jit(jax.vmap(lambda e: learner.evaluate(params, e, key)))
  metrics = evaluate(batch)
  hypernet, own = guidance.hypernet_of(params, inner_rate=0.5)
  unadapted, _ = guidance.hypernet_of(params, inner_steps=0)
  adapted = guidance.adapt_all(hypernet, own, batch.support)
  # Encoded and decoded in NumPy, in units of the spread about the base.
  flat, unravel = ravel_pytree(own['decoder']['base'])
  deviations = guidance.deviations_by_hand(params, adapted.fast.latent)
  scaled = deviations / np.exp(params['log_spread'])
  encoded = by_hand.silu_perceptron(params['encoder'], scaled)
  latents = encoded[:, : guidance.SIZES['hvae_latent']]
  decoded = flat + by_hand.silu_perceptron(params['decoder'], latents)
  weights = jax.vmap(unravel)(jnp.asarray(decoded, jnp.float32))
  tasks = {
    'accuracy': guidance.adapt_all(learner, params, batch.support),
    'accuracy_hypernet': adapted,
    'accuracy_reconstructed': adapted._replace(
      fast=hypernetwork.FastWeights(weights=weights)
    ),
    'accuracy_start': guidance.adapt_all(unadapted, own, batch.support),
  }
  for name, each in tasks.items():
    logits = guidance.logits_of(learner, params, each, query.x)
    expected = [by_hand.accuracy(*pair) for pair in zip(logits, query.y)]
    np.testing.assert_allclose(metrics[name], expected, err_msg=name)
  assert len({tuple(metrics[name].tolist()) for name in tasks}) == 4


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kind': 'maml', 'inner_steps': 0}, 'adapts to no task'),
    ({'beta': -1.0}, 'beta = -1.0 is below its minimum 0'),
    ({'hvae_hidden': (0,)}, 'hvae_hidden = (0,) is below its minimum 1'),
  ],
)
def test_a_wrong_setting_is_refused(options, message):
  refused = errors.refusal(
    guidance.make, 'hvae', error=core.BadInput, **options
  )
  assert message in refused
