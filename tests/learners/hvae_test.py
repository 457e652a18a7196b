"""The variational autoencoder of weights."""

import jax
import jax.numpy as jnp
import pytest

from hyperudl import core
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import weight_vae
from tests.testing import errors
from tests.testing import guidance
from tests.testing import laws

LAWS = {
  'hvae': laws.Laws(
    slow='compiling and training it takes too long for every run',
    untrained='its upstreams are random here; see the tests of this file',
  )
}


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
