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


def test_a_schedule_longer_than_the_run_is_clipped_to_it():
  schedule = optimizers.make_schedule(
    optimizer_config(schedule='cosine', warmup_steps=100, learning_rate=1.0), 3
  )
  assert all(np.isfinite(schedule(t)) for t in range(4))


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
