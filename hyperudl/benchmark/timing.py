"""Times programs in turns, and compares with earlier measurements."""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
import json
import pathlib
import resource
import statistics
import time
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.training import train_step

MATMUL = 2048  # matrix size of the matmul that measures peak speed
# Fields that identify the same row in the lines of two benchmarks.
IDENTITY = (
  *('config', 'name', 'precision', 'devices', 'processes'),
  *('strategy', 'formulation', 'batch'),
)
Line = dict[str, Any]  # printed fields: numbers, strings and None


class Row(NamedTuple):
  """A program to time."""

  name: str
  episodes: int  # per call
  call: Callable  # () -> arrays
  flops: float = 0  # per call; 0: unknown
  memory: int = 0  # bytes, without the inputs; 0: unknown
  about: Line | None = None  # further fields of its line


def measure(
  rows: Sequence[Row],
  repeats: int,
  matmul: int = MATMUL,
  seconds: float = 0.2,
  precision: str = 'float32',
) -> list[Line]:
  """Time rows in turns.

  Args:
    rows: programs.
    repeats: how often each is timed.
    matmul: matrix size of the matmul that measures peak speed.
    seconds: approximate duration of one timing, which repeats calls.
    precision: of that matmul; the rows have their own.

  Returns:
    A line for each row, with None for unknown numbers. `share` is the time
    divided by that of 'update 1', `share_of_peak` the speed divided by that of
    the matmul, which is timed in the same turns.
  """
  matrix = jnp.ones((matmul, matmul), jnp.float32)
  multiply = jax.jit(train_step.at_precision(jnp.matmul, precision))
  peak_row = Row('gemm', 1, lambda: multiply(matrix, matrix))
  clocks = {}
  for index, row in enumerate((*rows, peak_row)):
    logging.info('compiling: %s', row.name)
    jax.block_until_ready(row.call())
    # All processes must make the same number of calls.
    calls = distributed.broadcast_from_primary(
      max(1, round(seconds / seconds_of(row.call)))
    )
    clocks[index] = lambda row=row, calls=calls: seconds_of(row.call, calls)
  times = time_in_turns(clocks, repeats)
  *medians, peak = [statistics.median(took) for took in times.values()]
  peak = 2 * matmul**3 / peak / 1e9
  by_name = {row.name: took for row, took in zip(rows, medians)}
  update = by_name.get('update 1')
  return [_line(row, took, peak, update) for row, took in zip(rows, medians)]


def _line(row, took, peak, update):
  """Return the line of a row that took `took` seconds per call."""
  gflops = row.flops / took / 1e9
  max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {
    **(row.about or {}),
    'name': row.name,
    'ms_per_call': round(1e3 * took, 4),
    'ms_per_episode': round(1e3 * took / row.episodes, 4),
    'episodes_per_second': round(row.episodes / took, 2),
    'share': round(took / update, 3) if update else None,
    'gflops': round(gflops, 2) if row.flops else None,
    'share_of_peak': round(gflops / peak, 3) if row.flops else None,
    'gemm_peak_gflops': round(peak, 1),
    'temporary_mb': round(row.memory / 1e6, 1) if row.memory else None,
    'peak_rss_mb': round(max_rss / 1000),
  }


def seconds_of(call: Callable, count: int = 1) -> float:
  """Return the mean seconds per call of `count` calls, including the wait."""
  start = time.perf_counter()
  for _ in range(count):
    result = call()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / count


def time_in_turns(
  clocks: dict[Hashable, Callable[[], float]], turns: int, pause: float = 0.0
) -> dict[Hashable, list[float]]:
  """Return the seconds that each clock measures in each turn.

  Args:
    clocks: functions that run a program and return its seconds.
    turns: number of rounds; a round calls each clock once.
    pause: seconds before each call.
  """
  times = {key: [] for key in clocks}
  for turn in range(turns):
    for key, clock in clocks.items():
      time.sleep(pause)
      times[key].append(clock())
    logging.info('turn %d of %d done', turn + 1, turns)
  return times


def read_lines(path: str | pathlib.Path) -> dict[Hashable, float]:
  """Return the speeds in the output of an earlier benchmark; {} for ''.

  Raises:
    core.BadInput: if the file does not exist or has other contents.
  """
  if not path:
    return {}
  try:
    texts = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
    lines = [json.loads(text) for text in texts if text.strip()]
    return {_identity(line): line['episodes_per_second'] for line in lines}
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    raise core.BadInput(
      f'--compare={path} does not hold JSON lines of a benchmark '
      f'({type(error).__name__}: {error})'
    ) from error


def add_ratio(line: Line, before: dict[Hashable, float]) -> Line:
  """Return `line` with `ratio`, its speed relative to that in `before`."""
  speed = before.get(_identity(line))
  if not speed:
    return line
  return {**line, 'ratio': round(line['episodes_per_second'] / speed, 3)}


def _identity(line):
  return tuple((name, line.get(name)) for name in IDENTITY)
