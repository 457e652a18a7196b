r"""Ours beside plain torch: python -m benchmarks.compare [--suite=gradient].

The same rows (`hyperudl/workloads.py`) in JAX and in torch (`peers.py`), each
one a mean loss and its gradients over four tasks, no optimizer. Torch runs in a
process of its own with its own threads; everything is made ready first and then
timed in turns, one program at a time. Prints a JSON line for each program and,
for each row, the median over the turns of our speed over that of the best torch
formulation (the one with the best median). Needs an idle machine: torch waits
for all of its threads at every operation.

  pip install -e .[bench]
  python -m benchmarks.compare --suite=gradient > gradient.jsonl
"""

import json
import statistics
import subprocess
import sys
import time

from absl import flags
from absl import logging
import jax

from hyperudl import core
from hyperudl.benchmark import gradients
from hyperudl.benchmark import workloads
from hyperudl.core import cli

PAUSE = 0.3  # seconds, for threads of the program before to go to sleep


class Torch:
  """The other process: which programs it has, and how long one takes."""

  def __init__(self, suite):
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'benchmarks.torch_worker', suite],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.programs = [tuple(pair) for pair in self._read()]

  def _read(self):
    line = self._process.stdout.readline()
    if not line:
      raise core.BadInput(
        'the torch process ended: see above; if torch is missing, '
        'pip install -e .[bench]'
      )
    return json.loads(line)

  def seconds(self, index):
    """Of one call of program `index`."""
    self._process.stdin.write(f'{index}\n')
    self._process.stdin.flush()
    return self._read()

  def close(self):
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def compare(suite, repeats, torch):
  """Times all programs of a suite in turns.

  Args:
    suite: one of `workloads.SUITES`.
    repeats: turns that count; one more warms up.
    torch: a `Torch`.

  Returns:
    A list of dicts, one a program.
  """
  rows = [
    row
    for row in workloads.make_rows(suite)
    if row.batch > 1 and row.devices <= jax.local_device_count()
  ]
  programs = {}  # (row name, label): (batch, () -> seconds)
  for row in rows:
    logging.info('compiling: %s on %d devices', row.name, row.devices)
    program, inputs = gradients.compile_row(row)
    label = f'hyperudl, {row.devices} devices'
    programs[row.name, label] = (
      row.batch,
      lambda p=program, i=inputs: gradients.seconds(p, *i),
    )
  batches = {row.name: row.batch for row in rows}
  for index, (name, label) in enumerate(torch.programs):
    programs[name, f'torch {label}'] = (
      batches[name],
      lambda index=index: torch.seconds(index),
    )
  times = {key: [] for key in programs}
  for turn in range(repeats + 1):
    for key, (_, run) in programs.items():
      time.sleep(PAUSE)
      took = run()
      if turn:
        times[key].append(took)
    logging.info('turn %d of %d done', turn, repeats)
  return describe({key: (programs[key][0], times[key]) for key in programs})


def describe(measured):
  """Lines with ratios.

  Args:
    measured: {(row, program): (batch, seconds of each turn)}.

  Returns:
    A list of dicts; `to_best_torch` is the median over turns of the seconds of
    the row's torch program with the best median over one's own.
  """
  median = {k: statistics.median(took) for k, (_, took) in measured.items()}
  lines = []
  for (row, label), (batch, took) in measured.items():
    peers = [k for k in measured if k[0] == row and k[1].startswith('torch')]
    ratio = None
    if peers:
      best = measured[min(peers, key=median.get)][1]
      ratio = statistics.median(b / own for b, own in zip(best, took))
    lines.append(
      {
        'row': row,
        'program': label,
        'episodes_per_second': round(batch / median[row, label], 2),
        'ms_per_episode': round(1e3 * median[row, label] / batch, 3),
        'to_best_torch': ratio and round(ratio, 3),
      }
    )
  return lines


def main(argv):
  """Prints one JSON line a program."""
  del argv
  values = flags.FLAGS
  if values.repeats < 1:
    raise core.BadInput(f'--repeats must be >= 1, not {values.repeats}')
  jax.config.update('jax_platforms', 'cpu')  # as torch, a build for CPUs
  cli.set_up(cpu_devices=2)
  torch = Torch(values.suite)
  for line in compare(values.suite, values.repeats, torch):
    sys.stdout.write(json.dumps(line) + '\n')
  torch.close()


if __name__ == '__main__':
  flags.DEFINE_enum('suite', 'gradient', ('gradient', 'metric'), 'Which rows.')
  flags.DEFINE_integer('repeats', 5, 'Turns; medians over them are printed.')
  cli.run(main)
