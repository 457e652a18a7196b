"""The trainings and evaluations of a results page, each on its own."""

import functools
import importlib
import pathlib
import re
import sys

import jobs
import result_pages

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # for configs

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.training import runs


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


def tasks_of(arguments, known):
  """{(row, seed) or (row, seed, result): jobs.Task} of what may be missing.

  One at a time a row is evaluated once it is trained. Of several at a time
  what others build on comes first, and then the rest of a seed row by row.
  Ends with code 2 where a finished run is of other settings.

  Args:
    arguments: of `results.py`.
    known: {(row, seed, result): ...}, with --recorded not done again where the
      run is gone.
  """
  tasks, rows = {}, rows_of(arguments)
  for place, (seed, row) in enumerate(order(arguments)):
    evaluations = rows[row][2]
    workdir = folder(arguments) / f'{row}-{seed}'
    recorded = all((row, seed, each) in known for each in evaluations)
    if arguments.recorded and recorded and not workdir.exists():
      continue
    _add_training(arguments, tasks, row, seed, (place,))
    for name, options in evaluations.items():
      work = functools.partial(evaluate, arguments, workdir, name, options)
      tasks[row, seed, name] = jobs.Task(work, {(row, seed)}, (place,))
  if arguments.jobs > 1:
    seeds = list(dict.fromkeys(seed for seed, _ in order(arguments)))
    return {name: _ranked(tasks, name, seeds) for name in tasks}
  return tasks


def _add_training(arguments, tasks, row, seed, rank):
  """One training, and before it what it builds on."""
  if (row, seed) in tasks:
    return
  finished(arguments, row, seed)
  flags = ' '.join(rows_of(arguments)[row][1])
  needs = set()
  for other in re.findall(r'{folder}/([\w-]+)-{seed}(?= |$)', flags):
    _add_training(arguments, tasks, other, seed, rank)
    needs.add((other, seed))
  work = functools.partial(train, arguments, row, seed)
  tasks[row, seed] = jobs.Task(work, needs, rank)


def _ranked(tasks, name, seeds):
  """The task with a rank: its seed, the length of what waits, its row."""

  def height(name):
    above = [n for n in tasks if len(n) == 2 and name in tasks[n].needs]
    return 1 + max(map(height, above)) if above else 0

  first = -height(name) if len(name) == 2 else 0
  rank = seeds.index(name[1]), first, tasks[name].rank
  return tasks[name]._replace(rank=rank)


def call(module, *options, label=''):
  """Runs one of the mains; ends with its exit code if it fails."""
  code = jobs.call(
    [sys.executable, '-m', f'hyperudl.{module}', *options], label
  )
  if code:
    sys.exit(code)


def finished(arguments, row, seed):
  """Whether a training is done.

  Ends with code 2 if the folder holds a finished run of other settings.
  """
  config, flags, _ = rows_of(arguments)[row]
  workdir = folder(arguments) / f'{row}-{seed}'
  if not (workdir / 'DONE').exists():
    return False
  error = difference(workdir, config, flags_of(arguments, flags, seed))
  if error:
    fail(error)
  return True


def train(arguments, row, seed):
  """One training, or nothing if it is done; ends as `finished` does."""
  if finished(arguments, row, seed):
    return
  config, flags, _ = rows_of(arguments)[row]
  workdir = folder(arguments) / f'{row}-{seed}'
  call(
    'train',
    f'--config=configs/{config}',
    f'--workdir={workdir}',
    f'--config.data.dir={arguments.data_dir}',
    *flags_of(arguments, flags, seed),
    label=workdir.name if arguments.jobs > 1 else '',
  )


def evaluate(arguments, workdir, name, options):
  """One result, unless it is there."""
  if (workdir / 'eval' / f'{name}.jsonl').exists():
    return
  call(
    'evaluate',
    f'--workdir={workdir}',
    '--once',
    f'--data_dir={arguments.data_dir}',
    *options,
    label=f'{workdir.name} {name}' if arguments.jobs > 1 else '',
  )
