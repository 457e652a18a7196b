"""Which checkpoint: the best, one by number, each new one, an upstream's."""

import contextlib
import math
import os
import shutil
import time

from absl import logging

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import filesystem


def best_steps(workdir):
  """The steps of `workdir/best`, the one of the highest metric first."""
  return [step for _, step in _ranking(workdir)]


def keep_best(workdir, state, config, step, metric, keep):
  """Stores `state` in `workdir/best` if it is one of the `keep` best.

  Args:
    workdir: str.
    state: PyTree with an entry `params`.
    config: dict that JSON can hold.
    step: int.
    metric: float, higher is better; NaN and infinity are never stored. Of
      equal metrics the one stored first stays.
    keep: int >= 0.

  Returns:
    Whether the step is in `best/` afterwards.

  Raises:
    core.NonFinite: a parameter is NaN or infinite.
    core.Unwritable: the disk is full or may not be written.
  """
  ranked = _ranking(workdir)
  if step in [stored for _, stored in ranked]:
    return True
  better = sum(1 for stored, _ in ranked if stored >= metric)
  if not math.isfinite(metric) or better >= keep:
    return False
  path = checkpoints.step_path(workdir, 'best', step)
  checkpoints.write_step(path, state, step, config, float(metric))
  for _, worse in ranked[keep - 1 :]:
    shutil.rmtree(checkpoints.step_path(workdir, 'best', worse))
  return True


def restore_step(workdir, step, target=None, config=None):
  """Restores one step; other arguments and results as `restore_latest`.

  Args:
    workdir: str.
    step: 'latest', 'best' (the next best if that is damaged), or an int,
      looked for in `checkpoints/` and then in `best/`.
    target: PyTree or None.
    config: dict or None.

  Raises:
    core.BadInput: there is no such step, or it does not fit `target`.
    core.Unreadable: it cannot be read.
  """
  if step == 'latest':
    found = checkpoints.restore_latest(workdir, target, config)
  elif step == 'best':
    found = _restore_best(workdir, target, config)
  else:
    found = _restore_number(workdir, int(step), target, config)
  if found is None:
    raise core.BadInput(
      f'no checkpoint {step!r} in {os.path.abspath(workdir)}: there are steps '
      f'{checkpoints.steps(workdir)} and best {best_steps(workdir)}'
    )
  return found


def upstream_step(workdir):
  """('best' or 'latest', the step) that `graft` takes; (.., None) without."""
  stored = checkpoints.steps(workdir, 'best')
  if stored:  # unreadable ones are told when they are read
    return 'best', (best_steps(workdir) or stored)[0]
  return 'latest', max(checkpoints.steps(workdir), default=None)


def graft(params, name, upstream):
  """Fills `params['frozen'][name]` with the network trained in `upstream`.

  Where nothing frozen has this name but `params[name]` exists, its leaves are
  filled with those of the entry `name` of P, and trained on from there.

  Of P, the upstream's parameters at its best step (`best/`, where its
  evaluator has chosen one) or else its latest: all but P['frozen'] replaces
  `params['frozen'][name]`, and the entries of P['frozen'] replace those of the
  same (other) name in `params['frozen']`.

  Args:
    params: dict with an entry `frozen`, a dict by upstream name.
    name: str.
    upstream: str, the working directory of a run.

  Returns:
    A new dict; grafted leaves are numpy arrays.

  Raises:
    core.BadInput: no such entry, no checkpoint, or leaves that do not fit.
    core.Unreadable: the upstream's checkpoints cannot be read.
  """
  frozen = params.get('frozen', {})
  label = f'init_from.{name}={upstream}'
  warm = name not in frozen and name in params
  targets = {name: params[name]} if warm else frozen
  if name not in targets:
    raise core.BadInput(
      f'{label}: this learner has no such upstream, only {sorted(frozen)}'
    )
  source, step = upstream_step(upstream)
  if step is None:
    raise core.BadInput(f'{label}: no checkpoint there; train it first')
  state, step, _ = restore_step(upstream, source)
  donor = dict(state['params'])
  parts = {**donor.pop('frozen', {}), name: donor}
  if warm:
    parts = {name: donor.get(name, {})}
  filled = {}
  for part in sorted(set(parts) & set(targets)):
    leaves = filesystem.name_leaves(parts[part])
    wanted = filesystem.name_leaves(targets[part])
    if warm:  # the upstream may have had more, a head for instance
      leaves = {key: leaf for key, leaf in leaves.items() if key in wanted}
    problem = filesystem.mismatch(leaves, wanted)
    if problem:
      place = '' if warm else 'frozen/'
      raise core.BadInput(f'{label} (step {step}): {place}{part}/{problem}')
    filled[part] = filesystem.fill(targets[part], leaves)
  logging.info('%s: %s step %d fills %s', label, source, step, sorted(filled))
  if warm:
    return {**params, **filled}
  return {**params, 'frozen': {**frozen, **filled}}


