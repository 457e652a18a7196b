"""How long programs take, in turns, and against an earlier time."""

from collections.abc import Callable
import json
import pathlib
import resource
import statistics
import time
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core import distributed

MATMUL = 2048  # rows and columns of the matrices of the peak
# What a line of one benchmark is known by in another.
IDENTITY = (
  *('config', 'name', 'precision', 'devices', 'processes'),
  *('strategy', 'formulation', 'batch'),
)


class Row(NamedTuple):
  """Something to time.

  Attributes:
    episodes: of one call.
    call: () -> arrays.
    flops: multiplications and additions of one call, 0 if not known.
    memory: bytes that one call takes beside its inputs, 0 if not known.
  """

  episodes: int
  call: Callable
  flops: float = 0
  memory: int = 0


def measure(rows, repeats, matmul=MATMUL, seconds=0.2, precision='float32'):
  """Times rows in turns.

  Args:
    rows: {name: Row}.
    repeats: how often each is timed.
    matmul: rows and columns of the matrices of the peak.
    seconds: calls are repeated until about so many have passed, each time.
    precision: of that matmul; the rows have their own.

  Returns:
    A list of dicts of plain numbers and strings, one for each row, None where
    a number is not known: `share` is that of the time of 'update 1',
    `share_of_peak` that of a matmul timed in the same turns.
  """
  matrix = jnp.ones((matmul, matmul), jnp.float32)
  multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
  rows = {**rows, 'gemm': Row(1, lambda: multiply(matrix, matrix))}
  calls, times = {}, {name: [] for name in rows}
  for name, row in rows.items():
    logging.info('compiling: %s', name)
    jax.block_until_ready(row.call())
    # Several processes must call equally often.
    calls[name] = distributed.first_says(
      max(1, round(seconds / _seconds(row.call, 1)))
    )
  for turn in range(repeats):
    for name, row in rows.items():
      times[name].append(_seconds(row.call, calls[name]))
    logging.info('turn %d of %d done', turn + 1, repeats)
  median = {name: statistics.median(values) for name, values in times.items()}
  whole = median.get('update 1')
  peak = 2 * matmul**3 / median.pop('gemm') / 1e9
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
  lines = []
  for name, took in median.items():
    episodes, _, work, taken = rows[name]
    gflops = work / took / 1e9
    lines.append(
      {
        'name': name,
        'ms_per_call': round(1e3 * took, 4),
        'episodes_per_second': round(episodes / took, 2),
        'share': round(took / whole, 3) if whole else None,
        'gflops': round(gflops, 2) if work else None,
        'share_of_peak': round(gflops / peak, 3) if work else None,
        'gemm_peak_gflops': round(peak, 1),
        'temporary_mb': round(taken / 1e6, 1) if taken else None,
        'peak_rss_mb': round(memory),
      }
    )
  return lines


def _seconds(call, count):
  """Mean seconds of `count` calls, waiting for the last."""
  start = time.perf_counter()
  for _ in range(count):
    result = call()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / count


def read_lines(path):
  """The lines of an earlier benchmark by what they are known by; {} for ''.

  Raises:
    core.BadInput: the file is not there or holds something else.
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


def against(line, before):
  """`line` with `ratio`, its speed over the one in `before`, if it is there."""
  speed = before.get(_identity(line))
  if not speed:
    return line
  return {**line, 'ratio': round(line['episodes_per_second'] / speed, 3)}


def _identity(line):
  return tuple((name, line.get(name)) for name in IDENTITY)
