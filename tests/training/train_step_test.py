"""One compiled update, and one evaluation, of many episodes."""

import os
import re
import subprocess
import sys
import textwrap

import chex
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.benchmark import workloads
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import linear_learner


@pytest.fixture(scope='module')
def batch():
  return linear_learner.draw_batch(4)[0]


def start(batch, *strategy, learner=None, **optimizer):
  """(update, state before the first) of the linear learner."""
  learner = learner or linear_learner.make_learner()
  optimizer = optimizers.make_optimizer(
    linear_learner.optimizer_config(**optimizer), 30
  )
  episode = jax.tree.map(lambda leaf: leaf[0], batch[0])
  state = train_step.init_state(learner, optimizer, jax.random.key(1), episode)
  batching = episode_batching.Batching(*strategy)
  return train_step.make_train_step(learner, optimizer, batching), state


class Compilations:
  """Counts the programs that are compiled from now on."""

  def __init__(self):
    self.count = 0
    jax.monitoring.register_event_duration_secs_listener(self.listen)

  def listen(self, name, *unused_args, **unused_kwargs):
    self.count += 'backend_compile' in name


def test_sharding_on_1_2_and_4_devices_gives_the_same_update():
  program = """
    import jax, numpy as np
    from hyperudl.training import episode_batching, train_step
    from tests.testing import linear_learner
    from tests.training import train_step_test
    batch, _ = linear_learner.draw_batch(4)
    results = []
    for count in (1, 2, 4):
      devices = jax.devices()[:count]
      batching = episode_batching.choose('sharded', 4, devices=devices)
      assert batching.mesh.size == count, batching
      step, state = train_step_test.start(batch, *batching)
      state, _ = step(train_step.place(state, batching.mesh), *batch)
      compilations = train_step_test.Compilations()
      for _ in range(2):
        state, metrics = step(state, *batch)
      assert not compilations.count, compilations.count
      results.append(np.asarray(state.params['w']))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)
    print('agreed')
  """
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program)],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'agreed' in done.stdout


def test_one_compilation_over_steps(batch):
  learner = linear_learner.make_learner()
  learner = learner._replace(loss=chex.assert_max_traces(learner.loss, n=1))
  step, state = start(batch, 'vmap', learner=learner)
  compilations = Compilations()
  state, _ = step(state, *batch)
  assert compilations.count  # or the next count says nothing
  compilations = Compilations()
  for _ in range(4):
    state, _ = step(state, *batch)
  assert int(state.step) == 5 and not compilations.count


def test_training_lowers_the_loss_and_leaves_the_frozen_alone(batch):
  step, state = start(batch, learning_rate=0.05)
  frozen = np.asarray(state.params['frozen']['offset'])
  values = []
  for _ in range(30):
    state, metrics = step(state, *batch)
    values.append(float(metrics['loss']))
  assert values[-1] < 0.95 * values[0]
  np.testing.assert_array_equal(state.params['frozen']['offset'], frozen)
  shapes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
  assert frozen.shape not in shapes


def test_a_step_that_is_not_finite_changes_only_the_step_number(batch):
  episodes, keys = batch
  step, state = start(batch)
  before = np.asarray(state.params['w'])
  x = episodes.support.x.at[1, 0].set(jnp.nan)
  bad = episodes._replace(support=episodes.support._replace(x=x))
  state, metrics = step(state, bad, keys)
  assert metrics['finite'] == 0
  np.testing.assert_array_equal(state.params['w'], before)
  assert int(state.step) == 1
  assert all(
    np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.opt_state)
  )


def test_evaluation_is_the_same_one_by_one_and_at_once(batch):
  learner = linear_learner.make_learner()
  _, state = start(batch)
  results = [
    train_step.make_eval_step(learner, strategy)(state.params, *batch)
    for strategy in ('scan', 'vmap')
  ]
  assert results[0]['accuracy'].shape == (4,)
  for name in results[0]:
    np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-5)


@pytest.mark.parametrize(
  'name,word',
  [
    ('float32', 'HIGHEST'),
    pytest.param('tensorfloat32', 'HIGH', marks=pytest.mark.slow),
  ],
)
def test_every_product_has_the_precision_of_the_config(name, word):
  row = workloads.Workload('row', 3, 1, way=2, query=1, size=16, steps=1)
  init, loss = workloads.make_loss(row)
  learner = learners.make_learner(
    init, lambda *a, **k: None, lambda *a: None, loss=loss
  )
  params, episodes, keys, step = workloads.make_inputs(row)
  optimizer = optax.sgd(0.1)
  state = core.TrainState(step, params, optimizer.init(params))
  run = train_step.make_train_step(learner, optimizer, precision=name)
  text = run.lower(state, episodes, keys).as_text()
  products = [
    line
    for line in text.splitlines()
    if 'stablehlo.dot_general' in line or 'stablehlo.convolution' in line
  ]
  assert len(products) > 10
  for line in products:
    assert f'precision = [{word}, {word}]' in line, line
  run = train_step.make_train_step(learner, optimizer, precision='default')
  assert word not in run.lower(state, episodes, keys).as_text()


@pytest.mark.parametrize('channels', [3, 8])
@pytest.mark.slow
def test_networks_of_episodes_compute_in_bfloat16(channels):
  """Half the bits inside; parameters and gradients stay float32."""
  row = workloads.Workload('row', channels, 2, way=2, query=3, size=16, steps=2)
  _, loss = workloads.make_loss(row)
  params, episodes, keys, step = workloads.make_inputs(row)
  run = episode_batching.episode_value_and_grad(loss)
  full = jax.jit(train_step.at_precision(run, 'float32'))
  full = full(params, episodes, keys, step)
  half = jax.jit(train_step.at_precision(run, 'bfloat16'))
  text = half.lower(params, episodes, keys, step).as_text()
  products = re.findall(
    r'stablehlo.(?:dot_general|convolution).*-> tensor<[\dx]*x(\w+)>', text
  )
  assert products.count('bf16') > 10
  half = half(params, episodes, keys, step)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half))
  np.testing.assert_allclose(half[0], full[0], rtol=0.05)
  low, high = (ravel_pytree(each[2])[0] for each in (half, full))
  cosine = low @ high / jnp.linalg.norm(low) / jnp.linalg.norm(high)
  assert cosine > 0.95 and not np.array_equal(low, high)
