"""The trainings and evaluations of a results page, as jobs."""

import argparse
import functools
import hashlib
import importlib
import json
import pathlib
import shlex
import sys
import tempfile

from absl import logging
from ml_collections import config_dict

from configs import common
from experiments import evaluations
from experiments import jobs
from experiments import page as page_lib
from experiments import pages
from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.storage import filesystem
from hyperudl.training import setup

EVALUATIONS = 'evaluations'  # in the names of jobs


def page_of(arguments: argparse.Namespace) -> page_lib.Page:
  """Return the page with the names of its data sets filled in."""
  page = pages.PAGES[arguments.page]
  return page_lib.fill(page, arguments.dataset, arguments.target)


def folder(arguments: argparse.Namespace) -> pathlib.Path:
  """Return the folder of the page's runs on this data set."""
  trial = f'-{arguments.steps}' if arguments.steps else ''
  name = pages.PAGES[arguments.page].folder or arguments.page
  return arguments.runs / name / f'{arguments.dataset}{trial}'


def order(arguments: argparse.Namespace) -> list[tuple[int, str]]:
  """Return (seed, row) pairs: all rows of a seed, then the next one."""
  rows = pages.PAGES[arguments.page].rows
  if arguments.seeds:
    return [(seed, row) for seed in arguments.seeds for row in arguments.rows]
  return [
    (seed, row)
    for seed in range(max(rows[row].seeds for row in arguments.rows))
    for row in arguments.rows
    if seed < rows[row].seeds
  ]


def config_of(
  arguments: argparse.Namespace, row: str, seed: int
) -> config_dict.ConfigDict:
  """Return the config of one training."""
  name, _, variant = page_of(arguments).rows[row].config.partition('.py:')
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  with config.unlocked():
    for flag in _flags(arguments, row, seed):
      field, _, text = flag.removeprefix('--config.').partition('=')
      config_lib.set_field(config, field, text)
  return config


