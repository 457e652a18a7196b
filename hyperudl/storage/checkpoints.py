"""Checkpoints that survive kill -9, full disks and flipped bytes.

Thin functions over orbax, which no other file imports. A step directory holds
two items: `state`, the bytes of all leaves in one array, and `meta`, JSON with
step, config and for each leaf its shape, dtype, offset and SHA-256. One array,
because orbax pays per leaf (150 are read six times as slowly as three), and
when one of many fails the others print tracebacks; plain bytes, because arrays
of devices can only be read on as many devices. What orbax lets pass is checked
here: changed bytes, silent casts, stray directories, saves refused or lost.
"""

import contextlib
import os
import shutil
import types
from typing import NamedTuple

from absl import logging
from etils import epath
import jax
import orbax.checkpoint as ocp

from hyperudl import core
from hyperudl.storage import filesystem

# Orbax logs a page for each error that it also raises; ours is one line.
logging.get_absl_logger().addFilter(
  lambda record: f'{os.sep}orbax{os.sep}' not in record.pathname
)

_SPARE_BYTES = 2**16  # for `meta` and the files of orbax


class Manager(NamedTuple):
  """Where a trainer saves: made by `open_manager`, ended by `close`."""

  directory: str
  orbax: ocp.CheckpointManager


def open_manager(workdir, keep=3, subdir='checkpoints', resumed=None):
  """Opens `workdir/subdir` for saving, keeping the latest `keep` steps.

  Args:
    workdir: str, the working directory of the run.
    keep: int >= 1.
    subdir: str.
    resumed: int or None, the step that training goes on from. Directories of
      later steps could not be read and would block the saving of these steps:
      they are renamed `unreadable-<step>`.

  Of several processes the first alone opens, saves and closes.

  Raises:
    core.Unwritable: the directory cannot be made.
  """
  directory = os.path.abspath(os.path.join(workdir, subdir))
  with filesystem.writing(directory):
    os.makedirs(directory, exist_ok=True)
    for step in _step_names(directory):
      path = os.path.join(directory, str(step))
      if not os.listdir(path):
        os.rmdir(path)  # orbax would take it for the latest step
      elif resumed is not None and step > resumed:
        aside = os.path.join(directory, f'unreadable-{step}')
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=False,
      multiprocessing_options=_by_itself(),
      # If a thread of orbax fails to make the directory of a step, the other
      # threads wait for it for 20 minutes before the process can end.
      async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    manager = ocp.CheckpointManager(
      directory, options=options, item_names=('state', 'meta')
    )
  return Manager(directory, manager)


def save(manager, state, config):
  """Saves `state` in the background, after the save before it has ended.

  Args:
    manager: Manager.
    state: core.TrainState, on any devices; copied before this returns, so it
      may be donated afterwards.
    config: dict that JSON can hold.

  Returns:
    False if this step is saved already, else True.

  Raises:
    core.NonFinite: a parameter is NaN or infinite; nothing is saved.
    core.Unwritable: this save or the one before it failed.
  """
  finish(manager)
  step = int(state.step)
  if step in manager.orbax.all_steps():
    return False
  data, meta = filesystem.pack(state, step, config)
  with filesystem.writing(manager.directory):
    filesystem.check_space(manager.directory, data.nbytes + _SPARE_BYTES)
    if not manager.orbax.save(step, args=_composite(data, meta)):
      raise core.Error(
        f'step {step} is older than the newest in {manager.directory}: go on '
        'from that one, or choose an empty --workdir'
      )
  return True


def finish(manager):
  """Waits for the save in progress; raises core.Unwritable if it failed."""
  with filesystem.writing(manager.directory):
    manager.orbax.wait_until_finished()


def close(manager):
  """Finishes the save in progress, then ends the threads of orbax."""
  try:
    finish(manager)
  finally:
    with contextlib.suppress(Exception):  # told by `finish`
      manager.orbax.close()


def write_step(path, state, step, config, metric):
  """Writes one checkpoint at once, in place of one that may be there.

  Args:
    path: str, `<directory>/<step>`.
    state: PyTree with an entry `params`.
    step: int.
    config: dict that JSON can hold.
    metric: float.

  Raises:
    core.NonFinite, core.Unwritable: as in `save`.
  """
  data, meta = filesystem.pack(state, step, config, metric)
  directory = os.path.dirname(path)
  with filesystem.writing(directory):
    os.makedirs(directory, exist_ok=True)
    filesystem.check_space(directory, data.nbytes + _SPARE_BYTES)
    with _checkpointer() as checkpointer:
      checkpointer.save(path, args=_composite(data, meta), force=True)


def read_meta(path):
  """Reads step, metric, config and leaves; raises core.Unreadable."""
  with _reading(path), _checkpointer() as checkpointer:
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    meta = checkpointer.restore(path, args=args)['meta']
    filesystem.check_meta(meta, int(os.path.basename(path)))
  return meta


