"""Evaluates a run: `python -m hyperudl.evaluate --workdir=DIR`.

Without --once it polls: each new checkpoint is evaluated on the same fixed
episodes of `valid` and `test`, until the trainer's DONE. With --once it
evaluates one checkpoint and appends a line. It needs nothing but the workdir
and the data; it may run beside the trainer or later.

Results: DIR/eval/<split>.jsonl, one line a checkpoint, and
DIR/eval/<split>_episodes.npz, the numbers of every episode of the last one;
with --uncertainty DIR/eval/uncertainty-<split>.jsonl.
Exit codes: 0 done; 2 bad flag, config or data; 3 no checkpoint is readable;
5 disk full or unwritable; 6 another evaluator polls this run; 7 another process
of several has ended; 8 a device has too little memory; 130 Ctrl-C; 143 SIGTERM.
"""

import importlib.util

from absl import flags

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import distributed
from hyperudl.core import paths
from hyperudl.evaluation import runner
from hyperudl.evaluation import uncertainty
from hyperudl.training import setup

STEPS = ('latest', 'best', 'best_ensemble')


def main(argv: list[str], changes: dict[str, str]) -> None:
  """Evaluate one checkpoint, or poll until the trainer is done."""
  del argv
  values = flags.FLAGS
  parts = 1
  if values.cpu_devices == 0 and values.once:  # a trainer runs beside polling
    parts = setup.read_config(values.workdir).eval.batch
  devices = cli.num_cpu_devices(values.cpu_devices, parts)
  cli.set_up(multiprocess=True, cpu_devices=devices)
  stop = cli.Stop()
  stop.install()
  single = distributed.is_single_process()
  if not single and (values.uncertainty or not values.once):
    raise core.BadInput(
      'several processes evaluate one checkpoint together (--once, without '
      '--uncertainty); an evaluator that polls runs in one process'
    )
  if values.once:
    _evaluate_once(values, changes, stop)
  else:
    _poll(values, changes, stop)
  with distributed.translate_peer_loss():
    code = distributed.max_across_processes(stop.code)
  if code:
    cli.fail(code, 'stopped; the same command goes on')


def _evaluate_once(values, changes, stop):
  options = values.flag_values_dict()
  config = setup.read_config(values.workdir, values.allow_new_classes)
  config, tag = runner.override(config, changes, options)
  step = values.step
  if step not in STEPS and not step.isdecimal():
    raise core.BadInput(
      f'--step={step} is neither a number nor one of {", ".join(STEPS)}'
    )
  out = values.out or ''
  target = (values.workdir, config, step, values.split or 'test', tag)
  if not values.uncertainty:
    with distributed.translate_peer_loss():
      runner.evaluate_once(*target, values.save_predictions, stop, out)
  else:
    uncertainty.evaluate_once(*target, stop, out)


def _poll(values, changes, stop):
  for name in (
    *(f'config.{name}' for name in changes),
    *('dataset', 'way', 'shot', 'tag', 'uncertainty', 'step', 'out'),
  ):
    if name in values and values[name].value == values[name].default:
      continue
    raise core.BadInput(f'--{name} needs --once')
  options = values.flag_values_dict()
  runner.poll(
    values.workdir,
    [values.split] if values.split else ['test', 'valid'],
    values.save_predictions,
    stop,
    lambda config: runner.override(
      setup.read_config(values.workdir, values.allow_new_classes), {}, options
    )[0],
    _show_features if importlib.util.find_spec('sklearn') else None,
  )


def _show_features(*args):
  from hyperudl.plots import tsne  # loads matplotlib: only if needed

  tsne.write(*args)


def define_flags() -> None:
  """Define the flags of this command."""
  paths.define('workdir', None, 'Folder of the run.', required=True)
  flags.DEFINE_boolean('once', False, 'Evaluate one checkpoint and end.')
  flags.DEFINE_string(
    'step',
    'latest',
    'With --once: latest, best, best_ensemble or a step number.',
  )
  paths.define(
    'out',
    None,
    'With --once: folder in place of the workdir for the results (OUT/eval/), '
    'for instance if the workdir may not be written.',
  )
  flags.DEFINE_enum(
    'split',
    None,
    runner.SPLITS,
    'Data to evaluate on. Default: test; polling, test and valid.',
  )
  flags.DEFINE_integer(
    'episodes', None, 'How many; default: eval.episodes.', lower_bound=1
  )
  flags.DEFINE_string('dataset', None, 'Evaluate on another data set.')
  paths.define('data_dir', None, 'Folder of the data.')
  flags.DEFINE_integer('way', None, 'Classes of an episode.', lower_bound=2)
  flags.DEFINE_integer(
    'shot', None, 'Labelled images of each class.', lower_bound=1
  )
  flags.DEFINE_boolean(
    'save_predictions', False, 'Save the probabilities of every query.'
  )
  flags.DEFINE_boolean(
    'uncertainty',
    False,
    'With --once: calibration, and predictive uncertainty at classes outside '
    'of the support.',
  )
  flags.DEFINE_string(
    'tag', None, 'Name of the result when --config.x.y=v changes something.'
  )
  cli.define_allow_new_classes()
  cli.define_cpu_devices()


if __name__ == '__main__':
  define_flags()
  cli.run_with_overrides(main)
