"""Train and evaluate what is missing for a results page, and print it.

  python -m experiments.run gradient --dataset=omniglot_background \
    --data_dir=DIR --out=docs/results/tables/gradient-omniglot_background.md

Pages and their rows are in `experiments/pages/`. Finished work is not repeated:
the same command resumes where it stopped. The page is written anew after each
row, so that it always shows what has been measured. Its records are saved next
to it, in OUT with the ending .jsonl, a line for each result of each seed (see
`records.py`). The page is printed from them, also after the runs have been
deleted. Runs are in RUNS/PAGE/DATASET/ROW-SEED, those of a trial with --steps
in RUNS/PAGE/DATASET-STEPS/ROW-SEED; some pages share the runs of another one.

  python -m experiments.run film --dataset=glyphs --print \
    --out=docs/results/tables/film-glyphs.md

prints a page from its records and runs, and trains nothing.
"""

import argparse
import pathlib
import signal
import sys

from absl import logging

from experiments import jobs
from experiments import pages
from experiments import records as records_lib
from experiments import tables
from experiments import trainings
from hyperudl import core
from hyperudl.core import paths
from hyperudl.storage import filesystem

RETIRED = 'retired; see commit 6e0fc91 (v0-full)'


def _names(text):
  """Return the names in 'a,b'; none for ''."""
  return [part for part in text.split(',') if part]


def _numbers(text):
  return [int(part) for part in text.split(',')]


def _path(text):
  """Return a path of this machine, `~` expanded."""
  try:
    return pathlib.Path(paths.local(text)) if text else text
  except ValueError as error:
    raise argparse.ArgumentTypeError(f'{text!r}: {error}') from None


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m experiments.run',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('page', choices=pages.PAGES)
  add('--dataset', default='omniglot', help='a set, or a variant of a config')
  add('--data_dir', default='data_numpy_dir', type=_path)
  add('--target', default='', help='also test on all classes of this set')
  add('--runs', default='runs', type=_path, help='folder of all runs')
  add('--rows', default='', type=_names, help='NAME,NAME: only these rows')
  add('--without', default='', type=_names, help='NAME,NAME: not these rows')
  add('--seeds', default=[], type=_numbers, help="default: each row's own")
  add('--steps', default=0, type=int, help='shortens every training: a trial')
  add(
    '--out',
    default='',
    type=_path,
    help='file of the page, .md; default: print it',
  )
  add(
    '--recorded',
    action='store_true',
    help='do not train again what the records hold where its run is gone',
  )
  add('--print', action='store_true', help='print the page, train nothing')
  return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
  """Return the options; exit with code 2 for a row that does not exist."""
  parser = _parser()
  arguments = parser.parse_args(argv)
  page = pages.PAGES[arguments.page]
  if page.retired and not arguments.print:
    parser.error(
      f'page {arguments.page}: {RETIRED}; --print prints its records'
    )
  unknown = {*arguments.rows, *arguments.without} - set(page.rows)
  if unknown:
    parser.error(
      f'no rows {", ".join(sorted(unknown))} in {arguments.page}; there are '
      + ', '.join(page.rows)
    )
  if arguments.out and pathlib.Path(arguments.out).suffix != '.md':
    parser.error(f'--out={arguments.out}: expected a name that ends in .md')
  arguments.rows = [
    row for row in arguments.rows or page.rows if row not in arguments.without
  ]
  return arguments


def collect(arguments: argparse.Namespace) -> tuple[dict, dict]:
  """Return records of the page, and those of --out that it does not show.

  The first come from --out and from the runs that exist.
  """
  page, folder = trainings.page_of(arguments), trainings.folder(arguments)
  abouts = _abouts(arguments, page)
  source = f'{arguments.page}/{folder.name}'
  records, others = {}, {}
  if arguments.out:
    records, others = records_lib.load(_records_path(arguments), source, abouts)
  runs = records_lib.Runs(page, folder)
  seeds = {}
  for row, seed in _finished(arguments, page, folder):
    for result in page.rows[row].evaluations:
      about = {'runs': source, **abouts[row, result]}
      record = runs.record(about, (row, seed, result))
      if record is None:
        continue
      before = records.get((row, seed, result), {})
      if before.get('accuracy') == record.get('accuracy'):
        record = before | record  # keeps differences to runs that were deleted
      records[row, seed, result] = record
      seeds.setdefault((row, result), []).append(seed)
  for (row, result), several in seeds.items():
    if len(several) > 1:
      about = {'runs': source, **abouts[row, result]}
      record = runs.record_over_seeds(about, row, several, result)
      records[row, records_lib.ALL, result] = record
  return records, {key: others[key] for key in others.keys() - records.keys()}


