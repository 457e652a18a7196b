"""The `udl` learner: phases, overrides, and what its parts may depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl
from tests import sizes_helper

WAY = 3


@functools.cache
def tiny_udl(**changes):
  return udl.make(WAY, **{**sizes_helper.TINY['udl'], **changes})


def episode(unlabelled=4, size=10, context=None):
  keys = jax.random.split(jax.random.key(5), 2)
  x = jax.random.uniform(keys[0], (WAY + unlabelled, size, size, 1))
  y = jnp.array([*range(WAY), *[-1] * unlabelled])
  query = jax.random.uniform(keys[1], (5, size, size, 1))
  return core.Episode(
    core.Examples(x, y, context), core.Examples(query, jnp.arange(5) % WAY)
  )


@functools.cache
def compiled(learner):
  """Adapt and predict of a learner as two programs, made once."""
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  return adapt, jax.jit(learner.predict)


def answer(learner, params, data):
  adapt, predict = compiled(learner)
  task = adapt(params, data.support, jax.random.key(1))
  return predict(params, task, data.query.x, None)


@functools.cache
def fresh(learner):
  """Parameters with small random values in the shapes that `init` makes."""
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


def test_zero_steps_are_the_unadapted_path_bit_for_bit():
  data = episode()
  base = tiny_udl(phase='base')
  params = fresh(base)
  none = tiny_udl(phase='joint', inner_steps=0, cluster=0)
  np.testing.assert_array_equal(
    answer(base, params, data), answer(none, params, data)
  )


def test_phase_inner_trains_only_what_the_inner_loop_owns():
  params = fresh(tiny_udl(phase='inner'))
  assert set(params) == {'frozen', 'inner'}
  assert set(params['frozen']) == {'vae', 'base'}
  base = fresh(tiny_udl(phase='base'))
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  own = {k: v for k, v in base.items() if k != 'frozen'}
  assert shapes(params['frozen']['base']) == shapes(own)


def test_inner_data_none_switches_the_steps_off_and_noise_changes_them():
  learner = tiny_udl()
  data = episode()
  params = fresh(learner)
  base = {k: v for k, v in params.items() if k != 'inner'}
  unadapted = answer(tiny_udl(phase='base'), base, data)
  off = episode(context={'inner': jnp.zeros((0, 10, 10, 1))})
  np.testing.assert_allclose(answer(learner, params, off), unadapted, rtol=1e-5)
  noise = jax.random.uniform(jax.random.key(9), (4, 10, 10, 1))
  noisy = answer(learner, params, episode(context={'inner': noise}))
  real = answer(learner, params, data)
  assert float(jnp.abs(noisy - real).max()) > 1e-5


@pytest.mark.slow
def test_a_single_image_adapts_to_nothing_but_itself():
  learner = tiny_udl(single=True)
  data, params = episode(), fresh(learner)
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
  learner = tiny_udl(phase='base')
  data = episode()
  params = fresh(learner)
  key = jax.random.key(3)
  adapt, _ = compiled(learner)
  task = lambda d: adapt(params, d.support, key)
  own = task(data)
  same = core.Examples(data.support.x[None], data.support.y[None])
  again = task(episode(context={'emit_from': same}))
  np.testing.assert_allclose(again['head'], own['head'], rtol=1e-4, atol=1e-5)
  other = core.Examples(jax.random.uniform(key, same.x.shape), same.y)
  changed = task(episode(context={'emit_from': other}))
  gap = (
    changed['weights']['block0']['kernel']
    - (own['weights']['block0']['kernel'])
  )
  assert float(jnp.abs(gap).max()) > 1e-6


def test_conditioning_on_the_same_images_by_override_changes_nothing():
  learner = tiny_udl(phase='base')
  data = episode()
  params = fresh(learner)
  same = episode(context={'cond': data.support.x[WAY:]})
  np.testing.assert_allclose(
    answer(learner, params, same),
    answer(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


def test_the_order_of_images_does_not_matter():
  learner = tiny_udl(phase='base')
  data = episode()
  params = fresh(learner)
  order = jnp.array([5, 2, 0, 6, 1, 4, 3])
  support = core.Examples(data.support.x[order], data.support.y[order])
  np.testing.assert_allclose(
    answer(learner, params, data._replace(support=support)),
    answer(learner, params, data),
    rtol=1e-3,
    atol=1e-3,
  )


@pytest.mark.parametrize('shared', [False, True])
def test_a_shared_trunk_lets_tokens_see_what_the_posterior_reads(shared):
  learner = tiny_udl(phase='base', trunk=(), share_trunk=shared)
  params = jax.jit(learner.init)(jax.random.key(0), episode())
  # A posterior that is the same for all images: what is left is the trunk.
  posterior = params['frozen']['vae']['net']['posterior']
  posterior.update(jax.tree.map(jnp.zeros_like, posterior))
  adapt, _ = compiled(learner)
  written = lambda x: adapt(
    params, core.Examples(x, episode().support.y), jax.random.key(1)
  )['weights']['block0']['kernel']
  x = episode().support.x
  gap = jnp.abs(written(x) - written(x.at[WAY:].set(0.9))).max()
  assert (float(gap) > 1e-6) == shared
  assert 'trunk' not in params['generator']
  assert ('from_trunk' in params['generator']) == shared


def test_clusters_form_around_the_prototypes_of_unlabelled_images_alone():
  learner = tiny_udl(inner_steps=0, cluster=2, gate='none')
  params = fresh(learner)
  adapt, _ = compiled(learner)
  written, _ = compiled(tiny_udl(phase='base'))
  base = {k: v for k, v in params.items() if k != 'inner'}
  key = jax.random.key(1)
  unit = lambda head: head / jnp.linalg.norm(head, axis=1, keepdims=True)

  def turned(support):
    before = unit(written(base, support, key)['head'])
    after = unit(adapt(params, support, key)['head'])
    return float(jnp.abs(after - before).max())

  data = episode()
  assert turned(data.support) > 1e-3
  labelled = core.Examples(data.support.x[:WAY], data.support.y[:WAY])
  assert turned(labelled) < 1e-5


def test_without_emission_every_episode_has_the_same_weights():
  learner = tiny_udl(phase='base', emit='none')
  params = fresh(learner)
  adapt, _ = compiled(learner)
  data = episode()
  task = adapt(params, data.support, jax.random.key(1))
  for a, b in zip(
    jax.tree.leaves(task['weights']), jax.tree.leaves(params['cnn'])
  ):
    np.testing.assert_array_equal(a, b)


def clusters_episode(unlabelled=9):
  """Three clear classes, of which the learner is told nothing."""
  rng = np.random.default_rng(0)
  middle = rng.uniform(size=(WAY, 10, 10, 1))

  def images(y):
    noise = 0.05 * rng.normal(size=(len(y), 10, 10, 1))
    return jnp.asarray(middle[y] + noise, jnp.float32)

  hidden = np.arange(unlabelled) % WAY
  y = np.arange(12) % WAY
  support = core.Examples(
    images(np.concatenate([np.arange(WAY), hidden])),
    jnp.array([*range(WAY), *[-1] * unlabelled]),
  )
  extra = {'unlabelled_y': jnp.asarray(hidden)}
  return core.Episode(support, core.Examples(images(y), jnp.asarray(y)), extra)


def test_clusters_are_made_without_labels_and_named_for_scores_alone():
  learner = tiny_udl(setting='clusters', phase='base')
  data = clusters_episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  renamed = data._replace(
    support=data.support._replace(y=(data.support.y + 1) % WAY)
  )
  np.testing.assert_array_equal(
    answer(learner, params, data), answer(learner, params, renamed)
  )
  metrics = jax.jit(learner.evaluate)(params, data, jax.random.key(1))
  for name in ('accuracy', 'ari', 'nmi', 'accuracy_kmeans_pixels'):
    np.testing.assert_allclose(metrics[name], 1.0, rtol=1e-5)
  # Other classes of the support: other names, so all answers are wrong.
  extra = {'unlabelled_y': (data.extra['unlabelled_y'] + 1) % WAY}
  wrong = renamed._replace(extra=extra)
  metrics = jax.jit(learner.evaluate)(params, wrong, jax.random.key(1))
  assert metrics['accuracy'] == 0
  np.testing.assert_allclose(metrics['ari'], 1.0, rtol=1e-5)


@pytest.mark.slow
def test_clusters_can_be_trained_through_their_alignment():
  learner = tiny_udl(setting='clusters')
  data = clusters_episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  loss = lambda p: learner.loss(p, data, jax.random.key(1), 0)[0]
  grads = jax.jit(jax.grad(loss))(params)
  for name in ('cnn', 'inner', 'log_scale'):
    leaves = jax.tree.leaves(grads[name])
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in leaves) > 0


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['amortised', 'learned'])
def test_a_start_is_the_identity_until_it_is_trained(kind):
  sizes = {
    'inner_steps': 0,
    'cluster': 0,
    'start': kind,
    'gate': 'none',
  }
  learner = tiny_udl(**sizes)
  params = jax.jit(learner.init)(jax.random.key(0), episode())
  base = {k: v for k, v in params.items() if k != 'inner'}
  data = episode()
  before = answer(tiny_udl(phase='base'), base, data)
  np.testing.assert_allclose(answer(learner, params, data), before, rtol=1e-5)
  loss = lambda p: learner.loss(p, data, jax.random.key(1), 0)[0]
  grads = jax.jit(jax.grad(loss))(params)['inner']['start']
  params['inner']['start'] = jax.tree.map(
    lambda leaf, grad: leaf - 10 * grad, params['inner']['start'], grads
  )
  after = answer(learner, params, data)
  assert float(jnp.abs(after - before).max()) > 1e-4


@pytest.mark.slow
def test_the_multi_step_loss_ends_as_that_of_the_last_step():
  data = episode()
  plain, multi = tiny_udl(), tiny_udl(multi_step=10)
  params = fresh(plain)
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
  params = fresh(tiny_udl(**sizes))
  base = {k: v for k, v in params.items() if k != 'inner'}
  key, support = jax.random.key(1), episode().support
  start = compiled(tiny_udl(phase='base'))[0](base, support, key)['weights']

  def moved(direction, support=support):
    learner = tiny_udl(direction=direction, **sizes)
    task = compiled(learner)[0](params, support, key)
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
  learner = tiny_udl(adapt=adapt, cluster=0, gate='none', inner_rate=1.0)
  params = jax.jit(learner.init)(jax.random.key(0), episode())
  written, _ = compiled(tiny_udl(phase='base'))
  base = {k: v for k, v in params.items() if k != 'inner'}
  run, _ = compiled(learner)
  key, support = jax.random.key(1), episode().support
  before, after = written(base, support, key), run(params, support, key)
  gap = (
    after['weights']['block0']['kernel']
    - (before['weights']['block0']['kernel'])
  )
  assert float(jnp.abs(gap).max()) > 1e-6
  assert ('transform' in after) == (adapt == 'transform')


def test_clusters_of_too_many_classes_cannot_be_named():
  with pytest.raises(ValueError, match='1 to 7 classes'):
    udl.make(20, setting='clusters')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'phase': 'both'}, 'phase must be one of'),
    ({'unadapted_weight': 1.5}, r'unadapted_weight must be in \[0, 1\]'),
    ({'channels': ()}, 'channels, kernel and stride must be >= 1'),
    ({'width': 9, 'heads': 2}, 'multiple of heads'),
    ({'setting': 'guess'}, 'setting of'),
    ({'norm': 'none'}, 'and norm of'),
    ({'multi_step': -1}, 'cluster and multi_step must be >= 0'),
    ({'direction': 'up'}, 'direction must be one of'),
    ({'emit': 'some'}, 'emit must be one of'),
    ({'cluster': -1}, 'cluster and multi_step must be >= 0'),
    ({'emit': 'none', 'adapt': 'tokens'}, "has no 'tokens' to adapt"),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny_udl(**changes)
