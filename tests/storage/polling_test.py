"""An evaluator polls the steps of a run that is still in training.

Guards: storage/selection.py.
"""

import os
import shutil
import threading
import time

import jax.numpy as jnp
import pytest

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from tests.testing import tiny_states


def poll(workdir, stop=lambda: True, interrupted=None, done=()):
  """Poll often, and give up after 20 seconds."""
  deadline = time.monotonic() + 20
  interrupted = interrupted or (lambda: time.monotonic() > deadline)
  return selection.poll(
    workdir, tiny_states.make_state(0), stop, interrupted, done, seconds=0.02
  )


def test_the_poll_follows_a_trainer_that_keeps_one(tmp_path):
  """It starts before the first step, and ends with the last."""
  end = tmp_path / 'DONE'

  def train():
    time.sleep(0.2)
    keep_one = checkpoints.Policy(keep_latest=1)
    manager = checkpoints.open_manager(tmp_path, keep_one)
    for step in range(1, 13):
      checkpoints.save(
        manager, tiny_states.make_state(step), tiny_states.CONFIG
      )
      time.sleep(0.05)
    checkpoints.close(manager)
    end.touch()

  thread = threading.Thread(target=train)
  thread.start()
  polled = []
  for state, step, config in poll(tmp_path, end.exists):
    assert (state.params['w'] == step).all() and config == tiny_states.CONFIG
    time.sleep(0.07)  # an evaluation slower than the trainer
    polled.append(step)
  thread.join()
  assert polled == sorted(set(polled))
  assert polled[-1] == 12 and len(polled) >= 3
  assert os.listdir(tmp_path / 'checkpoints') == ['12']


def test_a_step_deleted_while_it_is_read_is_skipped_silently(
  tmp_path, monkeypatch, warnings
):
  tiny_states.write(tmp_path, tiny_states.make_state(1))
  read_step = checkpoints.read_step

  def read_late(path, *args):
    if path.endswith('1'):  # the trainer was faster
      shutil.rmtree(path)
      tiny_states.write(tmp_path, tiny_states.make_state(2))
    return read_step(path, *args)

  monkeypatch.setattr(checkpoints, 'read_step', read_late)
  assert [step for _, step, _ in poll(tmp_path)] == [2]
  assert warnings == []


def test_a_restarted_poll_leaves_out_what_is_done(tmp_path):
  tiny_states.write(
    tmp_path, tiny_states.make_state(1), tiny_states.make_state(2)
  )
  assert [step for _, step, _ in poll(tmp_path)] == [2]
  assert list(poll(tmp_path, done=[2])) == []
  assert list(poll(tmp_path / 'missing')) == []


def test_an_unreadable_step_is_reported_once_and_left_out(tmp_path, warnings):
  tiny_states.write(
    tmp_path, tiny_states.make_state(1), tiny_states.make_state(2)
  )
  tiny_states.damage(tmp_path / 'checkpoints' / '2')
  ended = []
  polling = poll(tmp_path, stop=lambda: bool(ended))
  threading.Timer(
    0.3, lambda: tiny_states.write(tmp_path, tiny_states.make_state(3))
  ).start()
  assert next(polling)[1] == 3
  ended.append(True)
  assert list(polling) == []
  assert len(warnings) == 1 and 'checkpoints/2' in warnings[0]


def test_a_trainer_that_went_back_is_followed(tmp_path):
  """After damage a run resumes from an earlier step and saves those again."""
  tiny_states.write(
    tmp_path, tiny_states.make_state(1), tiny_states.make_state(5)
  )
  ended = []
  polling = poll(tmp_path, stop=lambda: bool(ended), done=[1])
  assert next(polling)[1] == 5

  def go_back():
    manager = checkpoints.open_manager(
      tmp_path, tiny_states.POLICY, resumed_step=1
    )
    checkpoints.save(manager, tiny_states.make_state(3), tiny_states.CONFIG)
    checkpoints.close(manager)

  threading.Timer(0.1, go_back).start()
  assert next(polling)[1] == 3
  ended.append(True)
  assert list(polling) == []


def test_an_interrupt_ends_the_wait(tmp_path):
  flag = threading.Event()
  threading.Timer(0.2, flag.set).start()
  begin = time.monotonic()
  waiting = poll(tmp_path, stop=lambda: False, interrupted=flag.is_set)
  assert list(waiting) == []
  assert 0.1 < time.monotonic() - begin < 5


def test_a_poll_for_another_model_is_refused(tmp_path):
  tiny_states.write(tmp_path, tiny_states.make_state(1))
  target = {'params': {'w': jnp.zeros((3, 9))}}
  with pytest.raises(core.BadInput, match=r'expected float32\[3, 9\]'):
    list(selection.poll(tmp_path, target, lambda: True, lambda: False))
