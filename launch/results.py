"""Trains and evaluates the rows of a results page; resumable.

  python launch/results.py --page=gradient --dataset=omniglot_background \
    --data_dir=DIR --out=docs/results/tables/gradient-omniglot_background.md

Pages and their rows: `result_pages.py`. What is finished is not repeated, and
the page is written anew after each row, so that it always holds what there is.
Beside it lie its records, `OUT` with the ending .jsonl, a line for each result
of each seed (`records.py`): the page is made of them, so results stay when the
runs are gone. --recorded: what they hold is not trained again where its run is
gone. Rows that build on others come after them. --rows=NAME,NAME chooses,
--without=NAME,NAME leaves rows out, and --seeds=0,1 chooses the training seeds,
where each row has a number of its own;
--target=SET also tests on all classes of another set; --steps shortens
every training, for a trial; --jobs=2 evaluates a row by two processes at a
time. Runs lie in RUNS/PAGE/DATASET/ROW-SEED (DATASET-STEPS of a trial).
"""

import argparse
from concurrent import futures
import importlib
import os
import pathlib
import re
import subprocess
import sys

from absl import logging
import records
import result_pages
import result_text

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # for configs

from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import runs
from hyperudl import storage


def numbers(text):
  """'0,1' as numbers."""
  return [int(part) for part in text.split(',')]


def names(text):
  """'a,b' as names; none of ''."""
  return [part for part in text.split(',') if part]


