"""One run on several processes, by JAX's distributed runtime.

Each process runs the same command. It computes its share of every batch of
episodes; sums go through JAX's collectives, so that all hold the same state.
The first process alone writes; what goes wrong there ends all of them. The
workdir and the data must be seen by every process under the same paths.

A process that dies breaks the next collective of the others: `guarded` tells
that in one line, since the error that JAX raises names a socket.
"""

import contextlib
import os

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from hyperudl import core

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
AGREE = 10  # steps after which they ask each other for signals
# Seconds: a dead machine is noticed after, the last process is waited for.
HEARTBEAT, SHUTDOWN = 60, 60


def start(environ=os.environ):
  """Joins the other processes if the environment names any.

  Either all of VARIABLES are set (address host:port of the first process,
  count, own number), or `srun` has started several tasks, whose addresses JAX
  reads from Slurm's variables.

  Raises:
    core.BadInput: some of VARIABLES, or no numbers; or the others do not come.
  """
  given = [environ.get(name, '') for name in VARIABLES]
  options = {}
  if any(given):
    if not all(given) or not (given[1] + given[2]).isdecimal():
      lines = ', '.join(f'{n}={v!r}' for n, v in zip(VARIABLES, given))
      raise core.BadInput(
        f'several processes need an address and two numbers, got {lines}: set '
        'all three, or none'
      )
    count, number = int(given[1]), int(given[2])
    if not 0 <= number < count:
      raise core.BadInput(
        f'JAX_PROCESS_ID={number}: expected 0 to {count - 1}, as '
        f'JAX_NUM_PROCESSES={count}'
      )
    options = {
      'coordinator_address': given[0],
      'num_processes': count,
      'process_id': number,
    }
  elif int(environ.get('SLURM_STEP_NUM_TASKS') or 1) < 2:
    return
  try:
    jax.distributed.initialize(
      **options,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=SHUTDOWN,
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
  if not is_first():
    logging.set_verbosity(logging.WARNING)
  logging.info(
    '%d processes, %d devices', jax.process_count(), jax.device_count()
  )


def is_first():
  """Whether this is the process that writes."""
  return jax.process_index() == 0


def alone():
  """Whether there is no other process."""
  return jax.process_count() == 1


def lead(action):
  """Runs `action()` in the first process; its failure is that of all.

  Returns:
    What the action returns there, None elsewhere.

  Raises:
    core.Error: there the action's own, elsewhere one of the same exit code.
  """
  return together(action if is_first() else lambda: None)


def together(action):
  """Runs `action()` in every process; the failure of one is that of all."""
  if alone():
    return action()
  failure, result = None, None
  try:
    result = action()
  except Exception as error:
    failure = error
  code = most(getattr(failure, 'exit_code', 1) if failure else 0)
  if failure:
    raise failure
  if code:
    told = core.Error('another process has ended this run; it says why')
    told.exit_code = code
    raise told
  return result


def agree(number, what):
  """Raises core.BadInput if the processes passed different integers."""
  if any_of(number != first_says(number)):
    raise core.BadInput(
      f'the processes of this run differ in {what}: start all of them with the '
      'same command, and let all of them see the same folders'
    )


def first_says(number):
  """The integer that the first process passed."""
  if alone():
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def any_of(flag):
  """Whether `flag` is true in any process."""
  return bool(most(int(bool(flag))))


def most(number):
  """The largest of the integers that the processes passed."""
  if alone():
    return number
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def share(size):
  """The slice of an axis of `size` episodes that this process draws.

  Args:
    size: a multiple of the number of processes, which have as many devices.
  """
  part = size // jax.process_count()
  return slice(jax.process_index() * part, (jax.process_index() + 1) * part)


def spread(tree, mesh, axis=0):
  """Arrays over `mesh` of the shares that the processes hold.

  Args:
    tree: arrays and keys whose `axis` has this process's share.
    mesh: of one axis 'episodes' over all devices, or None: nothing is done.
    axis: int, of the episodes.
  """
  if mesh is None or alone():
    return tree
  spec = jax.sharding.PartitionSpec(*[None] * axis, 'episodes')
  sharding = jax.sharding.NamedSharding(mesh, spec)
  put = lambda x: jax.make_array_from_process_local_data(
    sharding, np.asarray(x)
  )

  def one(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
    return put(leaf)

  return jax.tree.map(one, tree)


def gather(tree):
  """Numpy arrays of all shares, of arrays spread over several processes."""
  if alone():
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def guarded():
  """Turns what a broken collective raises into core.PeerLost."""
  try:
    yield
  except core.Error:
    raise
  except Exception as error:
    text = ' '.join(str(error).split())
    broken = ('Gloo', 'NCCL', 'coordination', 'heartbeat', 'DEADLINE_EXCEEDED')
    if alone() or not any(word in text for word in broken):
      raise
    raise core.PeerLost(
      f'another process of this run has ended ({text[:100]}...): its own '
      'output says why. Start all of them again with the same commands; the '
      'run goes on from its last checkpoint'
    ) from error
