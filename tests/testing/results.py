"""Arguments and finished runs of results pages."""

import pathlib
import sys
import types

import numpy as np

from hyperudl.core import config as config_lib
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'launch'))

import page_runs  # noqa: E402


def ask(tmp_path, page, **changes):
  """Arguments as `results.parse_arguments` returns them."""
  values = dict(runs=tmp_path, dataset='omniglot', target='', steps=0, out='')
  values |= dict(page=page, recorded=False, data_dir='elsewhere', without=[])
  values |= dict(jobs=1)
  return types.SimpleNamespace(**(values | changes))


def finish(tmp_path, page, name, values, result='test', **line):
  """A finished run with one result."""
  run = tmp_path / page / 'omniglot' / name
  run.mkdir(parents=True, exist_ok=True)
  (run / 'DONE').touch()
  arguments = ask(tmp_path, page)
  row, _, seed = name.rpartition('-')
  config, flags, _ = page_runs.rows_of(arguments)[row]
  config = page_runs.config_of(
    config, page_runs.flags_of(arguments, flags, seed)
  )
  (run / 'config.json').write_text(config_lib.to_json(config))
  (run / 'train.jsonl').write_text(
    '{"step": 60, "steps_per_second": 1}\n'
    '{"step": 180, "steps_per_second": 2}\n'
  )
  row = {'transductive': True, **line}
  for score, array in values.items():
    if np.ndim(array) == 1:
      row[score], row[f'{score}_ci95'] = statistics.mean_ci95(array)
  metrics.write_evaluation(run, result, 180, row, values)
  return run
