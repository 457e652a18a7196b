"""Saves and reads checkpoints that survive kill -9, full disks and bad bytes.

Thin functions over orbax, which no other file imports. A step directory holds
two items: `state`, the bytes of all leaves in one array, and `meta`, JSON with
step, config and for each leaf its shape, dtype, offset and SHA-256. One array,
because orbax pays per leaf (150 are read six times as slowly as three), and
when one of many fails the others print tracebacks; plain bytes, because arrays
of devices can only be read on as many devices. What orbax lets pass is checked
here: changed bytes, silent casts, stray directories, saves refused or lost.
"""

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import types
from typing import Any
from typing import ClassVar
from typing import NamedTuple
from typing import TypeAlias

from absl import logging
import jax
import orbax.checkpoint as ocp

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.storage import filesystem
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath

# Orbax logs a page for each error that it also raises; ours is one line.
logging.get_absl_logger().addFilter(
  lambda record: f'{os.sep}orbax{os.sep}' not in record.pathname
)

# Made by `open_manager`, ended by `close`.
Manager: TypeAlias = ocp.CheckpointManager

_SPARE_BYTES = 2**16  # for `meta` and the files of orbax


@dataclasses.dataclass(frozen=True)
class Policy:
  """Which steps of a run are saved, which of them stay, and where they lie."""

  LATEST: ClassVar[str] = 'checkpoints'  # folder that the trainer saves to
  BEST: ClassVar[str] = 'best'  # folder that the evaluator saves to

  steps: int = 1  # of the training; the last one is always saved
  save_every: int = 1
  keep_latest: int = 3  # so a step can be read during two saves
  keep_best: int = 1  # by accuracy on `valid`
  select_after: int = 0  # first step that may be among the best

  @classmethod
  def from_config(cls, config: Any) -> 'Policy':
    """Return the policy that the config of a run states."""
    return cls(
      steps=config.steps,
      save_every=config.checkpoint_steps,
      keep_best=config.eval.keep_best,
      select_after=config.eval.select_after,
    )

  def is_due(self, step: int) -> bool:
    """Return whether the trainer saves after `step` updates."""
    return step == self.steps or step % self.save_every == 0


class Checkpoint(NamedTuple):
  """What a step directory holds."""

  state: core.PyTree  # of numpy arrays where it was read
  step: int
  config: dict[str, Any]  # of the run that saved it; fits in JSON


def open_manager(
  workdir: StrPath, policy: Policy, resumed_step: int | None = None
) -> Manager:
  """Open the folder of a run's latest checkpoints for saving.

  Of several processes only the primary one opens, saves and closes.

  Args:
    workdir: folder of the run.
    policy: how many checkpoints to keep.
    resumed_step: step that training goes on from, or None. Directories of later
      steps could not be read and would block the saving of these steps: they
      are renamed `unreadable-<step>`.

  Raises:
    core.Unwritable: the directory cannot be made.
  """
  directory = os.path.abspath(os.path.join(workdir, policy.LATEST))
  with filesystem.writing(directory):
    os.makedirs(directory, exist_ok=True)
    for name in filter(str.isdecimal, os.listdir(directory)):
      with contextlib.suppress(OSError):  # it is not empty
        os.rmdir(
          os.path.join(directory, name)
        )  # orbax would take it for the latest
    for step in steps(workdir):
      if resumed_step is not None and step > resumed_step:
        aside = os.path.join(directory, f'unreadable-{step}')
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(os.path.join(directory, str(step)), aside)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=policy.keep_latest,
      create=False,
      multiprocessing_options=_without_peers(),
      # If a thread of orbax fails to make the directory of a step, the other
      # threads wait for it for 20 minutes before the process can end.
      async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    return Manager(directory, options=options, item_names=('state', 'meta'))


def save(manager: Manager, state: core.TrainState, config: dict) -> bool:
  """Save `state` in the background, after the save before it has ended.

  Args:
    manager: of the run.
    state: on any devices; copied before this returns, so it may be donated
      afterwards.
    config: of the run; must fit in JSON.

  Returns:
    False if this step is saved already, else True.

  Raises:
    core.NonFinite: a parameter is NaN or infinite; nothing is saved.
    core.Unwritable: this save or the one before it failed.
  """
  finish(manager)
  step = int(state.step)
  if step in manager.all_steps():
    return False
  items = serialization.pack(state, step, config)
  with _writing_items(manager.directory, *items) as args:
    if not manager.save(step, args=args):
      raise core.Error(
        f'step {step} is older than the newest in {manager.directory}: go on '
        'from that one, or choose an empty --workdir'
      )
  return True


def finish(manager: Manager) -> None:
  """Wait for the save in progress; raise core.Unwritable if it failed."""
  with filesystem.writing(manager.directory):
    manager.wait_until_finished()


