"""Trains a learner: `python -m hyperudl.train --config=FILE --workdir=DIR`.

The same command again resumes. Episodes are a pure function of (seed, step),
so a resumed run ends with the bits of an uninterrupted one, on as many devices
(on other numbers sums are in another order).

Exit codes: 0 done; 2 bad flag, config or data (nothing written); 3 no
checkpoint is readable; 4 a loss or gradient is not finite; 5 disk full or
unwritable; 6 another trainer holds the workdir; 7 another process of this run
has ended; 8 a device has too little memory; 130 Ctrl-C; 143 SIGTERM, both after
a checkpoint.

On several processes (`processes.py` says how they find each other) each gives
this command.
"""

import contextlib
import json
import pathlib
import time
from typing import NamedTuple
import zlib

from absl import flags
from absl import logging
import jax
from ml_collections import config_flags
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.evaluation import statistics
from hyperudl.storage import checkpoints
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.training import input_pipeline
from hyperudl.training import runs
from hyperudl.training import setup
from hyperudl.training import train_step

AHEAD = 2  # calls that may be in flight before the host waits


def train(config, workdir, stop=()):
  """Trains to `config.steps`, resuming what is in `workdir`.

  Args:
    config: a locked ConfigDict.
    workdir: folder of the run.
    stop: turns true when the run should save and return.

  Returns:
    The final (or interrupted) TrainState.

  Raises:
    core.Error: see the module's docstring.
  """
  settings = config.to_dict()
  same = {**settings, 'data': {**settings['data'], 'dir': ''}}
  text = json.dumps([same, str(workdir)], sort_keys=True, default=str)
  distributed.agree(zlib.crc32(text.encode()) >> 1, 'config or workdir')
  prepared = distributed.together(lambda: setup.prepare(config))
  distributed.together(lambda: runs.check_workdir(config, workdir))
  resuming = bool(checkpoints.steps(workdir))
  state = distributed.together(
    lambda: setup.initial_state(config, prepared, graft=not resuming)
  )
  lock = distributed.lead(lambda: filesystem.acquire_lock(workdir))
  restored = distributed.together(
    lambda: checkpoints.restore_latest(workdir, state, settings)
  )
  if restored is not None:
    state = restored[0]
  start = int(state.step)
  distributed.agree(start, f'the checkpoint that they read in {workdir}')
  prepared = distributed.together(
    lambda: setup.encoded(config, prepared, state.params)
  )
  state = train_step.place(state, prepared.mesh)
  about = f'{config.learner.name} on {config.data.dataset}'
  logging.info(
    '%s: step %d of %d, %s on %d of %d devices',
    *(about, start, config.steps, prepared.strategy),
    *(prepared.mesh.size if prepared.mesh else 1, jax.device_count()),
  )
  output = distributed.lead(lambda: _open(config, workdir, start))
  try:
    state = _run(config, prepared, state, output, stop)
  finally:
    if output:
      metrics.close_writer(output.writer)
      checkpoints.close(output.manager)
      lock.close()
  if int(state.step) >= config.steps:
    done, text = pathlib.Path(workdir) / 'DONE', f'{int(state.step)}\n'
    distributed.lead(lambda: filesystem.replace(done, text.encode()))
  return state


class _Output(NamedTuple):
  """What a run writes to; the first of several processes alone has one."""

  manager: checkpoints.Manager
  writer: metrics.Writer


def _open(config, workdir, start):
  path = pathlib.Path(workdir)
  filesystem.replace(path / 'config.json', config_lib.to_json(config).encode())
  if start < config.steps:
    (path / 'DONE').unlink(missing_ok=True)
  manager = checkpoints.open_manager(workdir, resumed=start)
  writer = metrics.open_writer(
    workdir, 'train', purge_step=start + 1 if start else None
  )
  metrics.truncate_jsonl(path / 'train.jsonl', start)
  return _Output(manager, writer)


