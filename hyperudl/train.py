"""Trains a learner: `python -m hyperudl.train --config=FILE --workdir=DIR`.

The same command again resumes. Episodes are a pure function of (seed, step),
so a resumed run ends with the bits of an uninterrupted one.

Exit codes: 0 done; 2 bad flag, config or data (nothing written); 3 no
checkpoint is readable; 4 a loss or gradient is not finite; 5 disk full or
unwritable; 6 another trainer holds the workdir; 130 Ctrl-C; 143 SIGTERM,
both after a checkpoint.
"""

import pathlib
import time

from absl import flags
from absl import logging
import jax
from ml_collections import config_flags

from hyperudl import checkpoint
from hyperudl import cli
from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import loop
from hyperudl import metrics
from hyperudl import runs
from hyperudl import selection
from hyperudl import stats
from hyperudl import storage
from hyperudl.data import episodes

AHEAD = 2  # steps that may be in flight before the host waits


def prepare(config):
  """Everything that can fail before a run exists.

  Args:
    config: a ConfigDict.

  Returns:
    (learner, draw, optimizer, (strategy, mesh)).

  Raises:
    core.BadInput: for a config or data set that cannot run.
  """
  config_lib.validate(config)
  learner = runs.make_learner(config)
  try:
    strategy = loop.resolve_strategy(config.strategy, config.batch)
  except ValueError as error:
    raise core.BadInput(f'config: {error}') from error
  dataset = runs.load_data(config, 'train')
  episodes.check_fits(config, dataset, 'train')
  draw = episodes.make_draw(config, dataset, train=True, others=dataset)
  optimizer = loop.make_optimizer(config.optimizer, config.steps)
  return learner, draw, optimizer, strategy


def initial_state(config, learner, draw, optimizer, graft=True):
  """A new state, with upstream networks grafted in if `graft`.

  Raises:
    core.BadInput: if the learner cannot take such episodes, or an upstream
      does not fit.
  """
  keys = episodes.train_keys(config.seed, 0, 1)
  episode = jax.tree.map(lambda leaf: leaf[0], draw(keys))
  init_key = jax.random.fold_in(jax.random.key(config.seed), 1)
  try:
    state = loop.init_state(learner, optimizer, init_key, episode)
    jax.eval_shape(learner.loss, state.params, episode, init_key, state.step)
  except (TypeError, ValueError) as error:
    shape = tuple(episode.support.x.shape)
    raise core.BadInput(
      f'learner {config.learner.name!r} cannot run on support images of '
      f'shape {shape}: {error}'
    ) from error
  params = _grafted(config, state.params) if graft else state.params
  return state._replace(params=params)


def _grafted(config, params):
  random = dict(params.get('frozen', {}))
  for name, workdir in config.init_from.items():
    frozen = name in params.get('frozen', {})
    if workdir and not frozen and name not in params:
      raise core.BadInput(
        f'config.init_from.{name} = {workdir!r}, but this configuration of '
        f'{config.learner.name!r} has no network of that name'
      )
    if workdir:
      params = selection.graft(params, name, workdir)
  for name, workdir in config.init_from.items():
    # An upstream may have brought its own upstreams with it.
    if (
      not workdir and name in random and params['frozen'][name] is random[name]
    ):
      logging.warning(
        'config.init_from.%s is empty: the frozen %r keeps its random '
        'initial weights',
        name,
        name,
      )
  return params


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
  learner, draw, optimizer, (strategy, mesh) = prepare(config)
  runs.check_workdir(config, workdir)
  settings = config.to_dict()
  resuming = bool(checkpoint.steps(workdir))
  state = initial_state(config, learner, draw, optimizer, graft=not resuming)
  lock = storage.acquire_lock(workdir)
  restored = checkpoint.restore_latest(workdir, state, settings)
  if restored is not None:
    state = restored[0]
  start = int(state.step)
  path = pathlib.Path(workdir)
  storage.replace(path / 'config.json', config_lib.to_json(config).encode())
  if start < config.steps:
    (path / 'DONE').unlink(missing_ok=True)
  state = loop.place(state, mesh)
  step = loop.make_train_step(learner, optimizer, strategy, mesh)
  about = f'{config.learner.name} on {config.data.dataset}'
  logging.info('%s: step %d of %d, %s', about, start, config.steps, strategy)
  manager = checkpoint.open_manager(workdir, resumed=start)
  writer = metrics.open_writer(
    workdir, 'train', purge_step=start + 1 if start else None
  )
  metrics.truncate_jsonl(path / 'train.jsonl', start)
  try:
    state = _run(config, state, step, draw, manager, writer, stop)
  finally:
    metrics.close_writer(writer)
    checkpoint.close(manager)
    lock.close()
  if int(state.step) >= config.steps:
    storage.replace(path / 'DONE', f'{int(state.step)}\n'.encode())
  return state


def _run(config, state, step, draw, manager, writer, stop):
  """The loop over steps; returns the last state, which has been saved."""
  log = _Log(config, writer, int(state.step))
  settings = config.to_dict()
  for t in range(int(state.step), config.steps):
    keys = episodes.train_keys(config.seed, t, config.batch)
    state, values = step(state, draw(keys), keys)
    done = t + 1
    log.add(values)
    last = done == config.steps or bool(stop)
    if last or done % config.log_steps == 0:
      log.flush(done)
    if last or done % config.checkpoint_steps == 0:
      log.flush(done)
      checkpoint.save(manager, state, settings)
    if last:  # not `stop`: it may have come after the save was decided
      break
  return state


class _Log:
  """Metrics since the last flush, kept on the device until then."""

  def __init__(self, config, writer, start):
    self.config = config
    self.writer = writer
    self.pending = []
    self.flushed = start
    self.clock = time.monotonic()

  def add(self, values):
    """Takes the metrics of one step; waits for the step before last."""
    self.pending.append(values)
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
    self.pending = []
    means = {k: float(sum(r[k] for r in rows) / len(rows)) for k in rows[0]}
    first, self.flushed = self.flushed + 1, done
    if means.pop('finite') < 1:
      bad = [k for k, v in means.items() if v - v != 0]
      raise core.NonFinite(
        f'{", ".join(bad) or "the update"} became NaN or infinite somewhere '
        f'within steps [{first}, {done}]; the last good checkpoint is kept. '
        'Lower config.optimizer.learning_rate or set config.optimizer.clip'
      )
    now = time.monotonic()
    speed = len(rows) / max(now - self.clock, 1e-9)
    self.clock = now
    row = {
      **means,
      'steps_per_second': speed,
      'episodes_per_second': speed * self.config.batch,
    }
    metrics.write_scalars(self.writer, done, row)
    metrics.write_row(self.writer, {'step': done, **row})
    logging.info(
      stats.progress_line(
        done,
        self.config.steps,
        {k: means[k] for k in ('loss', 'accuracy') if k in means},
        speed,
        speed * self.config.batch,
        (self.config.steps - done) / speed,
      )
    )


def main(argv):
  """Trains, or resumes, the run that the flags name."""
  del argv
  cli.set_up()
  stop = cli.Stop()
  stop.install()
  train(FLAGS.config, FLAGS.workdir, stop)
  if stop:
    cli.fail(stop.code, f'stopped; the same command resumes {FLAGS.workdir}')


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
  flags.mark_flags_as_required(['config', 'workdir'])
  cli.run(main)
