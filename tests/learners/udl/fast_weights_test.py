"""The adapted variable: what v_0 leaves alone, and what each part changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners.udl import fast_weights
from hyperudl.ops import shift_transform
from tests.testing import udl as helper


def test_v_0_changes_nothing():
  config = helper.tiny_config(adapt='+'.join(fast_weights.PARTS))

  def compare(params, network, support):
    v = fast_weights.identity(config, params, network)
    under_v = fast_weights.apply(config, params, network, support, v)
    return network, under_v

  for a, b in zip(*map(jax.tree.leaves, helper.on_network(config, compare)())):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_film_adds_each_number_once_and_leaves_kernels_alone():
  weights = helper.random_params(helper.tiny_udl())['cnn']
  sizes = [b[k].size for b in weights.values() for k in ('scale', 'bias')]
  increment = jnp.arange(1.0, sum(sizes) + 1)
  new = fast_weights.add_film(weights, increment)
  added = []
  for name in sorted(new):
    np.testing.assert_array_equal(new[name]['kernel'], weights[name]['kernel'])
    for leaf in ('scale', 'bias'):
      added.extend(np.asarray(new[name][leaf] - weights[name][leaf]))
  np.testing.assert_allclose(sorted(added), increment, rtol=1e-4)


def test_rates_are_signed_numbers_of_elements_or_steps():
  config = helper.tiny_config(adapt='film+head', inner_rate=0.3)
  v = {'film': jnp.zeros(3), 'head': jnp.zeros((2, 2))}
  rates = fast_weights.rates(config, v)
  np.testing.assert_allclose(rates['film'], np.full((2, 3), 0.3), rtol=1e-6)
  np.testing.assert_allclose(rates['head'], [0.3, 0.3], rtol=1e-6)


def test_steps_of_a_shift_are_in_units_of_its_parts_and_decay():
  config = helper.tiny_config(adapt='shift', elbo='shift', inner_rate=0.3)
  v = {'shift': shift_transform.identity()}
  rates = fast_weights.rates(config, v)
  assert set(rates['shift']) == set(v['shift']) - {'negative'}
  steps = fast_weights.step_sizes(rates)['shift']
  np.testing.assert_array_equal(steps.pop('negative'), np.zeros((2, 1)))
  for name, sizes in steps.items():
    assert sizes.shape == (2, *v['shift'][name].shape)
    first = 0.3 * shift_transform.RATES[name]
    np.testing.assert_allclose(sizes[0], np.full(sizes[0].shape, first), 1e-6)
    np.testing.assert_allclose(sizes[1], 0.8 * sizes[0], rtol=1e-6)
  film = {'film': jnp.ones((2, 3))}
  assert fast_weights.step_sizes(film) is film


@pytest.mark.parametrize('adapt', ['stem', 'film+film', 'film+tokens'])
def test_unknown_parts_are_refused(adapt):
  with pytest.raises(ValueError, match='adapt must be one of'):
    fast_weights.parse(adapt)


@pytest.mark.parametrize(
  'adapt',
  [
    'encoder',
    pytest.param('hyper', marks=pytest.mark.slow),
  ],
)
def test_inputs_and_weights_of_the_hypernetwork_change_generated_weights(adapt):
  learner = helper.tiny_udl(adapt=adapt, cluster=0, gate='none', inner_rate=1.0)
  params = jax.jit(learner.init)(jax.random.key(0), helper.episode())
  generate, _ = helper.compiled(helper.tiny_udl(phase='base'))
  run, _ = helper.compiled(learner)
  key, support = jax.random.key(1), helper.episode().support
  before = generate(helper.without_inner(params), support, key)
  after = run(params, support, key)
  kernels = [each.weights['block0']['kernel'] for each in (before, after)]
  assert float(jnp.abs(kernels[1] - kernels[0]).max()) > 1e-6