def _abouts(arguments, page):
  """Return (row, result) -> what a record must agree with; {} for any."""
  if page.retired:
    return {}
  abouts = {}
  for name, row in page.rows.items():
    config = trainings.checksum(arguments, name)
    for result, flags in row.evaluations.items():
      text = ' '.join([row.config, *row.flags, '| evaluate', *flags])
      abouts[name, result] = {'settings': text, 'config': config}
  return abouts


def _finished(arguments, page, folder):
  """Yield (row, seed) of the page's finished runs; warn about other ones."""
  for done in sorted(folder.glob('*-*/DONE')):
    row, _, seed = done.parent.name.rpartition('-')
    if row not in page.rows or not seed.isdecimal() or page.retired:
      continue
    error = trainings.difference(arguments, row, int(seed))
    if error:
      logging.warning('left out: %s', error)
    else:
      yield row, int(seed)


def _records_path(arguments):
  """Return the file of the page's records."""
  return str(pathlib.Path(arguments.out).with_suffix('.jsonl'))


def run(arguments: argparse.Namespace) -> None:
  """Train and evaluate what is missing, then print or write the page.

  Raises:
    core.Error: something cannot be read, written or trained.
  """
  page = trainings.page_of(arguments)
  if arguments.print:
    records, _ = collect(arguments)
    sys.stdout.write(tables.page_text(page, records))
    return
  if arguments.out:
    path = pathlib.Path(arguments.out)
    with filesystem.writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
  records, others = collect(arguments)
  if others:
    logging.warning('%d records are of other settings: not shown', len(others))
  todo = trainings.jobs_of(arguments, records)
  left = set(todo)

  def done(name):
    left.discard(name)
    if not any(other[:2] == name[:2] for other in left):  # the row is complete
      write(arguments)

  try:
    jobs.run(todo, done)
  finally:
    write(arguments)
  if not arguments.out:
    sys.stdout.write(tables.page_text(page, collect(arguments)[0]))


def write(arguments: argparse.Namespace) -> None:
  """Write the page and its records, as far as they have been measured."""
  if not arguments.out:
    return
  records, others = collect(arguments)
  records_lib.write(_records_path(arguments), records | others)
  text = header(arguments)
  text += tables.page_text(trainings.page_of(arguments), records)
  filesystem.replace(arguments.out, text.encode())


def header(arguments: argparse.Namespace) -> str:
  """Return the first lines of a page: its title and its command."""
  more = f' --target={arguments.target}' if arguments.target else ''
  if arguments.without:
    more += f' --without={",".join(arguments.without)}'
  about = ''
  if pages.PAGES[arguments.page].retired:
    about = f'Its learner is {RETIRED}. Its records are printed by\n\n'
    more += ' --print'
  return (
    f'# Tables of the page {arguments.page}\n\n{about}    python -m '
    f'experiments.run {arguments.page} --out={arguments.out} \\\n'
    f'      --dataset={arguments.dataset} --data_dir=DIR{more}\n\n'
    'Mean +- 95% interval over test episodes; accuracy in %. Several seeds: '
    'mean, interval\nover seeds and episodes, and the mean of each seed.\n\n'
  )


def main() -> None:
  """Run the command line; SIGTERM and Ctrl-C also end the running job."""
  arguments = parse_arguments()
  signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
  try:
    run(arguments)
  except core.Error as error:
    sys.stderr.write(f'experiments: {error}\n')
    sys.exit(error.exit_code)
  except KeyboardInterrupt:
    sys.stderr.write('experiments: interrupted\n')
    sys.exit(130)


if __name__ == '__main__':
  main()
