"""Records of results: what a page is made of, also where the runs are gone.

A file of JSON lines, one for each result of each training seed: `runs` (page
and data set), `row`, `seed`, `result`, `minutes` of training, and the line that
`hyperudl.evaluate` wrote (means over test episodes with their intervals).
Beside these `matrix_*`, means over episodes of what sequences of tasks have
([tasks, tasks]), and `over`: the paired difference to another row of the same
seed on the same episodes.
"""

import json
import pathlib

import numpy as np

from hyperudl import core
from hyperudl import metrics
from hyperudl import stats
from hyperudl import storage


def load(path, runs):
  """{(row, seed, result): record} of a file; empty where there is none.

  Args:
    path: str.
    runs: what the records must be of.

  Raises:
    core.BadInput: the file holds something else.
  """
  found = {}
  lines = pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ''
  for number, line in enumerate(lines.splitlines(), 1):
    try:
      one = json.loads(line)
      found[one['row'], one['seed'], one['result']] = one
      named = one['runs']
    except (ValueError, KeyError, TypeError):
      raise core.BadInput(f'{path}:{number} is no record of a result') from None
    if named != runs:
      raise core.BadInput(
        f'{path} has records of {named}, not of {runs}: choose another --out'
      )
  return found


def write(path, records):
  """Writes all of them, sorted; a kill leaves the former file or this one."""
  lines = [json.dumps(records[key]) + '\n' for key in sorted(records)]
  storage.replace(str(path), ''.join(lines).encode())


def make(runs, row, seed, name, workdir, reference=None):
  """The record of a result, or None where there is no such result.

  Args:
    runs: page and data set.
    row: of the page.
    seed: int, of the training.
    name: of the result, for example 'test'.
    workdir: pathlib.Path of the run.
    reference: (row, workdir) whose accuracies are subtracted, or None; without
      such a result or with other episodes there is no difference.
  """
  line, arrays = _read(workdir, name)
  if line is None:
    return None
  record = {'runs': runs, 'row': row, 'seed': seed, 'result': name}
  record['minutes'] = round(_seconds(workdir) / 60, 1)
  rounded = lambda v: round(v, 5) if isinstance(v, float) else v
  record |= {key: rounded(value) for key, value in line.items()}
  for key, array in arrays.items():
    if key.startswith('matrix_'):
      record[key] = np.round(array.mean(axis=0), 4).tolist()
  own = arrays.get('accuracy')
  other = _read(reference[1], name)[1].get('accuracy') if reference else None
  if own is not None and other is not None and own.shape == other.shape:
    difference = stats.mean_ci95(own - other, arrays.get('group'))
    difference = [rounded(number) for number in difference]
    record['over'] = {'row': reference[0], 'accuracy': difference}
  return record


def _read(workdir, name):
  """(the last line or None, per-episode arrays) of a result."""
  path = workdir / 'eval' / f'{name}.jsonl'
  if not path.exists():
    return None, {}
  with np.load(path.with_name(f'{name}_episodes.npz')) as arrays:
    return metrics.read_jsonl(path)[-1], dict(arrays)


def _seconds(workdir):
  """Of training, without what lay between a stop and a resume."""
  rows = metrics.read_jsonl(workdir / 'train.jsonl')
  return stats.training_seconds(rows)[-1]
