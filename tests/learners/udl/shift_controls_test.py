"""Controls of the inferred shift: the shift of another episode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners import udl
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from tests.testing import udl as helper

SHIFT = {
  'adapt': 'shift',
  'elbo': 'shift',
  'ssl': 'none',
  'critic': 'none',
  'cluster': 2,
  'inner_rate': 1.0,
  'inner_steps': 1,  # compiles faster
}


def adapt(context, **changes):
  """The adapted network of one episode under a context, and its trace."""
  config = helper.tiny_config(**{**SHIFT, **changes})
  params = helper.random_params(udl.make(config))
  support = helper.episode().support._replace(context=context)

  @jax.jit
  def run(params, support):
    network = hypernetwork.generate(config, params, support)
    network, trace = inner_loop.adapt(
      config, params, network, support, jax.random.key(0)
    )
    return network, trace.metrics, trace.v

  return run(params, support)


@pytest.mark.slow
def test_own_images_as_those_of_another_episode_change_nothing():
  support = helper.episode().support
  unlabelled = support.x[np.asarray(support.y) < 0]
  (plain, metrics, v), (again, again_metrics, again_v) = (
    adapt(context) for context in (None, {'phi': unlabelled})
  )
  np.testing.assert_allclose(
    plain.prototypes, again.prototypes, rtol=1e-3, atol=1e-4
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    (metrics['shift_weight'], v['shift']),
    (again_metrics['shift_weight'], again_v['shift']),
  )


@pytest.mark.slow
def test_the_shift_of_another_episode_replaces_only_the_shift():
  changes = {'adapt': 'film+shift', 'ssl': 'byol'}
  other = jnp.flip(helper.episode().query.x[:4], axis=1) * 0.4 + 0.3
  _, _, own = adapt(None, **changes)
  network, _, replaced = adapt({'phi': other}, **changes)
  _, _, of_other = adapt({'inner': other}, **changes)
  np.testing.assert_allclose(
    own['film'], replaced['film'], rtol=1e-4, atol=1e-6
  )
  for name in own['shift']:
    np.testing.assert_allclose(
      replaced['shift'][name], of_other['shift'][name], rtol=1e-3, atol=1e-5
    )
  assert np.abs(replaced['shift']['bias'] - own['shift']['bias']).max() > 0.05
  assert np.isfinite(network.prototypes).all()
