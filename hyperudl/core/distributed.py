"""Lets several processes train or evaluate one run together.

Each process gives the same command, holds the same state and computes its part
of every batch of episodes, on JAX's distributed runtime. Only the primary
process (number 0) writes; an error there ends all of them. The workdir and the
data must have the same paths in every process.

A process that dies breaks the next collective of the others. The error that JAX
raises for it names a socket; `translate_peer_loss` says it in plain words.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from hyperudl import core

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
STOP_CHECK_STEPS = 10  # steps between two exchanges of stop signals
HEARTBEAT_SECONDS = 60  # silence after which a process counts as lost
SHUTDOWN_SECONDS = 60  # how long the end of a run waits for the last process


def initialize(environ: Mapping[str, str] = os.environ) -> None:
  """Join the other processes of the run if the environment names any.

  Either all of `VARIABLES` are set (address host:port of the primary process,
  number of processes, number of this one), or `srun` has started several tasks,
  whose addresses JAX reads from Slurm's variables. Otherwise do nothing.

  Raises:
    core.BadInput: only some of `VARIABLES` are set, or a count or number is no
      number; the processes do not find each other, or have different numbers
      of devices.
  """
  options = _options(environ)
  if not options and int(environ.get('SLURM_STEP_NUM_TASKS') or 1) < 2:
    return
  try:
    jax.distributed.initialize(
      **options,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
  except (RuntimeError, ValueError) as error:
    raise core.BadInput(
      f'the processes of this run did not find each other ({error}): start '
      'all of them with the same address and count'
    ) from error
  counts = np.bincount([d.process_index for d in jax.devices()])
  if len(set(counts)) > 1:
    raise core.BadInput(
      f'the processes of a run need equal numbers of devices, not {counts}'
    )
  if not is_primary():
    logging.set_verbosity(logging.WARNING)
  logging.info(
    '%d processes, %d devices', jax.process_count(), jax.device_count()
  )


def _options(environ: Mapping[str, str]) -> dict[str, Any]:
  """Return JAX's arguments from `VARIABLES`; {} if none of them is set."""
  address, count, number = (environ.get(name, '') for name in VARIABLES)
  if not address + count + number:
    return {}
  if not address or not count.isdecimal() or not number.isdecimal():
    values = zip(VARIABLES, (address, count, number))
    raise core.BadInput(
      'several processes need an address and two numbers, got '
      f'{", ".join(f"{name}={value!r}" for name, value in values)}: set all '
      'three, or none'
    )
  if int(number) >= int(count):
    raise core.BadInput(
      f'JAX_PROCESS_ID={number}: expected 0 to {int(count) - 1}, as '
      f'JAX_NUM_PROCESSES={count}'
    )
  return {
    'coordinator_address': address,
    'num_processes': int(count),
    'process_id': int(number),
  }


def is_primary() -> bool:
  """Return whether this is the process that writes."""
  return jax.process_index() == 0


def is_single_process() -> bool:
  """Return whether the run has no other process."""
  return jax.process_count() == 1


def run_on_primary(action: Callable[[], Any]) -> Any:
  """Run `action()` in the primary process; an error there is raised in all.

  Returns:
    The result of the action in the primary process, None in the others.

  Raises:
    core.Error: in the primary process the action's own error, in the others
      one with the same exit code.
  """
  return run_on_all(action if is_primary() else lambda: None)


def run_on_all(action: Callable[[], Any]) -> Any:
  """Run `action()` in every process; an error in one is raised in all."""
  if is_single_process():
    return action()
  failure, result = None, None
  try:
    result = action()
  except Exception as error:
    failure = error
  code = getattr(failure, 'exit_code', 1) if failure else 0
  code = max_across_processes(code)
  if code and not failure:
    failure = core.Error('another process has ended this run; it says why')
    failure.exit_code = code
  if failure:
    raise failure
  return result


def assert_equal_across_processes(number: int, name: str) -> None:
  """Raise core.BadInput if the processes passed different integers.

  Args:
    number: i32, for example a checksum of the config.
    name: of the quantity, for the message.
  """
  try:
    multihost_utils.assert_equal(np.int32(number))
  except AssertionError as error:
    raise core.BadInput(
      f'the processes of this run differ in {name}: start all of them with the '
      'same command, and let all of them see the same folders'
    ) from error


def broadcast_from_primary(number: int) -> int:
  """Return the integer that the primary process passed."""
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def any_process(flag: Any) -> bool:
  """Return whether `flag` is true in any process."""
  return bool(max_across_processes(int(bool(flag))))


def max_across_processes(number: int) -> int:
  """Return the largest of the integers that the processes passed."""
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def local_slice(size: int) -> slice:
  """Return the part of an axis of `size` episodes that this process draws.

  Args:
    size: a multiple of the number of processes.
  """
  part = size // jax.process_count()
  return slice(jax.process_index() * part, (jax.process_index() + 1) * part)


def to_global_arrays(
  tree: core.PyTree, mesh: jax.sharding.Mesh | None, axis: int = 0
) -> core.PyTree:
  """Join the parts of a batch that the processes hold into arrays over `mesh`.

  Args:
    tree: arrays and keys whose `axis` is this process's part of the episodes.
    mesh: of one axis 'episodes' over all devices; None leaves `tree` as it is.
    axis: of the episodes.
  """
  if mesh is None or is_single_process():
    return tree
  spec = jax.sharding.PartitionSpec(*[None] * axis, 'episodes')
  return multihost_utils.host_local_array_to_global_array(tree, mesh, spec)


def gather_to_host(tree: core.PyTree) -> core.PyTree:
  """Return whole numpy arrays of arrays that are divided over processes."""
  if is_single_process():
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def translate_peer_loss() -> Iterator[None]:
  """Convert what a broken collective raises into core.PeerLost."""
  try:
    yield
  except core.Error:
    raise
  except Exception as error:
    text = ' '.join(str(error).split())
    broken = ('Gloo', 'NCCL', 'coordination', 'heartbeat', 'DEADLINE_EXCEEDED')
    if is_single_process() or not any(word in text for word in broken):
      raise
    raise core.PeerLost(
      f'another process of this run has ended ({text[:100]}...): its own '
      'output says why. Start all of them again with the same commands; the '
      'run goes on from its last checkpoint'
    ) from error
