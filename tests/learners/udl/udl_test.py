"""The `udl` learner: phases, overrides, and what its parts may depend on.

Guards: learners/udl/config.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from tests.testing import laws
from tests.testing import udl as helper

LAWS = {
  'udl': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}


def test_zero_steps_are_the_unadapted_path_bit_for_bit():
  data = helper.episode()
  base = helper.tiny_udl(phase='base')
  params = helper.random_params(base)
  none = helper.tiny_udl(phase='joint', inner_steps=0, cluster=0)
  np.testing.assert_array_equal(
    helper.logits(base, params, data), helper.logits(none, params, data)
  )


def test_phase_inner_trains_only_parameters_of_the_inner_loop():
  params = helper.random_params(helper.tiny_udl(phase='inner'))
  assert set(params) == {'frozen', 'inner'}
  assert set(params['frozen']) == {'vae', 'base'}
  base = helper.random_params(helper.tiny_udl(phase='base'))
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  trained = {k: v for k, v in base.items() if k != 'frozen'}
  assert shapes(params['frozen']['base']) == shapes(trained)


def test_inner_data_none_switches_the_steps_off_and_noise_changes_them():
  learner = helper.tiny_udl()
  data = helper.episode()
  params = helper.random_params(learner)
  base = helper.without_inner(params)
  unadapted = helper.logits(helper.tiny_udl(phase='base'), base, data)
  off = helper.episode(context={'inner': jnp.zeros((0, 10, 10, 1))})
  np.testing.assert_allclose(
    helper.logits(learner, params, off), unadapted, rtol=1e-5
  )
  noise = jax.random.uniform(jax.random.key(9), (4, 10, 10, 1))
  noisy = helper.logits(
    learner, params, helper.episode(context={'inner': noise})
  )
  real = helper.logits(learner, params, data)
  assert float(jnp.abs(noisy - real).max()) > 1e-5


@pytest.mark.slow
def test_a_single_image_adapts_to_nothing_but_itself():
  learner = helper.tiny_udl(single=True)
  data, params = helper.episode(), helper.random_params(learner)
  data = data._replace(extra={'unlabelled_y': jnp.zeros(4, jnp.int32)})
  evaluate = jax.jit(learner.evaluate)
  metrics = evaluate(params, data, jax.random.key(2))
  # Neither the unlabelled images nor the other queries have a say.
  support = data.support
  blank = jnp.where((support.y < 0)[:, None, None, None], 0.3, support.x)
  other = data._replace(support=support._replace(x=blank))
  again = evaluate(params, other, jax.random.key(2))
  assert metrics['accuracy_single'] == again['accuracy_single']
  assert metrics['nll'] != again['nll']


def test_weights_from_other_supports_keep_the_prototypes_of_this_one():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.random_params(learner)
  key = jax.random.key(3)
  adapt, _ = helper.compiled(learner)
  run = lambda d: adapt(params, d.support, key)
  task = run(data)
  same = core.Examples(data.support.x[None], data.support.y[None])
  again = run(helper.episode(context={'emit_from': same}))
  np.testing.assert_allclose(
    again.prototypes, task.prototypes, rtol=1e-4, atol=1e-5
  )
  other = core.Examples(jax.random.uniform(key, same.x.shape), same.y)
  changed = run(helper.episode(context={'emit_from': other}))
  gap = changed.weights['block0']['kernel'] - (task.weights['block0']['kernel'])
  assert float(jnp.abs(gap).max()) > 1e-6


def test_conditioning_on_the_same_images_by_override_changes_nothing():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.random_params(learner)
  same = helper.episode(context={'cond': data.support.x[helper.WAY :]})
  np.testing.assert_allclose(
    helper.logits(learner, params, same),
    helper.logits(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


def test_the_order_of_images_does_not_matter():
  learner = helper.tiny_udl(phase='base')
  data = helper.episode()
  params = helper.random_params(learner)
  order = jnp.array([5, 2, 0, 6, 1, 4, 3])
  support = core.Examples(data.support.x[order], data.support.y[order])
  np.testing.assert_allclose(
    helper.logits(learner, params, data._replace(support=support)),
    helper.logits(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


def test_without_generated_weights_every_episode_has_the_same():
  learner = helper.tiny_udl(phase='base', emit='none')
  params = helper.random_params(learner)
  adapt, _ = helper.compiled(learner)
  data = helper.episode()
  task = adapt(params, data.support, jax.random.key(1))
  for a, b in zip(
    jax.tree.leaves(task.weights), jax.tree.leaves(params['cnn'])
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_learned_initial_value_is_the_identity_until_it_is_trained():
  sizes = {'inner_steps': 0, 'cluster': 0, 'start': 'learned', 'gate': 'none'}
  learner = helper.tiny_udl(**sizes)
  data = helper.episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  base = helper.without_inner(params)
  before = helper.logits(helper.tiny_udl(phase='base'), base, data)
  np.testing.assert_allclose(
    helper.logits(learner, params, data), before, rtol=1e-5
  )
  loss = lambda p: learner.loss(p, data, jax.random.key(1), 0)[0]
  grads = jax.jit(jax.grad(loss))(params)['inner']['start']
  params['inner']['start'] = jax.tree.map(
    lambda leaf, grad: leaf - 10 * grad, params['inner']['start'], grads
  )
  after = helper.logits(learner, params, data)
  assert float(jnp.abs(after - before).max()) > 1e-4


@pytest.mark.slow
def test_the_multi_step_loss_ends_as_that_of_the_last_step():
  data = helper.episode()
  plain, multi = helper.tiny_udl(), helper.tiny_udl(multi_step=10)
  params = helper.random_params(plain)
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
def test_control_directions_go_back_or_anywhere():
  sizes = {'inner_steps': 1, 'cluster': 0, 'gate': 'none'}
  params = helper.random_params(helper.tiny_udl(**sizes))
  base = helper.without_inner(params)
  key, support = jax.random.key(1), helper.episode().support
  generate, _ = helper.compiled(helper.tiny_udl(phase='base'))
  before = generate(base, support, key).weights['block0']['scale']

  def moved(direction, support=support):
    learner = helper.tiny_udl(direction=direction, **sizes)
    task = helper.compiled(learner)[0](params, support, key)
    return task.weights['block0']['scale'] - before

  np.testing.assert_allclose(
    moved('flipped'), -moved('learned'), rtol=1e-3, atol=1e-6
  )
  assert float(jnp.abs(moved('random') - moved('learned')).max()) > 1e-4


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'phase': 'both'}, 'phase = .*both'),
    ({'unadapted_weight': 1.5}, 'unadapted_weight = 1.5'),
    ({'channels': ()}, 'channels, kernel and stride must be >= 1'),
    ({'width': 9, 'heads': 2}, 'width = 9 must be a multiple of heads'),
    ({'setting': 'guess'}, 'setting = .*guess'),
    ({'norm': 'none'}, 'norm = .*none'),
    ({'multi_step': -1}, 'multi_step = -1'),
    ({'direction': 'up'}, 'direction = .*up'),
    ({'emit': 'some'}, 'emit = .*some'),
    ({'cluster': -1}, 'cluster = -1'),
    ({'gate': 'open'}, 'gate = .*open'),
    ({'inner_rates': 'positive'}, 'inner_rates = .*positive'),
    ({'inner_norm': 'l1'}, 'inner_norm = .*l1'),
    ({'meta_grad': 'half'}, 'meta_grad = .*half'),
    ({'inner_steps': -1}, 'inner_steps = -1'),
    ({'start': 'chosen'}, 'start = .*chosen'),
    ({'condition': 'pca'}, 'condition = .*pca'),
    ({'ensemble': -1}, 'ensemble = -1'),
    ({'finetune_rate': 0.0}, 'finetune_rate = 0.0'),
    ({'setting': 'clusters', 'ensemble': 2}, 'clusters without any'),
    ({'emit': 'none', 'adapt': 'hyper'}, "has no 'hyper' to adapt"),
    ({'condition': 'none', 'adapt': 'encoder'}, 'reads no posterior'),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    helper.tiny_config(**changes)


def test_any_backbone_can_be_generated():
  learner = helper.tiny_udl(
    backbone='resnet12', channels=(4,), phase='base', norm='domain'
  )
  params = helper.random_params(learner)
  assert 'write_block0_shortcut' in params['generator']
  logits = helper.logits(learner, params, helper.episode())
  assert np.isfinite(logits).all()
