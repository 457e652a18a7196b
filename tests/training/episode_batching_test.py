"""Every strategy over episodes against a plain Python loop."""

import jax
import numpy as np
import pytest

from hyperudl.training import episode_batching
from tests.testing import linear_learner
from tests.testing.errors import refusal


@pytest.fixture(scope='module')
def batch():
  """(params, episodes, keys, step 0) of four episodes."""
  inputs, one = linear_learner.draw_batch(4)
  params = linear_learner.make_learner().init(jax.random.key(1), one)
  return params, *inputs, 0


def batching_of(strategy, chunk=0):
  return episode_batching.choose(strategy, 4, chunk, jax.local_devices()[:1])


@pytest.mark.parametrize('chunk', [1, 2])
@pytest.mark.parametrize('strategy', ['vmap', 'sharded'])
def test_chunks_give_the_gradient_of_all_episodes_in_a_loop(
  batch, strategy, chunk
):
  learner = linear_learner.make_learner()
  results = []
  for size in (0, chunk):
    run = episode_batching.episode_value_and_grad(
      learner.loss, batching_of(strategy, size)
    )
    program = jax.jit(run).lower(*batch).compile()
    results.append(program(*batch))
    text = program.as_text()
  assert 'while' in text  # of the last, which goes chunk by chunk
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, *results)


@pytest.mark.parametrize('strategy', ['scan', 'vmap', 'sharded'])
def test_strategies_agree_with_a_python_loop(batch, strategy):
  params, episodes, keys, _ = batch
  learner = linear_learner.make_learner()
  run = jax.jit(
    episode_batching.episode_value_and_grad(learner.loss, batching_of(strategy))
  )
  value, metrics, grads = run(*batch)

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


def test_the_strategy_is_chosen_by_devices_and_batch():
  assert batching_of('auto') == episode_batching.Batching('scan')
  assert batching_of('vmap', 2) == episode_batching.Batching('vmap', None, 2)
  sharded = batching_of('sharded')
  assert sharded.strategy == 'sharded' and sharded.mesh.size == 1


def test_a_batch_that_cannot_be_divided_is_refused():
  choose = episode_batching.choose
  assert 'strategy must be one of' in refusal(choose, 'fast', 4)
  two = jax.local_devices()[:1] * 2
  message = refusal(choose, 'sharded', 3, 0, two)
  assert 'config.batch = 3 episodes cannot be divided over 2' in message
  message = refusal(choose, 'vmap', 6, 4)
  assert 'config.chunk = 4 does not divide the 6 episodes' in message