def _run(config, prepared, state, output, stop):
  """The loop over steps; returns the last state, which has been saved."""
  learner, _, draw, optimizer, strategy, mesh, ahead = prepared
  several = config.steps_per_call > 1
  step = train_step.make_train_step(
    learner,
    *(optimizer, strategy, mesh),
    several=several,
    chunk=config.chunk,
    precision=config.matmul_precision,
  )
  done = int(state.step)
  log = _Log(config, output, done)
  settings = config.to_dict()
  feed = input_pipeline.feed(config, draw, mesh, done, ahead)
  with contextlib.closing(feed):
    for count, batch, keys in feed:
      state, values = step(state, batch, keys)
      before, done = done, done + count
      log.add(values, count)
      every = 1 if distributed.alone() else distributed.AGREE
      asked = done // every > before // every
      last = done == config.steps or (asked and distributed.any_of(stop))
      if last or done % config.log_steps == 0:
        log.flush(done)
      if last or done % config.checkpoint_steps == 0:
        log.flush(done)
        save = lambda state=state: checkpoints.save(
          output.manager, state, settings
        )
        distributed.lead(save)
      if last:  # not `stop`: it may have come after the save was decided
        distributed.lead(lambda: checkpoints.finish(output.manager))
        break
  return state


class _Log:
  """Metrics since the last flush, kept on the device until then."""

  def __init__(self, config, output, start):
    self.config = config
    self.output = output
    self.pending = []
    self.steps = 0  # pending ones
    self.flushed = start
    self.clock = time.monotonic()

  def add(self, values, count):
    """Takes the metrics of `count` steps; waits for the call before last."""
    self.pending.append(values)
    self.steps += count
    if len(self.pending) > AHEAD:
      self.pending[-AHEAD - 1]['loss'].block_until_ready()

  def flush(self, done):
    """Writes the means of the pending steps; `done` is the last of them.

    Raises:
      core.NonFinite: naming the metrics and the range of steps.
    """
    if not self.pending:
      return
    rows = jax.device_get(self.pending)
    count, self.pending, self.steps = self.steps, [], 0
    # A call of one step has scalars, of several one entry a step.
    total = lambda name: sum(np.sum(row[name]) for row in rows)
    means = {name: float(total(name) / count) for name in rows[0]}
    first, self.flushed = self.flushed + 1, done
    if means.pop('finite') < 1:
      bad = [k for k, v in means.items() if v - v != 0]
      raise core.NonFinite(
        f'{", ".join(bad) or "the update"} became NaN or infinite somewhere '
        f'within steps [{first}, {done}]; the last good checkpoint is kept. '
        'Lower config.optimizer.learning_rate or set config.optimizer.clip'
      )
    now = time.monotonic()
    speed = count / max(now - self.clock, 1e-9)
    self.clock = now
    row = {
      **means,
      'steps_per_second': speed,
      'episodes_per_second': speed * self.config.batch,
    }
    if not self.output:
      return
    metrics.write_scalars(self.output.writer, done, row)
    metrics.write_row(self.output.writer, {'step': done, **row})
    logging.info(
      statistics.progress_line(
        done,
        self.config.steps,
        {k: means[k] for k in ('loss', 'accuracy') if k in means},
        speed,
        speed * self.config.batch,
        (self.config.steps - done) / speed,
      )
    )


def _parts(config):
  """Into how many parts at most devices may divide an update."""
  if config.strategy not in ('auto', 'sharded'):
    return 1
  return max(config.batch // max(config.chunk, 1), 1)


def main(argv):
  """Trains, or resumes, the run that the flags name."""
  del argv
  devices = cli.devices_of_cpu(FLAGS.cpu_devices, _parts(FLAGS.config))
  cli.set_up(several=True, cpu_devices=devices)
  stop = cli.Stop()
  stop.install()
  with distributed.guarded():
    train(FLAGS.config, FLAGS.workdir, stop)
    code = distributed.most(stop.code)
  if code:
    cli.fail(code, f'stopped; the same command resumes {FLAGS.workdir}')


if __name__ == '__main__':
  FLAGS = flags.FLAGS
  config_flags.DEFINE_config_file(
    'config',
    None,
    'Config file, optionally with a variant: '
    'configs/udl.py:omniglot,way=5,shot=1',
    lock_config=True,
  )
  flags.DEFINE_string('workdir', None, 'Folder of the run; made if absent.')
  cli.define_cpu_devices()
  flags.declare_key_flag('cpu_devices')  # so that --help tells it
  flags.mark_flags_as_required(['config', 'workdir'])
  cli.run(main)
