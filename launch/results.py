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
every training, for a trial. --jobs=2 trains and evaluates by two processes at a
time, each on half of the cores (its minutes are of these): small networks leave
cores idle. Runs lie in RUNS/PAGE/DATASET/ROW-SEED (DATASET-STEPS of a trial).
"""

import argparse
import os
import pathlib
import signal
import sys

from absl import logging
import jobs
import page_runs
import records
import result_pages
import result_text

from hyperudl import core
from hyperudl.storage import filesystem


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
  parser.add_argument('--jobs', default=1, type=int, help='processes at a time')
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


def collect(arguments):
  """Records of the page, and others of --out that it does not show.

  Those of the page are of --out and of the runs that there are.
  """
  place = page_runs.folder(arguments)
  rows = page_runs.rows_of(arguments)
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
    flags = page_runs.flags_of(arguments, flags, seed)
    error = page_runs.difference(done.parent, config, flags)
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
  """What is missing, then the page; on SIGTERM what runs is ended too."""
  arguments = parse_arguments()
  signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
  try:
    run(arguments)
  except core.Error as error:
    page_runs.fail(error)
  except KeyboardInterrupt:
    sys.stderr.write('results: interrupted\n')
    sys.exit(130)


def run(arguments):
  """As `main`; raises a `core.Error` where it cannot go on."""
  if arguments.out:
    path = pathlib.Path(arguments.out)
    if path.suffix != '.md':
      raise core.BadInput(f'--out={path}: expected a name that ends in .md')
    with filesystem.writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
  known, others = collect(arguments)
  if others:
    logging.warning('%d records are of other settings: not shown', len(others))
  if arguments.jobs > 1:  # each would take most of an accelerator
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

  def done(name, left):
    if not any(other[:2] == name[:2] for other in left):  # of this row
      write(arguments)

  try:
    jobs.run(page_runs.tasks_of(arguments, known), arguments.jobs, done)
  finally:
    write(arguments)
  if not arguments.out:
    found, _ = collect(arguments)
    rows = page_runs.rows_of(arguments)
    sys.stdout.write(result_text.page(arguments.page, rows, found))


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
  text = result_text.page(arguments.page, page_runs.rows_of(arguments), found)
  records.write(records_path(arguments), found | others)
  filesystem.replace(arguments.out, (head + text).encode())


if __name__ == '__main__':
  main()
