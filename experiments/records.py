"""Records of results, from which a page is printed even without its runs.

They are a file of JSON lines, one for each result of each training seed: `runs`
(page and data set), `row`, `seed`, `result`, `settings` (config and flags of
the training and of the evaluation), `config` (a checksum of what its config
changed of the defaults), `minutes` of training, and the line that
`hyperudl.evaluate` wrote (means over test episodes with their intervals). Added
to these are `matrix_*`, means over episodes of matrices [tasks, tasks] of
sequences of tasks; paired differences, such as `accuracy - maml:accuracy` (see
`page.Operand`), with their number of episodes in `SCORE_n`; and gains under one
family of shifts, whose names end in ` @ FAMILY`. One more line has the seed
`all`, lists its `seeds`, and has intervals over seeds and episodes.

Differences are paired by seed and episode: both results are of the same seed
and split, and have the same queries in the same order (`episode` in
`*_episodes.npz`, see `evaluator.fingerprint`). Others are not subtracted, and
the log says why. A stored evaluation that differs from what the page asks for
(see `evaluations.stale`) is not read.
"""

from collections.abc import Mapping
import json
import pathlib

from absl import logging
import numpy as np

from experiments import evaluations
from experiments import page as page_lib
from hyperudl import core
from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics
from hyperudl.storage import filesystem
from hyperudl.storage import metrics

ALL = 'all'  # in place of a seed
GAIN = 'accuracy - accuracy_unadapted'
# Fields in which two paired results must agree, beside their episodes.
_SAME = ('split', 'shift', 'proportions', 'support_query', 'augment')


def load(
  path: str, runs: str, wanted: Mapping[tuple[str, str], dict[str, str]]
) -> tuple[dict, dict]:
  """Return two dicts {(row, seed, result): record} of a file, empty if absent.

  Args:
    path: of the file.
    runs: page and data set that the records must be of.
    wanted: (row, result) -> `settings` and `config` of the page; empty: accept
      any. Records from before there was a checksum have none.

  Returns:
    The records of the page; and those made with other settings or for another
    --target, which stay in the file until a run replaces them.

  Raises:
    core.BadInput: the file holds something else.
  """
  records, others = {}, {}
  lines = pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ''
  for number, line in enumerate(lines.splitlines(), 1):
    try:
      record = json.loads(line)
      key = (record['row'], record['seed'], record['result'])
      stored = record['runs']
    except (ValueError, KeyError, TypeError):
      raise core.BadInput(
        f'{path}:{number} is no record of a result; restore or delete the file'
      ) from None
    if stored != runs:
      raise core.BadInput(
        f'{path} has records of {stored}, not of {runs}: choose another --out'
      )
    about = wanted.get(key[::2], {'settings': ''}) if wanted else {}
    fits = all(
      record.get(name, text if name == 'config' else '') == text
      for name, text in about.items()
    )
    (records if fits else others)[key] = record
  return records, others


def write(path: str, records: Mapping[tuple, dict]) -> None:
  """Write all records, sorted; a kill leaves the old file or the new one."""
  lines = [json.dumps(records[key]) + '\n' for key in ordered(records)]
  filesystem.replace(str(path), ''.join(lines).encode())


def ordered(records: Mapping[tuple, dict]) -> list[tuple]:
  """Return the keys by row, seed (`all` last) and result."""
  return sorted(records, key=lambda key: (key[0], str(key[1]), key[2]))


