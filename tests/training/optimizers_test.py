"""The outer optimizer and its schedules."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl.training import optimizers
from tests.testing.errors import refusal
from tests.testing.linear_learner import optimizer_config


def test_schedules_by_hand():
  cosine = optimizers.make_schedule(
    optimizer_config(schedule='cosine', warmup_steps=4, learning_rate=1.0), 104
  )
  np.testing.assert_allclose(cosine(0), 0.2, rtol=1e-6)
  np.testing.assert_allclose(cosine(4), 1.0, rtol=1e-6)
  middle = 0.9 * 0.5 * (1 + np.cos(np.pi * 0.5)) + 0.1
  np.testing.assert_allclose(cosine(54), middle, rtol=1e-5)
  np.testing.assert_allclose(cosine(104), 0.1, rtol=1e-5)
  decay = optimizers.make_schedule(
    optimizer_config(schedule='exponential'), 100
  )
  np.testing.assert_allclose(decay(20), 0.01 * 0.25, rtol=1e-5)
  constant = optimizers.make_schedule(optimizer_config(), 100)
  np.testing.assert_allclose(constant(77), 0.01)


@pytest.mark.parametrize('warmup', [0, 4])
def test_the_rate_falls_at_each_milestone(warmup):
  config = optimizer_config(
    schedule='milestones', milestones=(0.1, 0.5), warmup_steps=warmup
  )
  schedule = optimizers.make_schedule(config, 100)
  rates = [float(schedule(step)) for step in (9, 10, 49, 50, 99)]
  np.testing.assert_allclose(
    rates, [0.01, 0.005, 0.005, 0.0025, 0.0025], rtol=1e-6
  )


def test_milestones_that_coincide_in_a_short_run_all_count():
  config = optimizer_config(schedule='milestones', milestones=(0.34, 0.36))
  schedule = optimizers.make_schedule(config, 3)
  rates = [float(schedule(step)) for step in range(3)]
  np.testing.assert_allclose(rates, [0.01, 0.0025, 0.0025], rtol=1e-6)


def test_gradients_can_be_limited_element_by_element():
  params = {'w': jnp.array([1.0, -2.0])}
  optimizer = optimizers.make_optimizer(
    optimizer_config(name='sgd', clip=5.0, clip_by='value'), 10
  )
  grads = {'w': jnp.array([3.0, -40.0])}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(updates['w'], [-0.03, 0.05], rtol=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
def test_optimizers_clip_and_then_take_the_step_of_optax(name):
  params = {'w': jnp.array([1.0, -2.0])}
  grads = {'w': jnp.array([30.0, 40.0])}
  optimizer = optimizers.make_optimizer(
    optimizer_config(name=name, clip=5.0), 10
  )
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  clipped = {'w': jnp.array([3.0, 4.0])}
  reference = {
    'sgd': optax.sgd(0.01),
    'adam': optax.adam(0.01),
    'adamw': optax.adamw(0.01, weight_decay=0.0),
  }[name]
  expected, _ = reference.update(clipped, reference.init(params), params)
  np.testing.assert_allclose(updates['w'], expected['w'], rtol=1e-5)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'name': 'adam', 'momentum': 0.9}, 'optimizer.name=sgd'),
    ({'name': 'adamw', 'momentum': 0.9}, "no effect with 'adamw'"),
    ({'name': 'adam', 'weight_decay': 0.1}, 'optimizer.name=adamw'),
  ],
)
def test_fields_of_another_optimizer_are_refused(changes, message):
  config = optimizer_config(**changes)
  assert message in refusal(optimizers.make_optimizer, config, 10)
