"""Measures the speed of meta-gradients: `python -m hyperudl.benchmark`.

Prints one JSON line a row on random data (`workloads.py`), so only the speed
means anything: --suite=maml compares formulations and strategies, `gradient`
and `metric` learners, which `benchmarks/` sets beside plain torch,
`accelerator` formulations against B (for a GPU). A CPU is two devices; rows
with "devices": 2 divide the episodes between them, one thread each.

* `gflops` counts the multiplications and additions of the matrix products
  and convolutions of one episode (`count_flops`), without what
  `jax.checkpoint` computes twice.
* `gemm_peak_gflops` is a 2048 x 2048 float32 matmul on one device, timed
  just before and just after each repeat of the row; `share_of_peak` is the
  median over repeats of the ratio to the mean of these two.
* `peak_mb` is what the compiled program of one device asks for: temporary
  buffers and arguments. The arguments hold the images and grow with the
  episodes; under 'scan' the buffers do not.
* 'naive' rows are `vmap` over episodes of a network of flax's own layers.

--compare=FILE adds `ratio`, the speed over that of the same row in FILE, which
an earlier call has printed.

All rows are compiled first and then timed in turns, so that whatever else the
machine does meets all of them: only compare rows of one run.
"""

import json
import statistics
import sys
import time

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.benchmark import timing
from hyperudl.benchmark import workloads
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.training import episode_batching
from hyperudl.training import train_step


def seconds(function, *args):
  """Seconds of one call until its arrays are there."""
  start = time.perf_counter()
  jax.block_until_ready(function(*args))
  return time.perf_counter() - start


def compile_row(row, precision='float32'):
  """(program, its inputs) of one row at a precision of `loop.at_precision`."""
  mesh = None
  if row.strategy == 'sharded':
    devices = jax.local_devices()[: row.devices]
    mesh = jax.sharding.Mesh(devices, ('episodes',))
  _, loss = workloads.make_loss(row)
  run = episode_batching.episode_value_and_grad(loss, row.strategy, mesh)
  inputs = train_step.place(workloads.make_inputs(row), mesh)
  run = jax.jit(train_step.at_precision(run, precision))
  return run.lower(*inputs).compile(), inputs


def _describe(row, program, times, peaks):
  seconds = statistics.median(times) / row.batch
  peak = statistics.median(peaks)
  work = workloads.count_flops(row) * row.batch / 1e9  # GFLOP of the program
  shares = [work / t / p for t, p in zip(times, peaks)]
  memory = program.memory_analysis()
  size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return {
    'name': row.name,
    'devices': row.devices,
    'strategy': row.strategy,
    'formulation': row.formulation,
    'batch': row.batch,
    'episodes_per_second': round(1 / seconds, 2),
    'ms_per_episode': round(seconds * 1e3, 3),
    'peak_mb': round(size / 1e6, 1),
    'gflops': round(work / row.batch / seconds, 2),
    'gemm_peak_gflops': round(peak, 1),
    'share_of_peak': round(statistics.median(shares), 3),
  }


def measure(rows, repeats=5, matmul=2048, precision='float32'):
  """Compiles all rows, then times them in turns.

  Args:
    rows: `Row`s; those that need more devices than there are are left out.
    repeats: how often each is timed; medians are reported.
    matmul: rows and columns of the matrices of the peak.
    precision: of rows and matmul.

  Returns:
    A list of dicts of plain numbers and strings, one for each row.
  """
  programs = []
  for row in rows:
    if row.devices > jax.local_device_count():
      logging.warning('left out: %s on %d devices', row.name, row.devices)
      continue
    logging.info('compiling: %s on %d devices', row.name, row.devices)
    programs.append((row, *compile_row(row, precision), [], []))
  matrix = jnp.ones((matmul, matmul), jnp.float32)
  multiply = jax.jit(train_step.at_precision(jnp.matmul, precision))
  gflops = lambda: 2 * matmul**3 / seconds(multiply, matrix, matrix) / 1e9
  for turn in range(repeats + 1):
    for _, program, inputs, times, peaks in programs:
      before = gflops()
      took = seconds(program, *inputs)
      peak = (before + gflops()) / 2
      if turn:  # the first turn warms up
        times.append(took)
        peaks.append(peak)
    logging.info('turn %d of %d done', turn, repeats)
  return [
    _describe(row, program, times, peaks)
    for row, program, _, times, peaks in programs
  ]


def select(rows, text):
  """The rows whose name contains `text`; core.BadInput if there are none."""
  chosen = [row for row in rows if text in row.name]
  if not chosen:
    names = sorted({row.name for row in rows})
    raise core.BadInput(
      f'--filter={text} fits no row; the rows are: {", ".join(names)}'
    )
  return chosen


def main(argv):
  """Prints one JSON line a row."""
  del argv
  rows = select(workloads.make_rows(FLAGS.suite), FLAGS.filter)
  if FLAGS.repeats < 1:
    raise core.BadInput(f'--repeats must be >= 1, not {FLAGS.repeats}')
  before = timing.read_lines(FLAGS.compare)
  cli.set_up(cpu_devices=2)
  for line in measure(rows, FLAGS.repeats, precision=FLAGS.precision):
    line = {**line, 'precision': FLAGS.precision}
    sys.stdout.write(json.dumps(timing.against(line, before)) + '\n')


if __name__ == '__main__':
  FLAGS = flags.FLAGS
  flags.DEFINE_string(
    'filter', '', "Only rows whose name contains this: 'conv4-8', 'memory'."
  )
  flags.DEFINE_enum('suite', 'maml', workloads.SUITES, 'What is measured.')
  flags.DEFINE_integer(
    'repeats', 5, 'Times that each row is timed; medians are printed.'
  )
  flags.DEFINE_enum(
    'precision',
    'float32',
    config_lib.CHOICES['matmul_precision'],
    'Of matrix products; a CPU has float32 alone.',
  )
  flags.DEFINE_string('compare', '', 'Lines that an earlier call has printed.')
  cli.run(main)
