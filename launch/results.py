"""Trains and evaluates the rows of a results page; resumable.

  python launch/results.py --page=gradient --dataset=omniglot_background \
    --data_dir=DIR --out=docs/results/tables/gradient-omniglot_background.md

Pages and their rows: `result_pages.py`. What is finished is not repeated, and
the page is written anew after each row, so that it always holds what there is.
Beside it lie its records, `OUT` with the ending .jsonl, a line for each result
of each seed (`records.py`): the page is made of them, so results stay when the
runs are gone. --recorded: what they hold is not trained again where its run is
gone. Rows that build on others come after them. --rows=NAME,NAME chooses, and
--seeds=0,1 the training seeds, where each row has a number of its own;
--target=SET also tests on all classes of another set; --steps shortens
every training, for a trial. Runs lie in RUNS/PAGE/DATASET/ROW-SEED
(DATASET-STEPS of a trial).
"""

import argparse
import importlib
import pathlib
import subprocess
import sys

import records
import result_pages
import result_text

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # for configs

from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import runs


def parse_arguments():
  """The options; ends with code 2 for a row that does not exist."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--page', required=True, choices=result_pages.PAGES)
  parser.add_argument('--dataset', default='omniglot')
  parser.add_argument('--data_dir', default='data_numpy_dir')
  parser.add_argument('--runs', default='runs', type=pathlib.Path)
  parser.add_argument('--target', default='', help='another set to test on')
  parser.add_argument('--rows', default='')
  parser.add_argument('--seeds', default='', help="nothing: each row's own")
  parser.add_argument('--steps', default=0, type=int)
  parser.add_argument('--out', default='', help='file; nothing: print it')
  parser.add_argument('--recorded', action='store_true', help='see above')
  arguments = parser.parse_args()
  known = result_pages.PAGES[arguments.page]()
  arguments.rows = list(filter(None, arguments.rows.split(','))) or list(known)
  unknown = set(arguments.rows) - set(known)
  if unknown:
    parser.error(
      f'no rows {", ".join(sorted(unknown))} in {arguments.page}; there are '
      + ', '.join(known)
    )
  return arguments


def rows_of(arguments):
  """{row: (config, flags, evaluations)} with the names of the data sets."""
  names = {'dataset': arguments.dataset, 'target': arguments.target}
  return {
    row: (
      config.format(**names),
      flags,
      {
        name.format(**names): [flag.format(**names) for flag in options]
        for name, options in evaluations.items()
        if arguments.target or '{target}' not in name
      },
    )
    for row, (config, flags, evaluations) in result_pages.PAGES[
      arguments.page
    ]().items()
  }


def folder(arguments):
  """Where the runs of this page on this data set lie."""
  trial = f'-{arguments.steps}' if arguments.steps else ''
  return arguments.runs / arguments.page / f'{arguments.dataset}{trial}'


def call(module, *options):
  """Runs one of the mains; ends with its exit code if it fails."""
  command = [sys.executable, '-m', f'hyperudl.{module}', *options]
  code = subprocess.run(command, check=False).returncode
  if code:
    sys.exit(code)


def train(arguments, workdir, config, flags, seed):
  """One training, or nothing if it is done.

  Ends with code 2 if the folder holds a finished run of other settings.
  """
  steps = [f'--config.steps={arguments.steps}'] if arguments.steps else []
  flags = [
    f'--config.seed={seed}',
    *[flag.format(folder=folder(arguments), seed=seed) for flag in flags],
    *steps,
  ]
  if (workdir / 'DONE').exists():
    check(workdir, config, flags)
    return
  place = f'--config.data.dir={arguments.data_dir}'
  call(
    'train', f'--config=configs/{config}', f'--workdir={workdir}', place, *flags
  )


def check(workdir, config, flags):
  """Ends with code 2 if the run in `workdir` is not of this config."""
  name, _, variant = config.partition('.py:')
  module = importlib.import_module(f'configs.{name}')
  wanted, stored = module.get_config(variant), runs.read_config(workdir)
  with wanted.unlocked():
    for flag in flags:
      field, _, text = flag.removeprefix('--config.').partition('=')
      config_lib.set_field(wanted, field, text)
    wanted.init_from = stored.init_from  # the folder may have been moved
  try:
    runs.check_workdir(wanted, workdir)
  except core.BadInput as error:
    sys.stderr.write(f'results: {error}\n')
    sys.exit(2)


def evaluate(arguments, workdir, evaluations):
  """What has not been evaluated yet."""
  for name, flags in evaluations.items():
    if not (workdir / 'eval' / f'{name}.jsonl').exists():
      options = ['--once', f'--data_dir={arguments.data_dir}', *flags]
      call('evaluate', f'--workdir={workdir}', *options)


def collect(arguments):
  """The records of --out with those of the runs that there are."""
  place = folder(arguments)
  named = f'{arguments.page}/{place.name}'
  found = {}
  if arguments.out:
    found = records.load(records_path(arguments), named)
  references = result_pages.REFERENCES[arguments.page]
  for row, (_, _, evaluations) in rows_of(arguments).items():
    for done in place.glob(f'{row}-[0-9]*/DONE'):
      beginning, _, seed = done.parent.name.rpartition('-')
      if beginning != row:
        continue
      reference = references.get(row)
      if reference:
        reference = reference, place / f'{reference}-{seed}'
      for name in evaluations:
        key = row, int(seed), name
        one = records.make(named, *key, done.parent, reference)
        found |= {key: one} if one else {}
  return found


def records_path(arguments):
  """Where the records of the page lie."""
  return str(pathlib.Path(arguments.out).with_suffix('.jsonl'))


def main():
  """Row after row, seed after seed; the page after each."""
  arguments = parse_arguments()
  try:
    known = collect(arguments)
  except core.BadInput as error:
    sys.stderr.write(f'results: {error}\n')
    sys.exit(2)
  rows = rows_of(arguments)
  for seed, name in order(arguments):
    config, flags, evaluations = rows[name]
    workdir = folder(arguments) / f'{name}-{seed}'
    recorded = all((name, seed, each) in known for each in evaluations)
    if not (arguments.recorded and recorded and not workdir.exists()):
      train(arguments, workdir, config, flags, seed)
      evaluate(arguments, workdir, evaluations)
    write(arguments)
  if not arguments.out:
    sys.stdout.write(result_text.page(arguments.page, rows, collect(arguments)))


def order(arguments):
  """(seed, row) pairs: all rows of a seed, then the next one."""
  if arguments.seeds:
    seeds = [int(seed) for seed in arguments.seeds.split(',')]
    return [(seed, row) for seed in seeds for row in arguments.rows]
  counts = result_pages.SEEDS[arguments.page]
  return [
    (seed, row)
    for seed in range(max(counts.values(), default=1))
    for row in arguments.rows
    if seed < counts.get(row, 1)
  ]


def write(arguments):
  """The page and its records, as far as they are."""
  if not arguments.out:
    return
  found = collect(arguments)
  head = (
    f'# Tables of the page {arguments.page}\n\n    python '
    f'launch/results.py --page={arguments.page} --out={arguments.out} \\\n'
    f'      --dataset={arguments.dataset} --data_dir=DIR\n\n'
    'Mean +- 95% interval over test episodes; accuracy in %. Several seeds: '
    'mean, interval\nover seeds and episodes, and the mean of each seed.\n\n'
  )
  text = result_text.page(arguments.page, rows_of(arguments), found)
  records.write(records_path(arguments), found)
  pathlib.Path(arguments.out).write_text(head + text)


if __name__ == '__main__':
  main()
