r"""Measures the speed of one configuration or of a suite of meta-gradients.

  python -m hyperudl.benchmark --batches=1,16 \
    --config=configs/hypertransformer.py:reference,omniglot,way=20,shot=1
  python -m hyperudl.benchmark --suite=maml

Prints one JSON line for each measured program (a row). Rows of --config:
`draw B`, drawing B episodes (gather, augmentation and shift; of features if a
frozen encoder is applied once before training); `update B`, a whole update with
drawing, for each of --batches (and `update B x S`, S updates in one dispatch,
for each of --calls); `evaluate B`, evaluation with all metrics; `answer 1`,
adapting to one episode and predicting its queries, which is what a user waits
for; for a `hypertransformer` also its parts (`hypertransformer_parts.py`). Rows
of --suite, on random data (`workloads.py`): `maml` compares formulations and
batching strategies; `gradient` and `metric` measure learners that
`experiments/peers` compares with plain PyTorch; `accelerator` compares
formulations over B (for a GPU). A suite treats the CPU as two devices; rows
with "devices": 2 divide the episodes between them, one thread each.

All rows are compiled first and then timed in turns, so that other load on the
machine affects all of them alike: only compare rows of one run. Medians are
printed. `gflops` is the rate of multiplications and additions in the matrix
products and convolutions of the program (`flops.py`), `gemm_peak_gflops` that
of a 2048 x 2048 matmul on one device timed in the same turns, and
`share_of_peak` their ratio; `share` is the time of a call divided by that of
`update 1`, if there is one (parts overlap in a whole program, so they need not
add up). `temporary_mb` is the memory of a program on a device without its
inputs (with `scan` the same for any number of episodes), `peak_mb` the memory
with them, `peak_rss_mb` the largest memory of the process so far.
--compare=FILE adds `ratio`, the speed divided by that of the same row in FILE,
the output of an earlier call.

With several processes (`core/distributed.py`) or devices, which work together,
only updates are measured; --devices divides the cores of one process into that
many devices. Exit codes: 0 done; 2 bad flag, config or data; 8 a device has too
little memory.
"""

import json
import sys
from typing import get_args

from absl import flags

from hyperudl import core
from hyperudl.benchmark import learner
from hyperudl.benchmark import timing
from hyperudl.benchmark import workloads
from hyperudl.core import cli
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.core import hyperparameters

SUITE_FLAGS = ('suite', 'filter', 'precision')
CONFIG_FLAGS = ('batches', 'calls', 'devices')


def main(argv):
  """Measure all rows and print one JSON line for each."""
  del argv
  config = flags.FLAGS.config
  for name in CONFIG_FLAGS if config is None else SUITE_FLAGS:
    if flags.FLAGS[name].present:
      raise core.BadInput(
        f'--{name} needs --config=FILE'
        if config is None
        else f'--{name} is for suites, not for --config: leave one of them out'
      )
  before = timing.read_lines(flags.FLAGS.compare)
  precision = flags.FLAGS.precision
  if config is None:
    chosen = workloads.select(flags.FLAGS.suite, flags.FLAGS.filter)
    cli.set_up(cpu_devices=2)
    rows = workloads.rows(chosen, precision)
  else:
    precision = config.matmul_precision
    cli.set_up(multiprocess=True, cpu_devices=flags.FLAGS.devices)
  with distributed.translate_peer_loss():
    if config is not None:
      sizes = flags.FLAGS.batches, flags.FLAGS.calls
      rows = learner.rows(config, *(list(map(int, texts)) for texts in sizes))
    lines = timing.measure(rows, flags.FLAGS.repeats, precision=precision)
  if distributed.is_primary():
    for line in lines:
      line = timing.add_ratio({'precision': precision, **line}, before)
      sys.stdout.write(json.dumps(line) + '\n')


if __name__ == '__main__':
  cli.define_config('configs/NAME.py[:variant].', lock=False)
  flags.DEFINE_list('batches', ['1', '16'], 'Episodes an update, several.')
  flags.DEFINE_list('calls', ['1'], 'Updates in one dispatch, several.')
  for name in ('batches', 'calls'):
    flags.register_validator(
      name,
      lambda texts: all(text.isdecimal() and int(text) for text in texts),
      'takes numbers like 1,16, all at least 1',
    )
  flags.DEFINE_integer(
    'devices', 1, 'Of the CPU, which share its cores.', lower_bound=1
  )
  flags.DEFINE_enum('suite', 'maml', workloads.SUITES, 'What is measured.')
  flags.DEFINE_string(
    'filter', '', "Only rows whose name contains this: 'conv4-8', 'memory'."
  )
  precisions = hyperparameters.type_hints(config_lib.RunConfig)
  flags.DEFINE_enum(
    'precision',
    'float32',
    get_args(precisions['matmul_precision']),
    'Of matrix products; a CPU has float32 alone.',
  )
  flags.DEFINE_integer(
    'repeats',
    5,
    'Times that each row is timed; medians are printed.',
    lower_bound=1,
  )
  flags.DEFINE_string('compare', '', 'Lines that an earlier call has printed.')
  cli.run(main)
