"""Decides how many devices a CPU is divided into."""

from collections.abc import Mapping
import os
import pathlib

from hyperudl import core

# CPU limit of a container: microseconds, period.
QUOTA = '/sys/fs/cgroup/cpu.max'
_MOST = 256


def count(
  requested: int | None,
  parts: int,
  environ: Mapping[str, str] = os.environ,
) -> int | None:
  """Return the number of devices to divide the CPU into.

  XLA for CPUs computes a convolution in one thread: on N cores N devices may be
  up to N times as fast.

  Args:
    requested: the number; 0 for the largest one, up to the number of cores,
      that divides `parts` (1 if there are several processes, which may share a
      machine); None for no choice.
    parts: number of episodes, or chunks of episodes, of a call.
    environ: environment variables.

  Returns:
    The number of devices, or None to leave it to XLA_FLAGS.

  Raises:
    core.BadInput: for a number below 0, or too large.
  """
  if requested is None:
    return None
  if requested < 0:
    raise core.BadInput(
      f'--cpu_devices={requested}: expected a number of devices, or 0 for as '
      'many as there are cores'
    )
  if requested > _MOST:
    raise core.BadInput(
      f'--cpu_devices={requested}: expected at most {_MOST}; more '
      'devices than cores do not compute faster'
    )
  if requested:
    return requested
  counts = [
    environ.get(n) for n in ('JAX_NUM_PROCESSES', 'SLURM_STEP_NUM_TASKS')
  ]
  if any(count not in (None, '', '1') for count in counts):
    return 1
  return max(n for n in range(1, available_cores() + 1) if parts % n == 0)


def available_cores(quota: str | os.PathLike = QUOTA) -> int:
  """Return how many cores this process may use, in a container too."""
  count = os.cpu_count() or 1
  if hasattr(os, 'sched_getaffinity'):  # not everywhere
    count = len(os.sched_getaffinity(0))
  try:
    allowed, period = map(int, pathlib.Path(quota).read_text().split())
  except (OSError, ValueError):  # no container, or no limit ('max')
    return count
  return max(1, min(count, allowed // period))
