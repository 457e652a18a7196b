r"""Measure speed, of one configuration or of a suite of meta-gradients.

  python -m hyperudl.benchmark --batches=1,16 \
    --config=configs/hypertransformer.py:reference,omniglot,way=20,shot=1
  python -m hyperudl.benchmark --suite=maml

Prints one JSON line a row. Rows of --config: drawing episodes (gather,
augmentation and shift; of features where training has been through a frozen
encoder before its updates); whole updates with drawing, for each of --batches
(and, as `update B x S`, S in one dispatch for each of --calls); evaluation with
all its metrics; `answer 1`, what a user waits for: adapting to one episode and
predicting its queries; for a `hypertransformer` also its parts
(`hypertransformer_parts.py`). Rows of --suite, on random data
(`workloads.py`): `maml` compares formulations and strategies, `gradient` and
`metric` learners, which `experiments/peers` sets beside plain torch,
`accelerator` formulations against B (for a GPU). Its CPU is two devices; rows
with "devices": 2 divide the episodes between them, one thread each.

All rows are compiled first and then timed in turns, so that whatever else the
machine does affects all of them: only compare rows of one run. Medians are
printed; `gflops` are the multiplications and additions of the matrix products
and convolutions that the program performs (`flops.py`), `gemm_peak_gflops` a
2048 x 2048 matmul on one device timed in the same turns, and `share_of_peak`
their ratio; `share` is the time of a call over that of `update 1`, if there is
one (parts overlap in a whole program, so they need not add up).
`temporary_mb` is what a program takes on a device beside its inputs (with
`scan` the same for any number of episodes), `peak_mb` that and its inputs,
`peak_rss_mb` what the process has taken at most. --compare=FILE adds `ratio`,
the speed over that of the same row in FILE, which an earlier call has printed.

Several processes (`core/distributed.py`), or devices, measure updates alone,
together; --devices divides one process's cores into so many devices. Exit
codes: 0 done; 2 bad flag, config or data; 8 a device has too little memory.
"""

import json
import sys
from typing import get_args

from absl import flags
from ml_collections import config_flags

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
  """Print one JSON line a row."""
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
  config_flags.DEFINE_config_file('config', None, 'configs/NAME.py[:variant].')
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
