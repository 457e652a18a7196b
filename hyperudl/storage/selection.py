"""Chooses checkpoints: the latest, the best, each new one, an upstream's.

An upstream is a run whose trained network another run starts from.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import math
import os
import shutil
import time
from typing import Any

from absl import logging

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import serialization
from hyperudl.storage.checkpoints import Checkpoint
from hyperudl.storage.checkpoints import Policy
from hyperudl.storage.filesystem import StrPath


def best_steps(workdir: StrPath) -> list[int]:
  """List the steps of `workdir/best`, the one of the highest metric first."""
  return [step for _, step in _ranking(workdir)]


def keep_best(
  workdir: StrPath, checkpoint: Checkpoint, metric: float, policy: Policy
) -> bool:
  """Save a checkpoint in `workdir/best` if it is one of the best by `metric`.

  Args:
    workdir: folder of the run.
    checkpoint: its state has an entry `params`.
    metric: higher is better; NaN and infinity are never saved. Of equal metrics
      the one saved first stays.
    policy: how many steps stay, and from which step on.

  Returns:
    Whether the step is in `best/` afterwards.

  Raises:
    core.NonFinite: a parameter is NaN or infinite.
    core.Unwritable: the disk is full or may not be written.
  """
  ranking = _ranking(workdir)
  if checkpoint.step in [saved for _, saved in ranking]:
    return True
  better = sum(1 for saved, _ in ranking if saved >= metric)
  too_early = checkpoint.step < policy.select_after
  if too_early or not math.isfinite(metric) or better >= policy.keep_best:
    return False
  path = checkpoints.step_path(workdir, policy.BEST, checkpoint.step)
  checkpoints.write_step(path, checkpoint, float(metric))
  for _, worse in ranking[policy.keep_best - 1 :]:
    shutil.rmtree(checkpoints.step_path(workdir, policy.BEST, worse))
  return True


def restore_latest(
  workdir: StrPath, target: core.PyTree = None, config: dict | None = None
) -> Checkpoint | None:
  """Restore the newest readable checkpoint, or return None if there is none.

  Args:
    workdir: folder of the run.
    target: to fill, as of `checkpoints.read_step`.
    config: of this run, or None.

  Raises:
    core.Unreadable: there are checkpoints, but none can be read.
    core.BadInput: the checkpoint does not fit `target`.
  """
  newest_first = lambda: checkpoints.steps(workdir)[::-1]
  return _restore_first(workdir, Policy.LATEST, newest_first, target, config)


def restore_step(
  workdir: StrPath, step: str | int, target: core.PyTree = None
) -> Checkpoint:
  """Restore one step.

  Args:
    workdir: folder of the run.
    step: 'latest', 'best' (the next best if that is damaged), or a number,
      looked for in `checkpoints/` and then in `best/`.
    target: to fill, as of `checkpoints.read_step`.

  Raises:
    core.BadInput: there is no such step, or it does not fit `target`.
    core.Unreadable: it cannot be read.
  """
  restored = None
  if step == 'latest':
    restored = restore_latest(workdir, target)
  elif step == 'best':
    ranked = best_steps(workdir)
    restored = _restore_first(workdir, Policy.BEST, lambda: ranked, target)
  else:
    for folder in (Policy.LATEST, Policy.BEST):
      if restored is None and int(step) in checkpoints.steps(workdir, folder):
        path = checkpoints.step_path(workdir, folder, int(step))
        restored = checkpoints.read_step(path, target)
  if restored is None:
    raise core.BadInput(
      f'no checkpoint {step!r} in {os.path.abspath(workdir)}: there are steps '
      f'{checkpoints.steps(workdir)} and best {best_steps(workdir)}'
    )
  return restored


def upstream_step(workdir: StrPath) -> tuple[str, int | None]:
  """Return ('best' or 'latest', the step that `graft` reads or None)."""
  saved = checkpoints.steps(workdir, Policy.BEST)
  if saved:  # unreadable ones are reported when they are read
    return 'best', (best_steps(workdir) or saved)[0]
  return 'latest', max(checkpoints.steps(workdir), default=None)


def graft(params: dict, name: str, upstream: StrPath) -> dict[str, Any]:
  """Fill `params['frozen'][name]` with the network trained in `upstream`.

  The upstream is read at its best step, or else its latest. Its parameters
  but `frozen` fill `params['frozen'][name]`; its own frozen networks fill those
  of the same names in `params['frozen']`.

  If no frozen network has this name but `params[name]` exists, that is filled
  with the upstream's entry `name`, or else its backbone `net`, and stays
  trainable; its `head` is left as it is if the upstream has none.

  Args:
    params: by name; an entry `frozen` is a dict by upstream name.
    name: of the upstream network.
    upstream: working directory of its run.

  Returns:
    A new dict; replaced leaves are numpy arrays.

  Raises:
    core.BadInput: no such entry, no checkpoint, or leaves that do not fit.
    core.Unreadable: the upstream's checkpoints cannot be read.
  """
  frozen = params.get('frozen', {})
  label = f'init_from.{name}={upstream}'
  if name not in frozen and name not in params:
    raise core.BadInput(
      f'{label}: this learner has no such upstream, only {sorted(frozen)}'
    )
  source, step = upstream_step(upstream)
  if step is None:
    raise core.BadInput(f'{label}: no checkpoint there; train it first')
  state, step, _ = restore_step(upstream, source)
  where = f'{label} (step {step}): '
  trained = dict(state['params'])
  if name in frozen:
    parts = {**trained.pop('frozen', {}), name: trained}
    filled = {
      part: _fill(frozen[part], parts[part], f'{where}frozen/{part}/')
      for part in sorted(parts.keys() & frozen.keys())
    }
    params = {**params, 'frozen': {**frozen, **filled}}
  else:
    backbone = trained.get(name, trained.get('net', {}))
    if 'head' in params[name] and backbone:
      backbone = {'head': params[name]['head'], **backbone}
    part = _fill(params[name], backbone, f'{where}{name}/', True)
    params = {**params, name: part}
  logging.info('%s: filled from %s step %d', label, source, step)
  return params


def _fill(target, source, label, ignore_extra=False):
  """Return `target` with the leaves of `source`, which must fit."""
  expected = serialization.name_leaves(target)
  leaves = serialization.name_leaves(source)
  if ignore_extra:  # the upstream may have more, a head for instance
    leaves = {name: leaf for name, leaf in leaves.items() if name in expected}
  problem = serialization.mismatch(leaves, expected)
  if problem:
    raise core.BadInput(f'{label}{problem}')
  return serialization.fill(target, leaves)


def poll(
  workdir: StrPath,
  target: core.PyTree,
  stop: Callable[[], bool],
  interrupted: Callable[[], bool],
  done: Collection[int] = (),
  seconds: float = 1.0,
) -> Iterator[Checkpoint]:
  """Yield each new checkpoint until the trainer has ended.

  Only the newest step is read: steps that are saved and deleted during an
  evaluation are skipped. So are unreadable ones, which are reported once.

  Args:
    workdir: folder of the run; it may not exist yet.
    target: to fill, as of `checkpoints.read_step`.
    stop: whether the trainer has ended.
    interrupted: whether to end now.
    done: steps that are not to be yielded.
    seconds: between two listings of the folder.

  Raises:
    core.BadInput: a checkpoint does not fit `target`.
  """
  done, unreadable = set(done), set()
  while not interrupted():
    ended = stop()  # before the listing: the last save comes before the end
    newest = max(checkpoints.steps(workdir), default=-1)
    path = checkpoints.step_path(workdir, Policy.LATEST, newest)
    version = newest, _modified(path)
    if newest < 0 or newest in done or version in unreadable:
      if ended:
        return
      time.sleep(seconds)
      continue
    try:
      restored = checkpoints.read_step(path, target)
    except core.Unreadable as error:
      if os.path.isdir(path):  # else the trainer has deleted it
        logging.warning('%s; left out', error)
        unreadable.add(version)
      continue
    done.add(newest)
    yield restored


def _modified(path):
  """Return the inode and time of change of a directory, or None."""
  try:
    status = os.stat(path)
  except OSError:
    return None
  return status.st_ino, status.st_mtime_ns


def _ranking(workdir):
  """Return [(metric, step)] of `best/`, best first, without unreadable ones."""
  ranking = []
  for step in checkpoints.steps(workdir, Policy.BEST):
    path = checkpoints.step_path(workdir, Policy.BEST, step)
    try:
      ranking.append((checkpoints.read_meta(path)['metric'], step))
    except core.Unreadable as error:
      logging.warning('%s', error)
  return sorted(ranking, key=lambda pair: (-pair[0], pair[1]))


def _restore_first(workdir, folder, ranked, target, config=None):
  """Restore the first readable step; None if the folder has none.

  Args:
    workdir: folder of the run.
    folder: 'checkpoints' or 'best'.
    ranked: () -> steps, the preferred one first; called again after each
      attempt, because a trainer may save and delete meanwhile.
    target: to fill, or None.
    config: of this run, or None.
  """
  tried = []
  while remaining := [step for step in ranked() if step not in tried]:
    tried.append(remaining[0])
    path = checkpoints.step_path(workdir, folder, remaining[0])
    try:
      return checkpoints.read_step(path, target, config)
    except core.Unreadable as error:
      if os.path.isdir(path):  # else the trainer has deleted it
        logging.warning('%s', error)
  if damaged := checkpoints.steps(workdir, folder):
    raise core.Unreadable(
      f'none of the checkpoints in {os.path.join(workdir, folder)} can be read '
      f'(steps {damaged}): put a good copy there, choose another --step, or '
      'train in a new --workdir'
    )
  return None
