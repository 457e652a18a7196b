"""The episodes of an update, however many updates a call makes."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from hyperudl.data import episodes
from hyperudl.training import episode_batching
from hyperudl.training import input_pipeline
from hyperudl.training import train_step
from tests.testing import linear_learner
from tests.testing import runs


def config_of(**changes):
  config = common.base()
  config.update({'steps': 47, 'log_steps': 10, 'checkpoint_steps': 15})
  config.update({'batch': 3, **changes})
  return config


def draw(keys):
  return {'x': jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)}


@pytest.mark.parametrize('several', [1, 4, 32])
@pytest.mark.parametrize('start', [0, 7, 30, 47])
def test_calls_end_at_steps_that_are_logged_or_saved(several, start):
  config = config_of(steps_per_call=several)
  calls = list(input_pipeline.calls(config, start))
  done = [t for step, count in calls for t in range(step, step + count)]
  assert done == list(range(start, 47))
  assert all(1 <= count <= several for _, count in calls)
  ends = {step + count for step, count in calls}
  written = {t for t in range(1, 48) if t % 10 == 0 or t % 15 == 0 or t == 47}
  assert {t for t in written if t > start} <= ends
  if several == 32:  # nothing ends earlier than it must
    assert ends == {t for t in written if t > start}


@pytest.mark.parametrize('several', [1, 4])
@pytest.mark.parametrize('ahead', [False, True])
def test_an_update_gets_the_episodes_of_its_step(several, ahead):
  config = config_of(steps_per_call=several)
  drawn = []
  for count, batch, keys in input_pipeline.feed(config, draw, None, 5, ahead):
    x = batch['x'].reshape(count, 3, 2)
    assert keys.shape == ((count, 3) if several > 1 else (3,))
    drawn += list(np.asarray(x))
  expected = [
    draw(episodes.train_keys(config.seed, t, 3))['x'] for t in range(5, 47)
  ]
  np.testing.assert_array_equal(drawn, expected)


def test_episodes_are_drawn_ahead_and_no_thread_stays():
  drawn = []

  def slow(keys):
    drawn.append(threading.current_thread().name)
    return draw(keys)

  feed = input_pipeline.feed(config_of(), slow, None, 0, ahead=True)
  next(feed)
  end = time.monotonic() + 60
  while len(drawn) <= input_pipeline.AHEAD:  # without another `next`
    assert time.monotonic() < end
    time.sleep(0.01)
  feed.close()
  assert len(drawn) < 10
  assert all(name.startswith('draw') for name in drawn)
  assert not [t for t in threading.enumerate() if t.name.startswith('draw')]


def test_an_error_of_the_drawing_thread_is_raised():
  def broken(keys):
    raise OSError('the disk is gone')

  with pytest.raises(OSError, match='the disk is gone'):
    list(input_pipeline.feed(config_of(), broken, None, 0, ahead=True))


@pytest.mark.parametrize('strategy', ['scan', 'vmap'])
def test_several_updates_in_one_call_are_these_updates(strategy):
  batches, episode = linear_learner.draw_batch(3, 4)
  learner, optimizer = linear_learner.make_learner(), optax.adam(0.01)
  init_key = jax.random.key(1)
  first = train_step.init_state(learner, optimizer, init_key, episode)
  second = jax.tree.map(jnp.copy, first)
  batching = episode_batching.Batching(strategy)
  step = train_step.make_train_step(learner, optimizer, batching)
  rows = []
  for i in range(3):
    batch = jax.tree.map(lambda leaf, i=i: leaf[i], batches)
    first, values = step(first, *batch)
    rows.append(values)
  steps = train_step.make_train_step(learner, optimizer, batching, several=True)
  second, stacked = steps(second, *batches)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, first, second)
  jax.tree.map(close, stacked, jax.tree.map(lambda *r: jnp.stack(r), *rows))
  assert int(second.step) == 3


@pytest.mark.slow
def test_a_run_with_several_updates_a_call_ends_the_same(tmp_path):
  flags = lambda name, *more: runs.tiny_flags(tmp_path / name, *more, steps=25)
  one, four, disk = runs.call_many(
    'train',
    [
      flags('one'),
      flags('four', '--config.steps_per_call=4'),
      # Also drawn from the host, ahead.
      flags('disk', '--config.data.device_mb=0'),
    ],
  )
  for result in (one, four, disk):
    assert result.code == 0, result.err
  assert runs.digest(tmp_path / 'one') == runs.digest(tmp_path / 'disk')
  assert runs.logged_steps(tmp_path / 'one') == runs.logged_steps(
    tmp_path / 'four'
  )
  assert runs.steps(tmp_path / 'one') == runs.steps(tmp_path / 'four')
  losses = [
    [row['loss'] for row in runs.metrics.read_jsonl(path)]
    for path in (tmp_path / n / 'train.jsonl' for n in ('one', 'four'))
  ]
  np.testing.assert_allclose(*losses, rtol=1e-3)