def read_step(path, target=None, config=None):
  """Reads one checkpoint and checks every byte of it.

  Args:
    path: str, `<directory>/<step>`.
    target: PyTree of arrays or jax.ShapeDtypeStruct to fill: a TrainState, or
      {'params': params} to leave the rest out; None for everything, as nested
      dictionaries of strings.
    config: dict or None, the present config, to tell what changed if `target`
      does not fit.

  Returns:
    (state of numpy arrays, step, config dict).

  Raises:
    core.Unreadable: it is damaged or incomplete.
    core.BadInput: it does not fit `target`.
  """
  meta = read_meta(path)
  if target is not None:
    _check_fit(path, meta, target, config)
  with _reading(path), _checkpointer() as checkpointer:
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    data = checkpointer.restore(path, args=args)['state']['bytes']
    named = filesystem.unpack(data, meta)
  fill = (
    filesystem.nest if target is None else lambda n: filesystem.fill(target, n)
  )
  return fill(named), meta['step'], meta['config']


def steps(workdir, subdir='checkpoints'):
  """The saved steps, ascending; empty and unfinished directories are none."""
  directory = os.path.join(workdir, subdir)
  found = []
  for step in _step_names(directory):
    with contextlib.suppress(FileNotFoundError):  # just deleted by a trainer
      if os.listdir(os.path.join(directory, str(step))):
        found.append(step)
  return found


def step_path(workdir, subdir, step):
  """The absolute path of one step directory."""
  return os.path.abspath(os.path.join(workdir, subdir, str(step)))


def restore_latest(workdir, target=None, config=None):
  """Restores the newest checkpoint that is whole; arguments as `read_step`.

  Returns:
    (state of numpy arrays, step, config dict), or None if nothing was saved.

  Raises:
    core.Unreadable: there are checkpoints, but none can be read.
    core.BadInput: the checkpoint does not fit `target`.
  """
  tried, bad = set(), []
  # Listed anew each time, because a trainer may save and delete meanwhile.
  while left := [step for step in steps(workdir) if step not in tried]:
    tried.add(left[-1])
    path = step_path(workdir, 'checkpoints', left[-1])
    try:
      return read_step(path, target, config)
    except core.Unreadable as error:
      if os.path.isdir(path):
        logging.warning('%s', error)
        bad.append(left[-1])
  if bad:
    raise core.Unreadable(
      f'none of the checkpoints in {os.path.dirname(path)} can be read '
      f'(steps {bad}): put a good copy there, or train in a new --workdir'
    )
  return None


def watch(directory, snapshots, seconds, look):
  """Waits for new steps as orbax does, keeping a copy of each while it is out.

  Args:
    directory: str.
    snapshots: str, where the copies lie.
    seconds: float between looks.
    look: () -> bool, whether to end; asked at each look without a new step.

  Returns:
    A generator of steps; to be closed.
  """
  return ocp.checkpoint_utils.checkpoints_iterator(
    directory,
    seconds_to_sleep=seconds,
    timeout=0,
    timeout_fn=look,
    snapshot_dir=epath.Path(snapshots),
  )


def _step_names(directory):
  """The subdirectories that orbax takes for steps, ascending."""
  if not os.path.isdir(directory):
    return []
  with os.scandir(directory) as entries:
    names = [entry.name for entry in entries if entry.is_dir()]
  return sorted(
    int(name) for name in names if name.isdecimal() and str(int(name)) == name
  )


@contextlib.contextmanager
def _reading(path):
  """The one place that catches all: damage raises errors of every type."""
  try:
    yield
  except Exception as error:
    raise core.Unreadable(
      f'checkpoint {path} cannot be read: {filesystem.reason(error)}'
    ) from error


def _by_itself():
  """Orbax's options for a process that waits for no other one."""
  me = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=me,
    active_processes={me},
    barrier_sync_key_prefix=f'process{me}',
  )


def _checkpointer():
  return ocp.Checkpointer(
    ocp.CompositeCheckpointHandler(), multiprocessing_options=_by_itself()
  )


def _composite(data, meta):
  return ocp.args.Composite(
    state=ocp.args.StandardSave({'bytes': data}), meta=ocp.args.JsonSave(meta)
  )


def _check_fit(path, meta, target, config):
  """Raises core.BadInput if the stored leaves are not those of `target`."""
  parts = getattr(target, '_fields', None) or target.keys()
  found = {
    name: types.SimpleNamespace(**leaf)
    for name, leaf in meta['leaves'].items()
    if name.split('/')[0] in parts
  }
  problem = filesystem.mismatch(found, filesystem.name_leaves(target))
  if problem:
    changed = filesystem.config_differences(meta['config'], config or {})
    about = f'; the config differs: {", ".join(changed)}' if config else ''
    raise core.BadInput(f'checkpoint {path} does not fit: {problem}{about}')
