"""Arguments and finished runs of results pages."""

import argparse
import json
import pathlib

import numpy as np

from experiments import evaluations
from experiments import run
from experiments import tables
from experiments import trainings
from hyperudl.core import config as config_lib
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics


def arguments(tmp_path, page, *flags) -> argparse.Namespace:
  """Return the options of `experiments.run` with runs in `tmp_path`."""
  return run.parse_arguments([page, f'--runs={tmp_path}', *flags])


def finish(options, name, values, result='test', **line) -> pathlib.Path:
  """Make a finished run `ROW-SEED` with one result, and return its folder.

  Args:
    options: of the page.
    name: of the run.
    values: {score: per-episode array}; without any there is no result.
    result: name of the result of the page.
    **line: more of the line of the result.
  """
  workdir = trainings.folder(options) / name
  workdir.mkdir(parents=True, exist_ok=True)
  row, _, seed = name.rpartition('-')
  config = trainings.config_of(options, row, int(seed))
  (workdir / 'config.json').write_text(config_lib.to_json(config))
  (workdir / 'DONE').touch()
  steps = ((60, 1), (180, 2))
  (workdir / 'train.jsonl').write_text(
    ''.join(
      json.dumps({'step': step, 'steps_per_second': speed}) + '\n'
      for step, speed in steps
    )
  )
  if not values:
    return workdir
  flags = trainings.page_of(options).rows[row].evaluations[result]
  line = {'transductive': True, **evaluations.wanted(workdir, flags), **line}
  count = max(len(array) for array in values.values())
  values = {'episode': np.arange(count), **values}
  line['episodes'] = count
  for score, array in values.items():
    if np.ndim(array) == 1 and score != 'episode':
      line[score], line[f'{score}_ci95'] = statistics.mean_ci95(array)
  metrics.write_evaluation(str(workdir), result, 180, line, values)
  return workdir


def lines_of(options, word) -> list[list[str]]:
  """Return the lines of the page with a word, each as its cells."""
  text = tables.page_text(trainings.page_of(options), run.collect(options)[0])
  return [cells(line) for line in text.splitlines() if word in line]


def cells(line) -> list[str]:
  """Return the cells of a line of a table, whatever their width."""
  return [cell.strip() for cell in line.strip('|').split('|')]
