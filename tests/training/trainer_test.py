"""The lines that a training prints, and what ends it."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from configs import protonet
from hyperudl import core
from hyperudl.storage import selection
from hyperudl.training import trainer
from tests.testing import runs


def tiny_config(**changes):
  config = protonet.get_config('tiny,way=3,query=2,batch=2,steps=6').unlock()
  config.data.dir, config.data.augment = str(runs.data_dir()), 'none'
  config.learner.channels = (4, 4)
  config.log_steps, config.checkpoint_steps = 2, 4
  config.update(changes)
  return config.lock()


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (9.6, '10s'),
    (59.6, '1m00s'),
    (65, '1m05s'),
    (3725, '1h02m'),
    (0, '0s'),
  ],
)
def test_the_progress_line_names_loss_speed_and_time_left(seconds, text):
  row = {'loss': np.float32(1.23456), 'grad_norm': 3.0, 'accuracy': 0.5}
  speed = 750 / seconds if seconds else 1e9
  row |= {'steps_per_second': speed, 'episodes_per_second': 138}
  line = trainer.progress_line(250, 1000, row)
  assert line == (
    f'step 250/1000 (25%)  loss 1.235  accuracy 0.5  {speed:.3g} steps/s  '
    f'138 episodes/s  {text} left'
  )


def test_a_run_is_logged_saved_and_resumed(tmp_path):
  state = trainer.train(tiny_config(steps=4), tmp_path)
  assert int(state.step) == 4 and (tmp_path / 'DONE').read_text() == '4\n'
  with pytest.raises(core.BadInput, match='steps: 4 -> 6'):
    trainer.train(tiny_config(), tmp_path)
  rows = [json.loads(line) for line in (tmp_path / 'train.jsonl').open()]
  assert [row['step'] for row in rows] == [2, 4]
  assert all(np.isfinite(row['loss']) and row['param_norm'] for row in rows)


def test_a_stopped_run_saves_and_goes_on_to_the_same_state(tmp_path):
  whole = trainer.train(tiny_config(), tmp_path / 'whole')
  stopped = trainer.train(tiny_config(), tmp_path / 'run', stop=[True])
  assert int(stopped.step) == 1 and not (tmp_path / 'run' / 'DONE').exists()
  assert selection.restore_step(tmp_path / 'run', 'latest').step == 1
  resumed = trainer.train(tiny_config(), tmp_path / 'run')
  for a, b in zip(
    *(jnp.ravel(each.params['log_scale']) for each in (whole, resumed))
  ):
    assert a == b and int(resumed.step) == 6


def test_a_loss_that_is_not_finite_is_named_with_its_steps(tmp_path):
  config = tiny_config(optimizer={'learning_rate': 1e30, 'clip': 0.0})
  with pytest.raises(core.NonFinite) as caught:
    trainer.train(config, tmp_path)
  message = str(caught.value)
  assert re.search(r'within steps \[\d+, \d+\]; the last good', message)
  assert 'norm became NaN or infinite somewhere' in message
