"""The `udl` learner: phases, overrides, and what its parts may depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl

WAY = 3


@functools.cache
def tiny_udl(**changes):
  sizes = {
    'channels': (4, 6),
    'width': 8,
    'layers': 1,
    'heads': 2,
    'trunk': (4,),
    'inner_steps': 2,
    'vae_latent': 3,
    'vae_hidden': (8,),
  }
  return udl.make(WAY, **{**sizes, **changes})


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
  none = tiny_udl(phase='joint', inner_steps=0)
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
  params = jax.tree.map(
    lambda leaf: leaf, learner.init(jax.random.key(0), episode())
  )
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


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'phase': 'both'}, 'phase must be one of'),
    ({'unadapted_weight': 1.5}, r'unadapted_weight must be in \[0, 1\]'),
    ({'channels': ()}, 'channels and width must be >= 1'),
    ({'width': 9, 'heads': 2}, 'multiple of heads'),
  ],
)
def test_illegal_hyperparameters_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny_udl(**changes)
