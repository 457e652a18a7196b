"""Trains a learner: the loop over steps, its log and its checkpoints."""

import contextlib
import json
import math
import pathlib
import time
from typing import Any
from typing import NamedTuple
import zlib

from absl import logging
import jax
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.core.config import ConfigDict
from hyperudl.storage import checkpoints
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.storage import tensorboard
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import input_pipeline
from hyperudl.training import run_data
from hyperudl.training import setup
from hyperudl.training import train_step

IN_FLIGHT = 2  # calls queued on the device before the host waits


def train(
  config: ConfigDict,
  workdir: StrPath,
  stop: Any = (),
  allow_new_classes: bool = False,
) -> core.TrainState:
  """Train to `config.steps`, resuming a run that is in `workdir`.

  Args:
    config: a locked ConfigDict.
    workdir: folder of the run.
    stop: becomes true when the run should save and return.
    allow_new_classes: put classes that a run to resume does not know into test.

  Returns:
    The final (or interrupted) TrainState.

  Raises:
    core.Error: see `hyperudl.train`.
  """
  _assert_same_command(config, workdir)
  components, state = distributed.run_on_all(
    lambda: _prepare(config, workdir, allow_new_classes)
  )
  with contextlib.ExitStack() as stack:
    lock = distributed.run_on_primary(lambda: filesystem.acquire_lock(workdir))
    if lock:
      stack.enter_context(lock)
    state, components = _restore(config, workdir, components, state)
    start, mesh = int(state.step), components.batching.mesh
    logging.info(
      '%s on %s: step %d of %d, %s on %d of %d devices (%s)',
      *(config.learner.name, config.data.dataset, start, config.steps),
      *(components.batching.strategy, mesh.size if mesh else 1),
      jax.device_count(),
      jax.default_backend().upper(),
    )
    output = distributed.run_on_primary(
      lambda: _open(config, workdir, start, components.record)
    )
    if output:
      stack.callback(checkpoints.close, output.manager)
      stack.callback(tensorboard.close_writer, output.writer)
    state = _run(config, components, state, output, stop)
  if int(state.step) >= config.steps:
    path, text = pathlib.Path(workdir, 'DONE'), f'{int(state.step)}\n'
    distributed.run_on_primary(lambda: filesystem.replace(path, text.encode()))
  return state


def _assert_same_command(config, workdir):
  """Raise BadInput if processes differ in config (but for paths) or workdir."""
  settings = config.to_dict()
  settings['data'] = {**settings['data'], 'dir': ''}
  text = json.dumps([settings, str(workdir)], sort_keys=True, default=str)
  number = zlib.crc32(text.encode()) >> 1
  distributed.assert_equal_across_processes(number, 'config or workdir')


def _prepare(config, workdir, allow_new_classes):
  """Return (components, initial state); nothing is written."""
  setup.check_workdir(config, workdir)
  held = run_data.attach(config, workdir, allow_new_classes)
  components = setup.prepare(held)
  resuming = bool(checkpoints.steps(workdir))
  return components, setup.initial_state(config, components, graft=not resuming)


def _restore(config, workdir, components, state):
  """Return (state, components) of the newest checkpoint, on the devices."""
  restored = distributed.run_on_all(
    lambda: (
      checkpoints.steps(workdir)
      and selection.restore_latest(workdir, state, config.to_dict())
    )
  )
  state = restored.state if restored else state
  distributed.assert_equal_across_processes(
    int(state.step), f'the checkpoint that they read in {workdir}'
  )
  components = distributed.run_on_all(
    lambda: setup.encode_once(config, components, state.params)
  )
  return train_step.place(state, components.batching.mesh), components


class _Output(NamedTuple):
  """Open files of a run, in the primary process alone."""

  manager: checkpoints.Manager
  writer: tensorboard.Writer
  log: metrics.TrainingLog


def _open(config, workdir, start, record):
  """Open the `_Output` of a run that goes on from step `start`."""
  path = pathlib.Path(workdir)
  filesystem.replace(path / 'config.json', config_lib.to_json(config).encode())
  run_data.write(workdir, record)
  if start < config.steps:
    (path / 'DONE').unlink(missing_ok=True)
  manager = checkpoints.open_manager(
    workdir, checkpoints.Policy.from_config(config), resumed_step=start
  )
  purge_step = start + 1 if start else None
  writer = tensorboard.open_writer(workdir, 'train', purge_step=purge_step)
  metrics.truncate_jsonl(path / 'train.jsonl', start)
  log = metrics.TrainingLog(path / 'train.jsonl')
  return _Output(manager, writer, log)


