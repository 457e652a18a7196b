"""Every strategy over episodes against a plain Python loop."""

import os
import re
import subprocess
import sys
import textwrap

import chex
import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.benchmark import workloads
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import train_step


def toy_episode(key, way=3, rows=4):
  keys = jax.random.split(key, 2)
  x = jax.random.normal(keys[0], (way * rows, 2, 2, 1))
  y = jnp.repeat(jnp.arange(way), rows)
  examples = core.Examples(x, y)
  return core.Episode(examples, examples)


def toy_learner(way=3):
  """A linear MAML: small, but with an inner loop and randomness."""

  def init(key, episode):
    size = episode.support.x[0].size
    w = 0.1 * jax.random.normal(key, (size, way))
    frozen = {'offset': jnp.ones((way,))}
    return {'w': w, 'frozen': frozen}

  def scores(params, w, x):
    return x.reshape(x.shape[0], -1) @ w + params['frozen']['offset']

  def adapt(params, support, key, *, train):
    noise = 0.01 * jax.random.normal(key, params['w'].shape)
    loss = lambda w, k: losses.cross_entropy(
      scores(params, w, support.x), support.y
    )
    rates = jnp.full((2,), 0.5)
    return gradient_descent.descend(loss, params['w'] + noise, rates)[0]

  def predict(params, task, x, context):
    return scores(params, task, x)

  return learners.make_learner(init, adapt, predict)


def settings(**changes):
  values = {
    'name': 'adam',
    'learning_rate': 0.01,
    'schedule': 'constant',
    'warmup_steps': 0,
    'end_factor': 0.1,
    'decay_steps': 10,
    'decay_rate': 0.5,
    'clip': 0.0,
    'momentum': 0.0,
    'weight_decay': 0.0,
  }
  return config_dict.create(**{**values, **changes})


@pytest.fixture(scope='module')
def batch():
  keys = jax.random.split(jax.random.key(0), 4)
  return jax.vmap(toy_episode)(keys), keys


@pytest.mark.parametrize('chunk', [1, 2])
@pytest.mark.parametrize('strategy', ['vmap', 'sharded'])
def test_chunks_are_all_episodes_in_less_memory(batch, strategy, chunk):
  episodes, keys = batch
  learner = toy_learner()
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  params = learner.init(jax.random.key(1), one)
  _, mesh = episode_batching.resolve_strategy(
    strategy, 4, jax.local_devices()[:1]
  )
  results = []
  for size in (0, chunk):
    run = episode_batching.episode_value_and_grad(
      learner.loss, strategy, mesh, size
    )
    program = jax.jit(run).lower(params, episodes, keys, 0).compile()
    results.append(program(params, episodes, keys, 0))
    text = program.as_text()
  assert 'while' in text  # of the last, which goes chunk by chunk
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, *results)


@pytest.mark.parametrize('strategy', ['scan', 'vmap', 'sharded'])
def test_strategies_agree_with_a_python_loop(batch, strategy):
  episodes, keys = batch
  learner = toy_learner()
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  params = learner.init(jax.random.key(1), one)
  _, mesh = episode_batching.resolve_strategy(
    strategy, 4, jax.local_devices()[:1]
  )
  run = jax.jit(
    episode_batching.episode_value_and_grad(learner.loss, strategy, mesh)
  )
  value, metrics, grads = run(params, episodes, keys, 0)

  trainable = {'w': params['w']}
  total, accuracies, expected = 0.0, [], np.zeros(params['w'].shape)
  for i in range(4):
    episode = jax.tree.map(lambda leaf: leaf[i], episodes)
    loss = lambda t: learner.loss({**params, **t}, episode, keys[i], 0)
    (part, aux), gradient = jax.value_and_grad(loss, has_aux=True)(trainable)
    total += float(part) / 4
    accuracies.append(float(aux['accuracy']))
    expected += np.asarray(gradient['w']) / 4
  np.testing.assert_allclose(value, total, rtol=1e-6)
  np.testing.assert_allclose(metrics['accuracy'], np.mean(accuracies), 1e-6)
  assert set(grads) == {'w'}
  np.testing.assert_allclose(grads['w'], expected, rtol=1e-5, atol=1e-7)