def checksum(arguments: argparse.Namespace, row: str) -> str:
  """Return a checksum of what a training's config changes of the defaults.

  Seed, folders and what may change in a run that goes on are not in it.
  """
  config = config_of(arguments, row, seed=0)
  defaults = common.base(config.learner.name)
  apart = ('seed', 'init_from.', *setup.RESUMABLE)
  changed = {
    name: value
    for name, (value, _) in config_lib.differences(config, defaults).items()
    if not name.startswith(apart)
  }
  text = json.dumps(changed, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(
  arguments: argparse.Namespace, row: str, seed: int
) -> core.BadInput | None:
  """Return the error that says how a run's config differs from the page's."""
  workdir = folder(arguments) / f'{row}-{seed}'
  try:
    config = config_of(arguments, row, seed)
    stored = setup.read_config(workdir)
    with config.unlocked():
      for name, path in stored.init_from.items():
        # The folder of all runs may have been moved.
        wanted = config.init_from.get(name, '')
        if pathlib.Path(path).name == pathlib.Path(wanted).name:
          config.init_from[name] = path
    setup.check_workdir(config, workdir)
  except core.BadInput as error:
    return error
  return None


def set_aside(workdir: pathlib.Path, reason: str) -> None:
  """Rename a run that is to be trained again, and those that start from it.

  Args:
    workdir: of the run; another page's runs may lie beside it.
    reason: in words, for the log.

  Raises:
    core.Busy: another process trains it.
  """
  taken = len(list(workdir.parent.glob(f'{workdir.name}.stale-*')))
  place = workdir.with_name(f'{workdir.name}.stale-{taken + 1}')
  logging.warning(
    'stale: %s: %s; kept as %s, trained again', workdir, reason, place.name
  )
  with filesystem.acquire_lock(workdir):
    workdir.rename(place)
  for other in sorted(workdir.parent.glob('*/config.json')):
    if '.stale-' in other.parent.name or not other.exists():
      continue
    upstreams = json.loads(other.read_text()).get('init_from', {}).values()
    if workdir.name in {pathlib.Path(path).name for path in upstreams}:
      set_aside(other.parent, f'it starts from {workdir.name}')


def jobs_of(
  arguments: argparse.Namespace, records: dict[tuple, dict]
) -> dict[tuple, jobs.Job]:
  """Return jobs for the trainings and evaluations that may be missing.

  Args:
    arguments: of `run.py`.
    records: (row, seed, result) -> record; with --recorded these are not
      measured again if the run has been deleted.

  Returns:
    (row, seed) or (row, seed, EVALUATIONS) -> job, all rows of a seed first; a
    row is evaluated once it is trained. Runs of other settings are set aside.
  """
  made, rows = {}, page_of(arguments).rows
  for seed, row in order(arguments):
    evaluations = rows[row].evaluations
    workdir = folder(arguments) / f'{row}-{seed}'
    recorded = all((row, seed, name) in records for name in evaluations)
    if arguments.recorded and recorded and not workdir.exists():
      continue
    _add_training(arguments, made, row, seed)
    if evaluations:
      work = functools.partial(_evaluate, arguments, workdir, evaluations)
      made[row, seed, EVALUATIONS] = jobs.Job(work, {(row, seed)})
  return made


def _add_training(arguments, made, row, seed):
  """Add the job of a training, and before it those that it starts from."""
  if (row, seed) in made:
    return
  workdir = folder(arguments) / f'{row}-{seed}'
  upstream = page_lib.upstream_rows(page_of(arguments).rows[row])
  for other in upstream:
    _add_training(arguments, made, other, seed)
  if (workdir / 'config.json').exists():
    error = difference(arguments, row, seed)
    if error:
      set_aside(workdir, str(error))
  work = functools.partial(_train, arguments, row, seed)
  made[row, seed] = jobs.Job(work, {(other, seed) for other in upstream})


def _flags(arguments, row, seed):
  """Return the flags of one training."""
  flags = pages.PAGES[arguments.page].rows[row].flags
  steps = [f'--config.steps={arguments.steps}'] if arguments.steps else []
  return [
    f'--config.seed={seed}',
    *[flag.format(folder=folder(arguments), seed=seed) for flag in flags],
    *steps,
  ]


def _train(arguments, row, seed):
  """Train one row, unless it is done."""
  if (folder(arguments) / f'{row}-{seed}' / 'DONE').exists():
    return
  call(
    'train',
    f'--config=configs/{page_of(arguments).rows[row].config}',
    f'--workdir={folder(arguments) / f"{row}-{seed}"}',
    f'--config.data.dir={arguments.data_dir}',
    *_flags(arguments, row, seed),
  )


def _evaluate(arguments, workdir, wanted):
  """Make the results of a run that do not exist as asked for, in one process.

  Args:
    arguments: of `run.py`.
    workdir: of the run.
    wanted: name of a result -> flags.
  """
  lines = [
    shlex.join([f'--data_dir={arguments.data_dir}', *flags])
    for name, flags in wanted.items()
    if _is_missing(workdir, name, flags)
  ]
  if not lines:
    return
  with tempfile.NamedTemporaryFile('w', suffix='.txt') as file:
    file.write(''.join(f'{line}\n' for line in lines))
    file.flush()
    where = f'--workdir={workdir}', '--once'
    call('evaluate', *where, f'--overrides={file.name}')


def _is_missing(workdir, name, flags):
  """Return whether there is no such result, or another one of that name."""
  if not (workdir / 'eval' / f'{name}_episodes.npz').exists():
    return True
  reason = evaluations.stale(workdir, name, flags)
  if reason:
    logging.warning('stale: %s of %s: %s', name, workdir, reason)
  return bool(reason)


def call(module: str, *flags: str) -> None:
  """Run a command of hyperudl; exit with its code if it fails."""
  code = jobs.call([sys.executable, '-m', f'hyperudl.{module}', *flags])
  if code:
    sys.exit(code)