def _run(config, components, state, output, stop):
  """Run the steps; return the last state, which has been saved."""
  learner, _, draw, optimizer, batching, draw_ahead, _ = components
  several, precision = config.steps_per_call > 1, config.matmul_precision
  step = train_step.make_train_step(
    learner, optimizer, batching, several, precision
  )
  done = int(state.step)
  policy = checkpoints.Policy.from_config(config)
  log = _Log(config, output, done)
  feed = input_pipeline.feed(config, draw, batching.mesh, done, draw_ahead)
  with contextlib.closing(feed):
    for count, batch, keys in feed:
      state, values = step(state, batch, keys)
      done += count
      log.add(values, count)
      last = done == config.steps or _is_stopped(stop, done, count)
      save = last or policy.is_due(done)
      if save or done % config.log_steps == 0:
        log.flush(done)
      if save:
        _save(config, output, state)
      if last:  # not `stop`: it may have come after the save was decided
        distributed.run_on_primary(lambda: checkpoints.finish(output.manager))
        break
  return state


def _is_stopped(stop, done, count):
  """Return whether any process should stop; several ask every few steps."""
  if distributed.is_single_process():
    return bool(stop)
  every = distributed.STOP_CHECK_STEPS
  is_due = done // every > (done - count) // every
  return is_due and distributed.any_process(stop)


def _save(config, output, state):
  distributed.run_on_primary(
    lambda: checkpoints.save(output.manager, state, config.to_dict())
  )


class _Log:
  """Metrics since the last flush, on the device until then."""

  def __init__(self, config, output, start):
    self._config = config
    self._output = output
    self._pending = []
    self._count = 0  # of pending steps
    self._flushed = start
    self._clock = time.monotonic()

  def add(self, values, count):
    """Add the metrics of `count` steps; wait if the device is far behind."""
    self._pending.append(values)
    self._count += count
    if len(self._pending) > IN_FLIGHT:
      self._pending[-IN_FLIGHT - 1]['loss'].block_until_ready()

  def flush(self, done):
    """Write the means of the pending steps; `done` is the last of them.

    Raises:
      core.NonFinite: naming the metrics and the range of steps.
    """
    rows, count = jax.device_get(self._pending), self._count
    self._pending, self._count = [], 0
    # A call of one step has scalars, of several one entry a step.
    total = lambda name: sum(np.sum(row[name]) for row in rows)
    means = {name: float(total(name) / count) for name in rows[0]}
    first, self._flushed = self._flushed + 1, done
    if means.pop('finite') < 1:
      bad = [name for name, mean in means.items() if not math.isfinite(mean)]
      raise core.NonFinite(
        f'{", ".join(bad) or "the update"} became NaN or infinite somewhere '
        f'within steps [{first}, {done}]; the last good checkpoint is kept. '
        'Lower config.optimizer.learning_rate or set config.optimizer.clip'
      )
    now = time.monotonic()
    speed = count / max(now - self._clock, 1e-9)
    self._clock = now
    if not self._output:
      return
    speeds = {
      'steps_per_second': speed,
      'episodes_per_second': speed * self._config.batch,
    }
    tensorboard.write_scalars(self._output.writer, done, {**means, **speeds})
    row = {'step': done, **means, **speeds}
    self._output.log.append(row)
    logging.info(progress_line(done, self._config.steps, row))


def progress_line(step: int, total: int, row: dict[str, float]) -> str:
  """Return a line like 'step 200/1000 (20%)  loss 1.23  ...  1m05s left'.

  Args:
    step: steps done.
    total: steps of the run.
    row: 'steps_per_second', 'episodes_per_second' and, where the learner has
      them, 'loss' and 'accuracy'.
  """
  speed = row['steps_per_second']
  parts = [f'step {step}/{total} ({100 * step // total}%)']
  parts += [f'{k} {row[k]:.4g}' for k in ('loss', 'accuracy') if k in row]
  parts += [f'{speed:.3g} steps/s']
  parts += [f'{row["episodes_per_second"]:.3g} episodes/s']
  parts += [f'{_duration((total - step) / speed)} left']
  return '  '.join(parts)


def _duration(seconds):
  minutes, rest = divmod(round(max(seconds, 0)), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{rest:02d}s' if minutes else f'{rest}s'
