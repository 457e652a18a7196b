r"""Compares our speed with that of plain torch.

The same workloads (`hyperudl/benchmark/workloads.py`) in JAX and in torch
(`torch_programs.py`), each one a mean loss and its gradients over four tasks,
no optimizer. Torch runs in a process of its own with its own threads;
everything is compiled first and then timed in turns, one program at a time.
Prints a JSON line for each program. Its `to_best_torch` is the median over the
turns of the program's speed over that of the row's best torch formulation (the
one with the best median). Needs an idle machine: torch waits for all of its
threads at every operation.

  pip install -e .[bench]
  python -m experiments.peers.compare --suite=gradient > gradient.jsonl
"""

import functools
import json
import statistics
import subprocess
import sys

from absl import flags
from absl import logging
import jax

from hyperudl import core
from hyperudl.benchmark import timing
from hyperudl.benchmark import workloads
from hyperudl.core import cli

PAUSE = 0.3  # seconds, until the threads of the previous program sleep


class Torch:
  """A process with the torch programs, which times them on request."""

  def __init__(self, suite):
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.peers.torch_worker', suite],
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
    """Return the seconds of one call of program `index`."""
    self._process.stdin.write(f'{index}\n')
    self._process.stdin.flush()
    return self._read()

  def close(self):
    """End the process."""
    self._process.stdin.close()
    self._process.wait()


def compare(suite, repeats, torch):
  """Time all programs of a suite in turns.

  Args:
    suite: one of `workloads.SUITES`.
    repeats: turns that count; there is one more before them to warm up.
    torch: a `Torch`.

  Returns:
    A list of dicts, one per program.
  """
  clocks, batches = {}, {}  # clocks: (name, label) -> () -> seconds
  for workload in workloads.suite(suite):
    if workload.devices > jax.local_device_count():
      continue
    name, devices = workload.name, workload.devices
    logging.info('compiling: %s on %d devices', name, devices)
    gradient, inputs = workloads.make_gradient(workload)
    run = functools.partial(gradient.lower(*inputs).compile(), *inputs)
    label = f'hyperudl, {devices} devices'
    clocks[name, label] = functools.partial(timing.seconds_of, run)
    batches[name] = workload.batch
  for index, (name, label) in enumerate(torch.programs):
    clocks[name, f'torch {label}'] = functools.partial(torch.seconds, index)
  times = timing.time_in_turns(clocks, repeats + 1, PAUSE)
  return describe({k: (batches[k[0]], took[1:]) for k, took in times.items()})


def describe(measured):
  """Return a line for each program, with ratios.

  Args:
    measured: {(row, program): (batch, seconds of each turn)}.

  Returns:
    A list of dicts; `to_best_torch` is the median over turns of the seconds of
    the row's torch program with the best median over those of the program.
  """
  median = {k: statistics.median(took) for k, (_, took) in measured.items()}
  lines = []
  for (row, label), (batch, took) in measured.items():
    peers = [k for k in measured if k[0] == row and k[1].startswith('torch')]
    ratio = None
    if peers:
      best = measured[min(peers, key=median.get)][1]
      ratio = statistics.median(b / t for b, t in zip(best, took))
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
  """Print one JSON line per program."""
  del argv
  jax.config.update('jax_platforms', 'cpu')  # like torch, a build for CPUs
  cli.set_up(cpu_devices=2)
  torch = Torch(flags.FLAGS.suite)
  for line in compare(flags.FLAGS.suite, flags.FLAGS.repeats, torch):
    sys.stdout.write(json.dumps(line) + '\n')
  torch.close()


if __name__ == '__main__':
  flags.DEFINE_enum('suite', 'gradient', ('gradient', 'metric'), 'Which rows.')
  flags.DEFINE_integer(
    'repeats', 5, 'Turns; medians over them are printed.', lower_bound=1
  )
  cli.run(main)