class Runs:
  """The evaluations of a page's runs in their folder."""

  def __init__(self, page: page_lib.Page, folder: pathlib.Path):
    self.page, self.folder = page, folder
    self._results = {}  # by row, seed and result

  def record(self, about: dict, key: tuple[str, int, str]) -> dict | None:
    """Return the record of one seed's result, or None where there is none.

    Args:
      about: `runs`, `settings` and `config` of the record.
      key: (row, seed, result).
    """
    line, arrays = self._read(*key)
    if line is None:
      return None
    record = {**about, **dict(zip(('row', 'seed', 'result'), key))}
    rows = metrics.read_jsonl(self._workdir(*key[:2]) / 'train.jsonl')
    # Without the time between a stop and a resume.
    seconds = statistics.training_seconds(rows)[-1]
    record['minutes'] = round(seconds / 60, 1)
    record |= {name: _rounded(value) for name, value in line.items()}
    for name, array in arrays.items():
      if name.startswith('matrix_'):
        record[name] = np.round(array.mean(axis=0), 4).tolist()
    for score in [*self.page.differences(key[0]), *self._gains(line, arrays)]:
      values = self._values(*key, score)
      if values is not None:
        interval = statistics.mean_ci95(values, arrays.get('group'))
        _add(record, score, interval)
        record[f'{score}_n'] = len(values)
      if values is not None and score == GAIN:
        record['wins'] = _rounded(float(np.mean(values > 0)))
        record['losses'] = _rounded(float(np.mean(values < 0)))
    return record

  def record_over_seeds(
    self, about: dict, row: str, seeds: list[int], result: str
  ) -> dict:
    """Return the record of several seeds, from all of their episodes."""
    record = {**about, 'row': row, 'seed': ALL, 'result': result}
    record['seeds'] = seeds
    line, arrays = self._read(row, seeds[0], result)
    for seed in seeds[1:]:
      other = self._read(row, seed, result)
      if reason := _mismatch((line, arrays), other):
        raise core.BadInput(
          f'seeds {seeds[0]} and {seed} of {row}, {result}, differ: {reason}; '
          'evaluate both again'
        )
    scores = [*self.page.scores, *self.page.differences(row), 'accuracy']
    for score in dict.fromkeys([*scores, *self._gains(line, arrays)]):
      values = [self._values(row, seed, result, score) for seed in seeds]
      if all(each is not None for each in values):
        values = np.stack(values)
        groups = arrays.get('group')
        _add(record, score, statistics.seeds_ci95(values, groups))
        record[f'{score}_n'] = values.shape[1]
    return record

  def _workdir(self, row, seed):
    return self.folder / f'{row}-{seed}'

  def _read(self, row, seed, result):
    """Return (the last line or None, per-episode arrays) of a result."""
    key = (row, seed, result)
    if key not in self._results:
      self._results[key] = self._load(*key)
    return self._results[key]

  def _load(self, row, seed, result):
    workdir = self._workdir(row, seed)
    line = evaluations.read_line(workdir, result)
    arrays = workdir / 'eval' / f'{result}_episodes.npz'
    if line is None or not arrays.exists():
      return None, {}
    flags = self.page.rows[row].evaluations[result]
    if reason := evaluations.stale(workdir, result, flags):
      logging.warning('left out: %s of %s: %s', result, workdir, reason)
      return None, {}
    with np.load(arrays) as stored:
      return line, dict(stored)

  def _gains(self, line, arrays):
    """Return the names of the gains by family, if there are several."""
    if not self.page.families or not {GAIN.split()[-1], 'family'} <= set(
      arrays
    ):
      return []
    families = dict.fromkeys(shifts.families(line['shift']))
    return [f'{GAIN} @ {name}' for name in families if len(families) > 1]

  def _values(self, row, seed, result, score):
    """Return f64[episodes] of a number or difference, or None without it."""
    score, _, family = score.partition(' @ ')
    number, other = page_lib.parse(score)
    _, arrays = self._read(row, seed, result)
    if number not in arrays:
      return None
    values = arrays[number].astype(np.float64)
    if other:
      subtracted = self._subtracted(row, seed, result, other)
      if subtracted is None:
        return None
      values = values - subtracted
    if family:
      values = values[arrays['family'] == shifts.family_index(family)]
    return values

  def _subtracted(self, row, seed, result, other):
    mine = key = (row, seed, result)
    if other.row:
      key = (other.row, seed, self.page.column_of(result))
      if key == (row, seed, result):
        return None  # itself
    line, arrays = self._read(*key)
    if other.number not in arrays:
      return None
    if reason := _mismatch(self._read(row, seed, result), (line, arrays)):
      names = (f'{name}-{number}, {of}' for name, number, of in (mine, key))
      logging.warning('not paired: %s and %s: %s', *names, reason)
      return None
    return arrays[other.number].astype(np.float64)


def _mismatch(one, other):
  """Return in words why two results (line, arrays) cannot be paired, or ''."""
  for name in _SAME:
    values = one[0].get(name), other[0].get(name)
    if values[0] != values[1]:
      return f'{name} {values[0]} and {values[1]}'
  episodes = one[1].get('episode'), other[1].get('episode')
  if any(each is None for each in episodes):
    return 'one does not say which episodes it is of'
  if not np.array_equal(*episodes):
    return f'other episodes ({len(episodes[0])} and {len(episodes[1])})'
  return ''


def _add(record, score, interval):
  record[score], record[f'{score}_ci95'] = map(_rounded, interval)


def _rounded(value):
  return round(value, 5) if isinstance(value, float) else value