def poll(workdir, target, stop, interrupted, done=(), seconds=1.0):
  """Yields each new checkpoint until the trainer has ended.

  Orbax copies each to `workdir/.snapshots` while it is out, so that a trainer
  which keeps one checkpoint cannot delete it meanwhile. Steps that came and
  went during an evaluation are not seen; what cannot be read is told and left.

  Args:
    workdir: str; it may not exist yet.
    target: PyTree as in `checkpoint.read_step`.
    stop: () -> bool, whether the trainer has ended.
    interrupted: () -> bool, whether to end now.
    done: steps that are not to be yielded.
    seconds: float, how often to look.

  Yields:
    (state of numpy arrays, step, config dict).

  Raises:
    core.BadInput: a checkpoint does not fit `target`.
  """
  directory = os.path.abspath(os.path.join(workdir, 'checkpoints'))
  snapshots = os.path.abspath(os.path.join(workdir, '.snapshots'))
  done, bad = set(done), set()

  def new(step):
    return step not in done and (step, _stamp(directory, step)) not in bad

  def waiting():
    newest = checkpoints.steps(workdir)[-1:]
    return newest[0] if newest and new(newest[0]) else None

  def look():  # `waiting`: a trainer may have gone back to an earlier step
    return interrupted() or stop() or waiting() is not None

  while not interrupted():
    ended = stop()  # asked first: the last save comes before the end
    if ended and waiting() is None:
      return
    watcher = checkpoints.watch(directory, snapshots, seconds, look)
    with contextlib.closing(watcher):
      seen = -1
      while seen is not None and not interrupted():
        seen = _advance(watcher, seconds)
        step = waiting() if seen is None or not new(seen) else seen
        if step is None or interrupted():
          continue
        stamp = _stamp(directory, step)
        found = _restore_either((directory, snapshots), step, target)
        if found is not None:
          done.add(step)
          yield found
        else:
          bad.add((step, stamp))


def _advance(watcher, seconds):
  """Waits for a step; None if the watcher has ended or failed."""
  try:
    return next(watcher, None)
  except (OSError, ValueError) as error:  # a step went while it was copied
    logging.info('polling anew: %s', filesystem.reason(error))
    time.sleep(seconds)
    return None


def _restore_either(directories, step, target):
  """Restores a step from the first directory that has it whole, or None."""
  problems = []
  for directory in directories:
    try:
      return checkpoints.read_step(os.path.join(directory, str(step)), target)
    except core.Unreadable as error:
      problems.append(error)
  if os.path.isdir(os.path.join(directories[0], str(step))):
    logging.warning('%s; left out', problems[0])
  return None


def _stamp(directory, step):
  """Tells one directory of this step from a later one, None without one."""
  try:
    status = os.stat(os.path.join(directory, str(step)))
  except OSError:
    return None
  return status.st_ino, status.st_mtime_ns


def _ranking(workdir):
  """[(metric, step)] of `best/`, best first; unreadable ones left out."""
  ranking = []
  for step in checkpoints.steps(workdir, 'best'):
    path = checkpoints.step_path(workdir, 'best', step)
    try:
      ranking.append((checkpoints.read_meta(path)['metric'], step))
    except core.Unreadable as error:
      logging.warning('%s', error)
  return sorted(ranking, key=lambda pair: (-pair[0], pair[1]))


def _restore_best(workdir, target, config):
  """The best that is whole, or None if `best/` is empty."""
  bad = checkpoints.steps(workdir, 'best')
  for step in best_steps(workdir):
    path = checkpoints.step_path(workdir, 'best', step)
    try:
      return checkpoints.read_step(path, target, config)
    except core.Unreadable as error:
      logging.warning('%s', error)
  if bad:
    raise core.Unreadable(
      f'none of the checkpoints in {os.path.join(workdir, "best")} can be read '
      f'(steps {bad}): evaluate the run again, or use another checkpoint'
    )
  return None


def _restore_number(workdir, step, target, config):
  for subdir in ('checkpoints', 'best'):
    if step in checkpoints.steps(workdir, subdir):
      path = checkpoints.step_path(workdir, subdir, step)
      return checkpoints.read_step(path, target, config)
  return None
