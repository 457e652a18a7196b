"""Trains a learner: `python -m hyperudl.train --config=FILE --workdir=DIR`.

The same command again resumes. Episodes are a pure function of (seed, step),
so a resumed run ends with the bits of an uninterrupted one on the same number
of devices (another number of devices sums in another order).

Exit codes: 0 done; 2 bad flag, config or data (nothing written); 3 no
checkpoint is readable; 4 a loss or gradient is not finite; 5 disk full or
unwritable; 6 another trainer holds the workdir; 7 another process of this run
has ended; 8 a device has too little memory; 130 Ctrl-C; 143 SIGTERM, both after
a checkpoint.

For several processes, give each this command with the variables
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start them by
`srun`.
"""

from absl import flags

from hyperudl.core import cli
from hyperudl.core import cpu_devices
from hyperudl.core import distributed
from hyperudl.core import paths
from hyperudl.training import trainer


def main(argv: list[str]) -> None:
  """Train, or resume, the run that the flags name."""
  del argv
  config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
  paths.expand(config)
  parts = 1  # of an update, for devices to compute at the same time
  if config.strategy in ('auto', 'sharded'):
    parts = max(config.batch // max(config.chunk, 1), 1)
  devices = cpu_devices.count(flags.FLAGS.cpu_devices, parts)
  cli.set_up(multiprocess=True, cpu_devices=devices)
  stop = cli.Stop()
  stop.install()
  with distributed.translate_peer_loss():
    trainer.train(config, workdir, stop, flags.FLAGS.allow_new_classes)
    code = distributed.max_across_processes(stop.code)
  if code:
    cli.fail(code, f'stopped; the same command resumes {workdir}')


if __name__ == '__main__':
  cli.define_config(
    'Config file, optionally with a variant: '
    'configs/udl.py:omniglot,way=5,shot=1',
  )
  paths.define('workdir', None, 'Folder of the run; made if absent.')
  cli.define_allow_new_classes()
  cli.define_cpu_devices()
  flags.mark_flags_as_required(['config', 'workdir'])
  cli.run(main)