def close(manager: Manager) -> None:
  """Finish the save in progress, then end the threads of orbax."""
  try:
    finish(manager)
  finally:
    with contextlib.suppress(Exception):  # raised by `finish` already
      manager.close()


def write_step(path: str, checkpoint: Checkpoint, metric: float) -> None:
  """Write one checkpoint at once, in place of one that may be there.

  Args:
    path: `<directory>/<step>`.
    checkpoint: its state has an entry `params`.
    metric: by which it was chosen.

  Raises:
    core.NonFinite, core.Unwritable: as in `save`.
  """
  items = serialization.pack(*checkpoint, metric)
  directory = os.path.dirname(path)
  with filesystem.writing(directory):
    os.makedirs(directory, exist_ok=True)
  with _writing_items(directory, *items) as args, _checkpointer() as orbax:
    orbax.save(path, args=args, force=True)


def read_meta(path: str) -> dict[str, Any]:
  """Read step, metric, config and leaves; raise core.Unreadable if damaged."""
  args = ocp.args.Composite(meta=ocp.args.JsonRestore())
  with _reading(path), _checkpointer() as orbax:
    meta = orbax.restore(path, args=args)['meta']
    serialization.check_meta(meta, int(os.path.basename(path)))
  return meta


def read_step(
  path: str, target: core.PyTree = None, config: dict | None = None
) -> Checkpoint:
  """Read one checkpoint and check every byte of it.

  Args:
    path: `<directory>/<step>`.
    target: arrays or jax.ShapeDtypeStruct to fill: a TrainState, or
      {'params': params} to leave the rest out; None for everything, as nested
      dicts with string keys.
    config: of this run; tells what changed if `target` does not fit.

  Raises:
    core.Unreadable: it is damaged or incomplete.
    core.BadInput: it does not fit `target`.
  """
  meta = read_meta(path)
  if target is not None:
    _check_fit(path, meta, target, config)
  args = ocp.args.Composite(state=ocp.args.StandardRestore())
  with _reading(path), _checkpointer() as orbax:
    data = orbax.restore(path, args=args)['state']['bytes']
    state = serialization.fill(target, serialization.unpack(data, meta))
  return Checkpoint(state, meta['step'], meta['config'])


def steps(workdir: StrPath, folder: str = Policy.LATEST) -> list[int]:
  """List the saved steps, ascending, without empty and unfinished ones."""
  files = glob.glob('[0-9]*/*', root_dir=os.path.join(workdir, folder))
  names = {os.path.dirname(file) for file in files}
  # Other names, such as '0009' and '3.orbax-checkpoint-tmp', are no steps.
  return sorted(
    int(name) for name in names if name.isdecimal() and str(int(name)) == name
  )


def step_path(workdir: StrPath, folder: str, step: int) -> str:
  """Return the absolute path of one step directory."""
  return os.path.abspath(os.path.join(workdir, folder, str(step)))


@contextlib.contextmanager
def _reading(path):
  """Convert every error into core.Unreadable: damage raises any type."""
  try:
    yield
  except Exception as error:
    raise core.Unreadable(
      f'checkpoint {path} cannot be read: {filesystem.reason(error)}'
    ) from error


@contextlib.contextmanager
def _writing_items(directory, data, meta):
  """Yield orbax's arguments for the items, if the disk has room for them."""
  with filesystem.writing(directory):
    filesystem.check_space(directory, data.nbytes + _SPARE_BYTES)
    yield ocp.args.Composite(
      state=ocp.args.StandardSave({'bytes': data}),
      meta=ocp.args.JsonSave(meta),
    )


def _without_peers():
  """Return orbax's options for a process that does not wait for others."""
  process = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=process,
    active_processes={process},
    barrier_sync_key_prefix=f'process{process}',
  )


def _checkpointer():
  return ocp.Checkpointer(
    ocp.CompositeCheckpointHandler(), multiprocessing_options=_without_peers()
  )


def _check_fit(path, meta, target, config):
  """Raise core.BadInput if the stored leaves are not those of `target`."""
  parts = getattr(target, '_fields', None) or target.keys()
  stored = {
    name: types.SimpleNamespace(**leaf)
    for name, leaf in meta['leaves'].items()
    if name.split('/')[0] in parts
  }
  problem = serialization.mismatch(stored, serialization.name_leaves(target))
  if not problem:
    return
  if config:
    current = json.loads(json.dumps(config))  # tuples are stored as lists
    fields = config_lib.differences(meta['config'], current).items()
    changes = [f'{name}: {a} stored, {b} now' for name, (a, b) in fields]
    problem += f'; the config differs: {", ".join(changes)}'
  raise core.BadInput(f'checkpoint {path} does not fit: {problem}')