def parse_arguments():
  """The options; ends with code 2 for a row that does not exist."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--page', required=True, choices=result_pages.PAGES)
  parser.add_argument('--dataset', default='omniglot')
  parser.add_argument('--data_dir', default='data_numpy_dir')
  parser.add_argument('--runs', default='runs', type=pathlib.Path)
  parser.add_argument('--target', default='', help='another set to test on')
  parser.add_argument('--rows', default='', type=names)
  parser.add_argument('--without', default='', type=names)
  parser.add_argument(
    '--seeds', default=[], type=numbers, help="nothing: each row's own"
  )
  parser.add_argument('--steps', default=0, type=int)
  parser.add_argument('--out', default='', help='file; nothing: print it')
  parser.add_argument(
    '--jobs', default=1, type=int, help='evaluations of a row at a time'
  )
  parser.add_argument('--recorded', action='store_true', help='see above')
  arguments = parser.parse_args()
  if arguments.jobs < 1:
    parser.error(f'--jobs={arguments.jobs}: expected 1 or more')
  known = result_pages.PAGES[arguments.page]()
  unknown = {*arguments.rows, *arguments.without} - set(known)
  if unknown:
    parser.error(
      f'no rows {", ".join(sorted(unknown))} in {arguments.page}; there are '
      + ', '.join(known)
    )
  arguments.rows = [
    row for row in arguments.rows or known if row not in arguments.without
  ]
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


def train(arguments, row, seed):
  """One training, or nothing if it is done; first what it builds on.

  Ends with code 2 if the folder holds a finished run of other settings.
  """
  config, flags, _ = rows_of(arguments)[row]
  upstreams = re.findall(r'{folder}/([\w-]+)-{seed}(?= |$)', ' '.join(flags))
  for other in dict.fromkeys(upstreams):
    train(arguments, other, seed)
  workdir = folder(arguments) / f'{row}-{seed}'
  flags = flags_of(arguments, flags, seed)
  if (workdir / 'DONE').exists():
    error = difference(workdir, config, flags)
    if error:
      fail(error)
    return
  place = f'--config.data.dir={arguments.data_dir}'
  call(
    'train', f'--config=configs/{config}', f'--workdir={workdir}', place, *flags
  )


def flags_of(arguments, flags, seed):
  """Flags of one training."""
  steps = [f'--config.steps={arguments.steps}'] if arguments.steps else []
  return [
    f'--config.seed={seed}',
    *[flag.format(folder=folder(arguments), seed=seed) for flag in flags],
    *steps,
  ]


def config_of(config, flags):
  """The config of one training."""
  name, _, variant = config.partition('.py:')
  made = importlib.import_module(f'configs.{name}').get_config(variant)
  with made.unlocked():
    for flag in flags:
      field, _, text = flag.removeprefix('--config.').partition('=')
      config_lib.set_field(made, field, text)
  return made


def difference(workdir, config, flags):
  """The error that says how the run in `workdir` is not of this config."""
  try:
    wanted, stored = config_of(config, flags), runs.read_config(workdir)
    with wanted.unlocked():
      for name, path in stored.init_from.items():
        # The folder of all runs may have been moved.
        own = wanted.init_from.get(name, '')
        if pathlib.Path(path).name == pathlib.Path(own).name:
          wanted.init_from[name] = path
    runs.check_workdir(wanted, workdir)
  except core.BadInput as error:
    return error
  return None


def fail(error):
  """Ends with the code of the error and one line."""
  sys.stderr.write(f'results: {error}\n')
  sys.exit(error.exit_code)


def evaluate(arguments, workdir, evaluations):
  """What has not been evaluated yet, `--jobs` processes at a time."""
  once = [f'--workdir={workdir}', '--once', f'--data_dir={arguments.data_dir}']
  missing = [
    [*once, *flags]
    for name, flags in evaluations.items()
    if not (workdir / 'eval' / f'{name}.jsonl').exists()
  ]
  if arguments.jobs > 1:  # they would all take most of an accelerator
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  with futures.ThreadPoolExecutor(arguments.jobs) as pool:
    started = [pool.submit(call, 'evaluate', *options) for options in missing]
    for one in futures.as_completed(started):
      if one.exception():  # what has not begun does not begin
        pool.shutdown(cancel_futures=True)
      one.result()


def collect(arguments):
  """Records of the page, and others of --out that it does not show.

  Those of the page are of --out and of the runs that there are.
  """
  place = folder(arguments)
  rows = rows_of(arguments)
  settings = {
    (row, result): ' '.join([config, *flags, '| evaluate', *options])
    for row, (config, flags, evaluations) in rows.items()
    for result, options in evaluations.items()
  }
  named = f'{arguments.page}/{place.name}'
  known, others = {}, {}
  if arguments.out:
    known, others = records.load(records_path(arguments), named, settings)
  references = result_pages.REFERENCES[arguments.page]
  found = dict(known)
  for done in sorted(place.glob('*-*/DONE')):
    row, _, seed = done.parent.name.rpartition('-')
    if row not in rows or not seed.isdecimal():
      continue
    config, flags, evaluations = rows[row]
    flags = flags_of(arguments, flags, seed)
    error = difference(done.parent, config, flags)
    if error:
      logging.warning('left out: %s', error)
      continue
    reference = references.get(row)
    for result in evaluations:
      key = row, int(seed), result
      about = {'runs': named, 'settings': settings[row, result]}
      over = None
      if reference:
        column = result_text.column_of(arguments.page, result)
        over = reference, place / f'{reference}-{seed}', column
      one = records.make(about, key, done.parent, over)
      before = known.get(key, {})
      if one and before.get('accuracy') == one.get('accuracy'):
        one = before | one  # `over` stays where its other run is gone
      found |= {key: one} if one else {}
  return found, {key: others[key] for key in others.keys() - found.keys()}


def records_path(arguments):
  """Where the records of the page lie."""
  return str(pathlib.Path(arguments.out).with_suffix('.jsonl'))


def main():
  """Row after row, seed after seed; the page after each."""
  arguments = parse_arguments()
  try:
    run(arguments)
  except core.Error as error:
    fail(error)


def run(arguments):
  """As `main`; raises a `core.Error` where it cannot go on."""
  if arguments.out:
    path = pathlib.Path(arguments.out)
    if path.suffix != '.md':
      raise core.BadInput(f'--out={path}: expected a name that ends in .md')
    with storage.writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
  known, others = collect(arguments)
  if others:
    logging.warning('%d records are of other settings: not shown', len(others))
  rows = rows_of(arguments)
  for seed, row in order(arguments):
    evaluations = rows[row][2]
    workdir = folder(arguments) / f'{row}-{seed}'
    recorded = all((row, seed, each) in known for each in evaluations)
    if not (arguments.recorded and recorded and not workdir.exists()):
      train(arguments, row, seed)
      evaluate(arguments, workdir, evaluations)
    write(arguments)
  if not arguments.out:
    found, _ = collect(arguments)
    sys.stdout.write(result_text.page(arguments.page, rows, found))


def order(arguments):
  """(seed, row) pairs: all rows of a seed, then the next one."""
  if arguments.seeds:
    return [(seed, row) for seed in arguments.seeds for row in arguments.rows]
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
  found, others = collect(arguments)
  more = f' --target={arguments.target}' if arguments.target else ''
  if arguments.without:
    more += f' --without={",".join(arguments.without)}'
  head = (
    f'# Tables of the page {arguments.page}\n\n    python '
    f'launch/results.py --page={arguments.page} --out={arguments.out} \\\n'
    f'      --dataset={arguments.dataset} --data_dir=DIR{more}\n\n'
    'Mean +- 95% interval over test episodes; accuracy in %. Several seeds: '
    'mean, interval\nover seeds and episodes, and the mean of each seed.\n\n'
  )
  text = result_text.page(arguments.page, rows_of(arguments), found)
  records.write(records_path(arguments), found | others)
  storage.replace(arguments.out, (head + text).encode())


if __name__ == '__main__':
  main()
