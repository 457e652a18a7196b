"""A run of a million updates takes no more memory or files than a short one.

The updates are faked: what is tested is what surrounds them, the log, the
checkpoints and TensorBoard.
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from configs import protonet
from hyperudl.training import input_pipeline
from hyperudl.training import train_step
from hyperudl.training import trainer
from tests.testing import runs

UPDATES = 1_000_000
LOG, SAVE = 100, 20_000


def long_config():
  config = protonet.get_config(f'tiny,way=3,batch=2,steps={UPDATES}').unlock()
  config.data.dir, config.data.augment = str(runs.data_dir()), 'none'
  config.learner.channels = (4, 4)
  config.log_steps, config.checkpoint_steps = LOG, SAVE
  return config.lock()


def megabytes():
  """Return the memory that this process takes."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * 4096 / 1e6


def fake_updates(monkeypatch, seen):
  """Let updates only count; `seen` gets the memory at times of the run."""
  metrics = {'loss': jnp.float32(1), 'finite': jnp.float32(1)}

  def step(state, batch, keys):
    del batch, keys
    if state.step % SAVE == 0:
      seen.append(megabytes())
    return state._replace(step=state.step + np.int32(1)), metrics

  def feed(*arguments):
    del arguments
    yield from ((1, None, None) for _ in range(UPDATES))

  monkeypatch.setattr(train_step, 'make_train_step', lambda *a: step)
  monkeypatch.setattr(train_step, 'place', lambda state, mesh: host(state))
  monkeypatch.setattr(input_pipeline, 'feed', feed)


def host(state):
  return state._replace(step=np.int32(state.step))


@pytest.mark.slow
def test_a_million_updates_take_bounded_memory_and_files(tmp_path, monkeypatch):
  seen = []
  fake_updates(monkeypatch, seen)
  trainer.train(long_config(), tmp_path)
  # The first fifth fills caches.
  late = seen[len(seen) // 5 :]
  assert len(seen) == UPDATES // SAVE and max(late) < late[0] + 50
  assert len(runs.steps(tmp_path)) <= 4
  assert runs.newest_step(tmp_path) == UPDATES
  assert len([p for p in tmp_path.rglob('*') if p.is_file()]) < 60
  expected = list(range(LOG, UPDATES + 1, LOG))
  rows = [json.loads(line) for line in (tmp_path / 'train.jsonl').open()]
  assert [row['step'] for row in rows] == expected
  events = event_accumulator.EventAccumulator(
    str(tmp_path / 'tb' / 'train'), {event_accumulator.SCALARS: 0}
  )
  events.Reload()
  assert [event.step for event in events.Scalars('loss')] == expected