def test_sharding_on_1_2_and_4_devices_gives_the_same_update():
  program = """
    import jax, jax.numpy as jnp, numpy as np
    from hyperudl import loop, optimizers, strategies
    from tests import loop_test as t
    keys = jax.random.split(jax.random.key(0), 4)
    episodes = jax.vmap(t.toy_episode)(keys)
    learner = t.toy_learner()
    one = jax.tree.map(lambda leaf: leaf[0], episodes)
    optimizer = optimizers.make_optimizer(t.settings(), 10)
    results = []
    for count in (1, 2, 4):
      some = jax.devices()[:count]
      name, mesh = strategies.resolve_strategy('sharded', 4, some)
      assert mesh.size == count, mesh
      state = loop.init_state(learner, optimizer, jax.random.key(1), one)
      step = loop.make_train_step(learner, optimizer, name, mesh)
      state = loop.place(state, mesh)
      for _ in range(3):
        state, metrics = step(state, episodes, keys)
      assert step._cache_size() == 1, step._cache_size()
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
  episodes, keys = batch
  learner = toy_learner()
  traced = chex.assert_max_traces(learner.loss, n=1)
  learner = learner._replace(loss=traced)
  optimizer = optimizers.make_optimizer(settings(), 5)
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  state = train_step.init_state(learner, optimizer, jax.random.key(1), one)
  step = train_step.make_train_step(learner, optimizer, 'vmap')
  for _ in range(5):
    state, _ = step(state, episodes, keys)
  assert int(state.step) == 5
  assert step._cache_size() == 1


def test_training_lowers_the_loss_and_leaves_the_frozen_alone(batch):
  episodes, keys = batch
  learner = toy_learner()
  optimizer = optimizers.make_optimizer(settings(learning_rate=0.05), 30)
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  state = train_step.init_state(learner, optimizer, jax.random.key(1), one)
  frozen = np.asarray(state.params['frozen']['offset'])
  step = train_step.make_train_step(learner, optimizer, 'scan')
  values = []
  for _ in range(30):
    state, metrics = step(state, episodes, keys)
    values.append(float(metrics['loss']))
  assert values[-1] < 0.95 * values[0]
  np.testing.assert_array_equal(state.params['frozen']['offset'], frozen)
  shapes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
  assert frozen.shape not in shapes


def test_a_non_finite_step_changes_nothing_but_the_step(batch):
  episodes, keys = batch
  learner = toy_learner()
  optimizer = optimizers.make_optimizer(settings(), 5)
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  state = train_step.init_state(learner, optimizer, jax.random.key(1), one)
  before = np.asarray(state.params['w'])
  x = episodes.support.x.at[1, 0].set(jnp.nan)
  bad = episodes._replace(support=episodes.support._replace(x=x))
  step = train_step.make_train_step(learner, optimizer, 'scan')
  state, metrics = step(state, bad, keys)
  assert metrics['finite'] == 0
  np.testing.assert_array_equal(state.params['w'], before)
  assert int(state.step) == 1
  assert all(
    np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.opt_state)
  )


def test_evaluation_is_the_same_one_by_one_and_at_once(batch):
  episodes, keys = batch
  learner = toy_learner()
  one = jax.tree.map(lambda leaf: leaf[0], episodes)
  params = learner.init(jax.random.key(1), one)
  results = [
    train_step.make_eval_step(learner, strategy)(params, episodes, keys)
    for strategy in ('scan', 'vmap')
  ]
  assert results[0]['accuracy'].shape == (4,)
  for name in results[0]:
    np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-5)


def test_strategy_is_chosen_by_devices_and_batch():
  cpu = jax.local_devices()[:1]
  assert episode_batching.resolve_strategy('auto', 4, cpu) == ('scan', None)
  assert episode_batching.resolve_strategy('vmap', 4, cpu) == ('vmap', None)
  with pytest.raises(ValueError, match='strategy must be one of'):
    episode_batching.resolve_strategy('fast', 4)
  with pytest.raises(ValueError, match='cannot be divided over 2'):
    episode_batching.resolve_strategy('sharded', 3, cpu * 2)


@pytest.mark.parametrize(
  'name,word', [('float32', 'HIGHEST'), ('tensorfloat32', 'HIGH')]
)
def test_every_product_has_the_precision_asked_for(name, word):
  row = workloads.Row('row', 3, 1, way=2, query=1, size=16, steps=1)
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
def test_networks_of_episodes_in_bfloat16(channels):
  """Half the bits inside, float32 parameters, gradients and about the loss."""
  row = workloads.Row('row', channels, 2, way=2, query=3, size=16, steps=2)
  _, loss = workloads.make_loss(row)
  params, episodes, keys, step = workloads.make_inputs(row)
  run = episode_batching.episode_value_and_grad(loss)
  full = train_step.at_precision(run, 'float32')(params, episodes, keys, step)
  half = jax.jit(train_step.at_precision(run, 'bfloat16'))
  text = half.lower(params, episodes, keys, step).as_text()
  products = re.findall(
    r'stablehlo.(?:dot_general|convolution).*-> tensor<[\dx]*x(\w+)>', text
  )
  assert products.count('bf16') > 10
  half = half(params, episodes, keys, step)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half))
  np.testing.assert_allclose(half[0], full[0], rtol=0.05)
  ours, theirs = (ravel_pytree(each[2])[0] for each in (half, full))
  cosine = ours @ theirs / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs)
  assert cosine > 0.95 and not np.array_equal(ours, theirs)
