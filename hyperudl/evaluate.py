"""Evaluates a run: `python -m hyperudl.evaluate --workdir=DIR`.

Without --once it polls: each new checkpoint is evaluated on the same fixed
episodes of `valid` and `test`, until the trainer's DONE. With --once it
evaluates one checkpoint and appends a line; with --overrides=FILE it does so
for each line of a file, such as `--config.data.shift=shear --tag=shear`. It
needs nothing but the workdir and the data; it may run beside the trainer or
later.

Results: DIR/eval/<split>.jsonl, one line a checkpoint, and
DIR/eval/<split>_episodes.npz, the numbers of every episode of the last one;
with --uncertainty DIR/eval/uncertainty-<split>.jsonl.
Exit codes: 0 done; 2 bad flag, config or data; 3 no checkpoint is readable;
5 disk full or unwritable; 6 another evaluator polls this run; 7 another process
of several has ended; 8 a device has too little memory; 130 Ctrl-C; 143 SIGTERM.
"""

import functools
import importlib.util

from absl import flags

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import cpu_devices
from hyperudl.core import distributed
from hyperudl.core import paths
from hyperudl.evaluation import overrides
from hyperudl.evaluation import runner
from hyperudl.training import setup

STEPS = ('latest', 'best', 'best_ensemble')


def main(argv: list[str], changes: dict[str, str]) -> None:
  """Evaluate one checkpoint, or poll until the trainer is done."""
  del argv
  values = flags.FLAGS
  parts = 1
  if values.cpu_devices == 0 and values.once:  # a trainer runs beside polling
    parts = setup.read_config(values.workdir).eval.batch
  devices = cpu_devices.count(values.cpu_devices, parts)
  cli.set_up(multiprocess=True, cpu_devices=devices)
  stop = cli.Stop()
  stop.install()
  requests = _requests(values, changes) if values.once else {}
  one_process = not requests or any(r.uncertainty for r in requests.values())
  if one_process and not distributed.is_single_process():
    raise core.BadInput(
      'several processes evaluate one checkpoint together (--once, without '
      '--uncertainty); an evaluator that polls runs in one process'
    )
  if values.once:
    overrides.evaluate_all(values.workdir, requests, stop)
  else:
    _poll(values, changes, stop)
  with distributed.translate_peer_loss():
    code = distributed.max_across_processes(stop.code)
  if code:
    cli.fail(code, 'stopped; the same command goes on')


def _requests(values, changes):
  """Return what to evaluate, by its place in the file of --overrides."""
  config = setup.read_config(values.workdir, values.allow_new_classes)
  options = values.flag_values_dict()
  if not values.overrides:
    return {'': _request(config, options, changes)}
  if values.tag:
    raise core.BadInput(
      f'--tag={values.tag} names one result, and --overrides has several: '
      'write --tag=NAME in its lines'
    )
  requests = {}
  for place, words in overrides.read(values.overrides).items():
    with overrides.at(place):
      own, own_changes = _parse_line(words)
      requests[place] = _request(config, options | own, changes | own_changes)
  return requests


def _request(config, options, changes):
  config, tag = runner.override(config, changes, options)
  step = options['step']
  if step not in STEPS and not step.isdecimal():
    raise core.BadInput(
      f'--step={step} is neither a number nor one of {", ".join(STEPS)}'
    )
  return runner.Request(
    config,
    step,
    options['split'] or 'test',
    tag,
    options['save_predictions'],
    options['uncertainty'],
    options['out'] or '',
  )


def _parse_line(words):
  """Return the flags {name: value} and the changes of a line of overrides."""
  changes, rest = cli.split_changes(words)
  line = flags.FlagValues()
  define_result_flags(line)
  try:
    unknown = line(['evaluate', *rest])[1:]
  except flags.Error as error:
    raise core.BadInput(f'{error}; a line takes flags of one result') from error
  if unknown:
    raise core.BadInput(
      f'unexpected argument {unknown[0]!r}; every option is --name=value'
    )
  return {
    name: line[name].value for name in line if line[name].present
  }, changes


def _poll(values, changes, stop):
  for name in (
    *(f'config.{name}' for name in changes),
    *('dataset', 'way', 'shot', 'tag', 'uncertainty', 'step', 'out'),
    'overrides',
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
    'overrides',
    None,
    'With --once: file with the flags of one evaluation in each line; other '
    'flags are for all of them. Faster than a command for each.',
  )
  paths.define(
    'out',
    None,
    'With --once: folder in place of the workdir for the results (OUT/eval/), '
    'for instance if the workdir may not be written.',
  )
  define_result_flags(flags.FLAGS)
  cli.define_allow_new_classes()
  cli.define_cpu_devices()


def define_result_flags(values: flags.FlagValues) -> None:
  """Define the flags of one result, which lines of --overrides take too."""
  text = functools.partial(flags.DEFINE_string, flag_values=values)
  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
  text(
    'step',
    'latest',
    'With --once: latest, best, best_ensemble or a step number.',
  )
  flags.DEFINE_enum(
    'split',
    None,
    runner.SPLITS,
    'Data to evaluate on. Default: test; polling, test and valid.',
    flag_values=values,
  )
  number('episodes', None, 'How many; default: eval.episodes.', lower_bound=1)
  text('dataset', None, 'Evaluate on another data set.')
  paths.define('data_dir', None, 'Folder of the data.', flag_values=values)
  number('way', None, 'Classes of an episode.', lower_bound=2)
  number('shot', None, 'Labelled images of each class.', lower_bound=1)
  switch('save_predictions', False, 'Save the probabilities of every query.')
  switch(
    'uncertainty',
    False,
    'With --once: calibration, and predictive uncertainty at classes outside '
    'of the support.',
  )
  text('tag', None, 'Name of the result when --config.x.y=v changes something.')


if __name__ == '__main__':
  define_flags()
  cli.run_with_overrides(main)
