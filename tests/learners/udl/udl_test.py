"""The `udl` learner: phases, overrides, and what its parts may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from tests.testing import udl as helper


def test_zero_steps_are_the_unadapted_path_bit_for_bit():
  data = helper.episode()
  base = helper.tiny_udl(phase='base')
  params = helper.fresh(base)
  none = helper.tiny_udl(phase='joint', inner_steps=0, cluster=0)
  np.testing.assert_array_equal(
    helper.answer(base, params, data), helper.answer(none, params, data)
  )


def test_phase_inner_trains_only_what_the_inner_loop_owns():
  params = helper.fresh(helper.tiny_udl(phase='inner'))
  assert set(params) == {'frozen', 'inner'}
  assert set(params['frozen']) == {'vae', 'base'}
  base = helper.fresh(helper.tiny_udl(phase='base'))
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  own = {k: v for k, v in base.items() if k != 'frozen'}
  assert shapes(params['frozen']['base']) == shapes(own)


def test_inner_data_none_switches_the_steps_off_and_noise_changes_them():
  learner = helper.tiny_udl()
  data = helper.episode()
  params = helper.fresh(learner)
  base = {k: v for k, v in params.items() if k != 'inner'}
  unadapted = helper.answer(helper.tiny_udl(phase='base'), base, data)
  off = helper.episode(context={'inner': jnp.zeros((0, 10, 10, 1))})
  np.testing.assert_allclose(
    helper.answer(learner, params, off), unadapted, rtol=1e-5
  )
  noise = jax.random.uniform(jax.random.key(9), (4, 10, 10, 1))
  noisy = helper.answer(
    learner, params, helper.episode(context={'inner': noise})
  )
  real = helper.answer(learner, params, data)
  assert float(jnp.abs(noisy - real).max()) > 1e-5


@pytest.mark.slow
def test_a_single_image_adapts_to_nothing_but_itself():
  learner = helper.tiny_udl(single=True)
  data, params = helper.episode(), helper.fresh(learner)
  data = data._replace(extra={'unlabelled_y': jnp.zeros(4, jnp.int32)})
  evaluate = jax.jit(learner.evaluate)
  found = evaluate(params, data, jax.random.key(2))
  # Neither the unlabelled images nor the other queries have a say.
  support = data.support
  blank = jnp.where((support.y < 0)[:, None, None, None], 0.3, support.x)
  other = data._replace(support=support._replace(x=blank))
  again = evaluate(params, other, jax.random.key(2))
  assert found['accuracy_single'] == again['accuracy_single']
  assert found['nll'] != again['nll']


def test_emitting_from_other_supports_keeps_the_own_prototypes():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.fresh(learner)
  key = jax.random.key(3)
  adapt, _ = helper.compiled(learner)
  task = lambda d: adapt(params, d.support, key)
  own = task(data)
  same = core.Examples(data.support.x[None], data.support.y[None])
  again = task(helper.episode(context={'emit_from': same}))
  np.testing.assert_allclose(again['head'], own['head'], rtol=1e-4, atol=1e-5)
  other = core.Examples(jax.random.uniform(key, same.x.shape), same.y)
  changed = task(helper.episode(context={'emit_from': other}))
  gap = (
    changed['weights']['block0']['kernel']
    - (own['weights']['block0']['kernel'])
  )
  assert float(jnp.abs(gap).max()) > 1e-6


def test_conditioning_on_the_same_images_by_override_changes_nothing():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.fresh(learner)
  same = helper.episode(context={'cond': data.support.x[helper.WAY :]})
  np.testing.assert_allclose(
    helper.answer(learner, params, same),
    helper.answer(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


def test_the_order_of_images_does_not_matter():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.fresh(learner)
  order = jnp.array([5, 2, 0, 6, 1, 4, 3])
  support = core.Examples(data.support.x[order], data.support.y[order])
  np.testing.assert_allclose(
    helper.answer(learner, params, data._replace(support=support)),
    helper.answer(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


@pytest.mark.parametrize('shared', [False, True])
def test_a_shared_trunk_lets_tokens_see_what_the_posterior_reads(shared):
  learner = helper.tiny_udl(phase='base', trunk=(), share_trunk=shared)
  params = jax.jit(learner.init)(jax.random.key(0), helper.episode())
  # A posterior that is the same for all images: what is left is the trunk.
  posterior = params['frozen']['vae']['net']['posterior']
  posterior.update(jax.tree.map(jnp.zeros_like, posterior))
  adapt, _ = helper.compiled(learner)
  written = lambda x: adapt(
    params, core.Examples(x, helper.episode().support.y), jax.random.key(1)
  )['weights']['block0']['kernel']
  x = helper.episode().support.x
  gap = jnp.abs(written(x) - written(x.at[helper.WAY :].set(0.9))).max()
  assert (float(gap) > 1e-6) == shared
  assert 'trunk' not in params['generator']
  assert ('from_trunk' in params['generator']) == shared


def test_without_emission_every_episode_has_the_same_weights():
  learner = helper.tiny_udl(phase='base', emit='none')
  params = helper.fresh(learner)
  adapt, _ = helper.compiled(learner)
  data = helper.episode()
  task = adapt(params, data.support, jax.random.key(1))
  for a, b in zip(
    jax.tree.leaves(task['weights']), jax.tree.leaves(params['cnn'])
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['amortised', 'learned'])
def test_a_start_is_the_identity_until_it_is_trained(kind):
  sizes = {
    'inner_steps': 0,
    'cluster': 0,
    'start': kind,
    'gate': 'none',
  }
  learner = helper.tiny_udl(**sizes)
  params = jax.jit(learner.init)(jax.random.key(0), helper.episode())
  base = {k: v for k, v in params.items() if k != 'inner'}
  data = helper.episode()
  before = helper.answer(helper.tiny_udl(phase='base'), base, data)
  np.testing.assert_allclose(
    helper.answer(learner, params, data), before, rtol=1e-5
  )
  loss = lambda p: learner.loss(p, data, jax.random.key(1), 0)[0]
  grads = jax.jit(jax.grad(loss))(params)['inner']['start']
  params['inner']['start'] = jax.tree.map(
    lambda leaf, grad: leaf - 10 * grad, params['inner']['start'], grads
  )
  after = helper.answer(learner, params, data)
  assert float(jnp.abs(after - before).max()) > 1e-4


@pytest.mark.slow
def test_the_multi_step_loss_ends_as_that_of_the_last_step():
  data = helper.episode()
  plain, multi = helper.tiny_udl(), helper.tiny_udl(multi_step=10)
  params = helper.fresh(plain)
  # Together with the accuracies after each step this is one number by hand.
  value = lambda learner: jax.jit(
    lambda step: learner.loss(params, data, jax.random.key(1), step)[0]
  )
  last, early, middle, late = (
    value(plain)(0),
    *(value(multi)(jnp.asarray(step)) for step in (0, 5, 10)),
  )
  np.testing.assert_allclose(late, last, rtol=1e-6)
  assert abs(float(early - last)) > 1e-6
  np.testing.assert_allclose(middle, (early + last) / 2, rtol=1e-5)


@pytest.mark.slow
def test_placebo_directions_go_back_or_anywhere():
  sizes = {'inner_steps': 1, 'cluster': 0, 'gate': 'none'}
  params = helper.fresh(helper.tiny_udl(**sizes))
  base = {k: v for k, v in params.items() if k != 'inner'}
  key, support = jax.random.key(1), helper.episode().support
  start = helper.compiled(helper.tiny_udl(phase='base'))[0](base, support, key)[
    'weights'
  ]

  def moved(direction, support=support):
    learner = helper.tiny_udl(direction=direction, **sizes)
    task = helper.compiled(learner)[0](params, support, key)
    return task['weights']['block0']['scale'] - start['block0']['scale']

  np.testing.assert_allclose(
    moved('flipped'), -moved('learned'), rtol=1e-3, atol=1e-6
  )
  assert float(jnp.abs(moved('random') - moved('learned')).max()) > 1e-4


@pytest.mark.parametrize(
  'adapt',
  [
    'encoder',
    *(
      pytest.param(part, marks=pytest.mark.slow)
      for part in ('tokens', 'hyper', 'transform')
    ),
  ],
)
def test_what_the_generator_reads_changes_what_it_writes(adapt):
  learner = helper.tiny_udl(adapt=adapt, cluster=0, gate='none', inner_rate=1.0)
  params = jax.jit(learner.init)(jax.random.key(0), helper.episode())
  written, _ = helper.compiled(helper.tiny_udl(phase='base'))
  base = {k: v for k, v in params.items() if k != 'inner'}
  run, _ = helper.compiled(learner)
  key, support = jax.random.key(1), helper.episode().support
  before, after = written(base, support, key), run(params, support, key)
  gap = (
    after['weights']['block0']['kernel']
    - (before['weights']['block0']['kernel'])
  )
  assert float(jnp.abs(gap).max()) > 1e-6
  assert ('transform' in after) == (adapt == 'transform')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'phase': 'both'}, 'phase must be one of'),
    ({'unadapted_weight': 1.5}, r'unadapted_weight must be in \[0, 1\]'),
    ({'channels': ()}, 'channels, kernel and stride must be >= 1'),
    ({'width': 9, 'heads': 2}, 'multiple of heads'),
    ({'setting': 'guess'}, 'setting of'),
    ({'norm': 'none'}, 'norm must be one of'),
    ({'multi_step': -1}, 'cluster and multi_step must be >= 0'),
    ({'direction': 'up'}, 'direction must be one of'),
    ({'emit': 'some'}, 'emit must be one of'),
    ({'cluster': -1}, 'cluster and multi_step must be >= 0'),
    ({'emit': 'none', 'adapt': 'tokens'}, "has no 'tokens' to adapt"),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    helper.tiny_udl(**changes)
