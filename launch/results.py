"""Trains and evaluates the rows of a results page; resumable.

  python launch/results.py --page=gradient --dataset=omniglot_background \
    --data_dir=DIR --seeds=0 --out=docs/results/gradient_tables.md

Pages and their rows: `result_pages.py`. What is finished is not repeated, and
the page is written anew after each row, so that it always holds what there is.
Rows that build on others come after them. --rows=NAME,NAME and --seeds choose;
--target=SET also tests on all classes of another set; --steps shortens every
training, for a trial. Runs lie in RUNS/PAGE/DATASET/ROW-SEED (DATASET-STEPS of
a trial).
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import result_pages

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # for configs

from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import metrics
from hyperudl import runs
from hyperudl import stats


def parse_arguments():
  """The options; ends with code 2 for a row that does not exist."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--page', required=True, choices=result_pages.PAGES)
  parser.add_argument('--dataset', default='omniglot')
  parser.add_argument('--data_dir', default='data_numpy_dir')
  parser.add_argument('--runs', default='runs', type=pathlib.Path)
  parser.add_argument('--target', default='', help='another set to test on')
  parser.add_argument('--rows', default='')
  parser.add_argument('--seeds', default='0')
  parser.add_argument('--steps', default=0, type=int)
  parser.add_argument('--out', default='', help='file; nothing: print it')
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


def read(workdir, name):
  """(the last line, per-episode arrays) of a result, or None."""
  path = workdir / 'eval' / f'{name}.jsonl'
  if not path.exists():
    return None
  with np.load(path.with_name(f'{name}_episodes.npz')) as arrays:
    return json.loads(path.read_text().splitlines()[-1]), dict(arrays)


def seconds(workdir):
  """Of training, without what lay between a stop and a resume."""
  rows = metrics.read_jsonl(workdir / 'train.jsonl')
  return stats.training_seconds(rows)[-1]


def over_seeds(results, score):
  """(mean, half width) of a number of every episode of some seeds."""
  found = [arrays[score] for _, arrays in results]
  count = min(len(values) for values in found)
  groups = results[0][1].get('group', np.arange(count))[:count]
  return stats.seeds_ci95(np.array([v[:count] for v in found]), groups)


def accuracy_cell(results):
  """'97.1 +- 0.3 (3 seeds)' of the results of some seeds."""
  mean, half = over_seeds(results, 'accuracy')
  seeds = f' ({len(results)} seeds)' if len(results) > 1 else ''
  return f'{100 * mean:.1f} +- {100 * half:.1f}{seeds}'


def page(arguments):
  """The page as text: accuracies, then the other scores of the page."""
  rows = rows_of(arguments)
  names = list(dict.fromkeys(n for row in rows.values() for n in row[2]))
  marker, scores = result_pages.SCORES[arguments.page]
  scored = [name for name in names if marker in name] if scores else []
  plain = [name for name in names if marker not in name or not scored]
  lines = [
    f'| {" | ".join(["row", *plain, "transductive", "updates", "minutes"])} |',
    '|---' * (len(plain) + 4) + '|',
  ]
  details = []
  for row in rows:
    done = [f.parent for f in folder(arguments).glob(f'{row}-[0-9]*/DONE')]
    folders = sorted(f for f in done if f.name.rpartition('-')[0] == row)
    found = {
      n: [r for f in folders if (r := read(f, n)) is not None] for n in names
    }
    if not any(found.values()):
      continue
    cells = [accuracy_cell(found[n]) if found[n] else '' for n in plain]
    first = next(results for results in found.values() if results)[0][0]
    minutes = np.mean([seconds(f) for f in folders]) / 60
    cells += ['yes' if first['transductive'] else 'no', str(first['step'])]
    lines.append(f'| {" | ".join([row, *cells, f"{minutes:.0f}"])} |')
    details += [
      score_line(row, n, found[n], scores) for n in scored if found[n]
    ]
  if details:
    lines += ['', '| row | result | ' + ' | '.join(scores.values()) + ' |']
    lines += ['|---' * (len(scores) + 2) + '|', *details]
  return '\n'.join(lines) + '\n'


def score_line(row, name, results, scores):
  """One line of the second table.

  What each episode has is summarised over seeds and episodes; what only all
  episodes together have (calibration) is the mean over seeds, with the mean of
  the intervals.
  """
  cells = []
  for score, title in scores.items():
    if score not in results[0][0]:
      cells.append('')
      continue
    scale, digits = (100, 1) if title.endswith('%') else (1, 3)
    if score in results[0][1]:
      mean, half = over_seeds(results, score)
    else:
      mean = np.mean([line[score] for line, _ in results])
      halves = [line.get(f'{score}_ci95') for line, _ in results]
      half = None if None in halves else np.mean(halves)
    text = f'{scale * mean:.{digits}f}'
    if half is not None:
      text += f' +- {scale * half:.{digits}f}'
    cells.append(text)
  return f'| {row} | {name} | {" | ".join(cells)} |'


def main():
  """Row after row, seed after seed; the page after each."""
  arguments = parse_arguments()
  rows = rows_of(arguments)
  for seed in arguments.seeds.split(','):
    for name in arguments.rows:
      config, flags, evaluations = rows[name]
      workdir = folder(arguments) / f'{name}-{seed}'
      train(arguments, workdir, config, flags, seed)
      evaluate(arguments, workdir, evaluations)
      if arguments.out:
        head = (
          f'# Tables of the page {arguments.page}\n\n    python '
          f'launch/results.py --page={arguments.page} --seeds=... \\\n'
          f'      --dataset={arguments.dataset} --data_dir=DIR\n\n'
          'Mean +- 95% interval over test episodes, with several seeds over '
          'seeds and\nepisodes; accuracy in %. Calibration: means over seeds, '
          'intervals over episodes.\n\n'
        )
        pathlib.Path(arguments.out).write_text(head + page(arguments))
  if not arguments.out:
    sys.stdout.write(page(arguments))


if __name__ == '__main__':
  main()
