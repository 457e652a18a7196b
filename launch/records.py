"""Records of results: what a page is made of, also where the runs are gone.

A file of JSON lines, one for each result of each training seed: `runs` (page
and data set), `row`, `seed`, `result`, `settings` (config and flags of the
training and of the evaluation), `minutes` of training, and the line that
`hyperudl.evaluate` wrote (means over test episodes with their intervals).
Beside these `matrix_*`, means over episodes of what sequences of tasks have
([tasks, tasks]), and `over`: the paired difference to another row of the same
seed on the same episodes.
"""

import json
import pathlib

import numpy as np

from hyperudl import core
from hyperudl.evaluation import statistics
from hyperudl.storage import filesystem
from hyperudl.storage import metrics

# Of two results to be paired, with what older lines leave unsaid.
SAME = {
  'episodes': None,
  'shift': None,
  'proportions': None,
  'support_query': 'disjoint',
  'augment': 'none',
}


def load(path, runs, settings):
  """Two {(row, seed, result): record} of a file; empty where there is none.

  Args:
    path: str.
    runs: what the records must be of.
    settings: {(row, result): text} of the page.

  Returns:
    Those of the page, and those made with other settings or for another
    --target, which stay in the file until a run replaces them.

  Raises:
    core.BadInput: the file holds something else.
  """
  found, others = {}, {}
  lines = pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ''
  for number, line in enumerate(lines.splitlines(), 1):
    try:
      one = json.loads(line)
      key, named = (one['row'], one['seed'], one['result']), one['runs']
    except (ValueError, KeyError, TypeError):
      raise core.BadInput(
        f'{path}:{number} is no record of a result; restore or delete the file'
      ) from None
    if named != runs:
      raise core.BadInput(
        f'{path} has records of {named}, not of {runs}: choose another --out'
      )
    same = one.get('settings') == settings.get(key[::2], '')
    (found if same else others)[key] = one
  return found, others


def write(path, records):
  """Writes all of them, sorted; a kill leaves the former file or this one."""
  lines = [json.dumps(records[key]) + '\n' for key in sorted(records)]
  filesystem.replace(str(path), ''.join(lines).encode())


def make(about, key, workdir, reference=None):
  """The record of a result, or None where there is no such result.

  Args:
    about: {'runs': page and data set, 'settings': of row and result}.
    key: (row, seed, result).
    workdir: pathlib.Path of the run.
    reference: (row, workdir, result) whose accuracies are subtracted, or None;
      without such a result or with other episodes there is no difference.
  """
  line, arrays = _read(workdir, key[2])
  if line is None:
    return None
  rounded = lambda v: round(v, 5) if isinstance(v, float) else v
  record = {**about, **dict(zip(('row', 'seed', 'result'), key))}
  record['minutes'] = round(_seconds(workdir) / 60, 1)
  record |= {name: rounded(value) for name, value in line.items()}
  for name, array in arrays.items():
    if name.startswith('matrix_'):
      record[name] = np.round(array.mean(axis=0), 4).tolist()
  other, others = _read(*reference[1:]) if reference else (None, {})
  known = 'accuracy' in arrays and 'accuracy' in others
  told = lambda row: [row.get(name, value) for name, value in SAME.items()]
  if known and told(line) == told(other):
    difference = statistics.paired_ci95(
      arrays['accuracy'], others['accuracy'], arrays.get('group')
    )
    difference = [rounded(number) for number in difference]
    record['over'] = {'row': reference[0], 'accuracy': difference}
  return record


def _read(workdir, name):
  """(the last line or None, per-episode arrays) of a result."""
  path = workdir / 'eval' / f'{name}.jsonl'
  lines = metrics.read_jsonl(path)
  arrays = path.with_name(f'{name}_episodes.npz')
  if not lines or not arrays.exists():
    return None, {}
  with np.load(arrays) as found:
    return lines[-1], dict(found)


def _seconds(workdir):
  """Of training, without what lay between a stop and a resume."""
  rows = metrics.read_jsonl(workdir / 'train.jsonl')
  return statistics.training_seconds(rows)[-1]
