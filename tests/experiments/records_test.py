"""Records of results: which are shown, paired, kept and refused."""

import json
import re

import numpy as np
import pytest

from experiments import evaluations
from experiments import records as records_lib
from experiments import run
from hyperudl import core
from tests.testing import results


def test_a_difference_stays_when_the_other_run_is_gone(tmp_path):
  out = tmp_path / 'tables.md'
  options = results.arguments(tmp_path, 'semi', f'--out={out}')
  names = 'unlabelled-0-1layer-0', 'unlabelled-4-1layer-0'
  folders = [
    results.finish(options, name, {'accuracy': np.arange(9) ** power / 64})
    for power, name in enumerate(names, 1)
  ]
  run.write(options)
  page = out.read_text()
  assert '| unlabelled-4-1layer | unlabelled-0-1layer | +' in page
  folders[0].rename(tmp_path / 'elsewhere')
  run.write(options)
  assert out.read_text() == page
  # A result without its episodes is none.
  (folders[1] / 'eval' / 'test_episodes.npz').unlink()
  run.write(options)
  assert out.read_text() == page


def test_records_of_other_runs_are_refused(tmp_path):
  path = tmp_path / 'tables.jsonl'
  record = {'runs': 'semi/mnist', 'row': 'a', 'seed': 0, 'result': 'test'}
  record['settings'] = 'semi.py --x'
  path.write_text(json.dumps(record) + '\n')
  settings = {('a', 'test'): {'settings': 'semi.py --x', 'config': '12'}}
  loaded = records_lib.load(path, 'semi/mnist', settings)
  assert loaded == ({('a', 0, 'test'): record}, {})
  options = results.arguments(
    tmp_path, 'semi', f'--out={path.with_suffix(".md")}'
  )
  with pytest.raises(
    core.BadInput, match='of semi/mnist, not of semi/omniglot'
  ):
    run.run(options)
  path.write_text(json.dumps(record) + '\n{"row": "a", "seed"\n')
  with pytest.raises(core.BadInput, match=r'tables\.jsonl:2 is no record'):
    records_lib.load(path, 'semi/mnist', settings)
  assert len(path.read_text().splitlines()) == 2


def test_records_and_runs_of_other_settings_are_left_out(tmp_path):
  out = tmp_path / 'tables.md'
  options = results.arguments(tmp_path, 'semi', f'--out={out}')
  folder = results.finish(options, 'base-1layer-0', {'accuracy': np.ones(9)})
  run.write(options)
  (record,) = run.collect(options)[0].values()
  place = out.with_suffix('.jsonl')
  # The same flags of a config file that has changed are other settings.
  for field in ('config', 'settings'):
    before = {**record, field: 'of before'}
    place.write_text(json.dumps(before) + '\n')
    others = run.collect(options)[1]
    assert not others  # the run's own replaces it
    assert list(run.collect(options)[0].values()) == [record]
    wanted = {(record['row'], record['result']): {field: record[field]}}
    assert list(
      records_lib.load(place, record['runs'], wanted)[1].values()
    ) == [before]
  config = json.loads((folder / 'config.json').read_text())
  config['steps'] = 7
  (folder / 'config.json').write_text(json.dumps(config))
  assert not run.collect(options)[0]
  # They are not shown, and not lost either.
  run.write(options)
  assert 'base-1layer' not in out.read_text()
  assert json.loads(place.read_text()) == before


ROWS = 'unlabelled-0-1layer', 'unlabelled-4-1layer'
PAIR = f'accuracy - {ROWS[0]}:accuracy'


def pair(tmp_path, others=None, **conditions):
  """The record of the second row, whose reference is the first, of seed 0."""
  options = results.arguments(tmp_path, 'semi')
  values = {'accuracy': np.linspace(0, 1, 9)}
  results.finish(options, f'{ROWS[0]}-0', values)
  values |= others or {}
  results.finish(options, f'{ROWS[1]}-0', values, **conditions)
  return run.collect(options)[0][ROWS[1], 0, 'test']


def test_a_difference_tells_its_number_of_pairs(tmp_path):
  record = pair(tmp_path, {'accuracy': np.linspace(0, 1, 9) ** 2})
  differences = np.linspace(0, 1, 9) ** 2 - np.linspace(0, 1, 9)
  np.testing.assert_allclose(record[PAIR], differences.mean(), atol=1e-5)
  assert record[f'{PAIR}_n'] == 9
  (line,) = results.lines_of(results.arguments(tmp_path, 'semi'), '1 x 9')
  assert line[:2] == [ROWS[1], ROWS[0]]


@pytest.mark.parametrize(
  'others, conditions, reason',
  [
    ({}, {'support_query': 'joint'}, 'support_query None and joint'),
    ({}, {'augment': 'rot90'}, 'augment None and rot90'),
    ({}, {'shift': 'shear'}, 'shift None and shear'),
    ({'episode': np.arange(9)[::-1]}, {}, r'other episodes \(9 and 9\)'),
    (
      {'episode': np.arange(5), 'accuracy': np.ones(5)},
      {},
      r'other episodes \(5 and 9\)',
    ),
  ],
  ids=str,
)
def test_only_results_of_the_same_episodes_are_paired(
  tmp_path, warnings, others, conditions, reason
):
  assert PAIR not in pair(tmp_path, others, **conditions)
  first, second = reason.split(' and ')
  assert any(
    re.search(f'not paired: .*{second}', line)
    or re.search(f'not paired: .*{first}', line)
    for line in warnings
  ), warnings


def test_results_are_paired_by_seed(tmp_path):
  """A reference that has another seed only is not subtracted."""
  options = results.arguments(tmp_path, 'semi')
  values = {'accuracy': np.linspace(0, 1, 9)}
  results.finish(options, f'{ROWS[0]}-1', values)
  for seed in (0, 1):
    results.finish(options, f'{ROWS[1]}-{seed}', values)
  records = run.collect(options)[0]
  assert PAIR not in records[ROWS[1], 0, 'test']
  assert records[ROWS[1], 1, 'test'][PAIR] == 0
  assert PAIR not in records[ROWS[1], records_lib.ALL, 'test']


def test_seeds_with_other_episodes_have_no_mean(tmp_path):
  options = results.arguments(tmp_path, 'semi')
  for seed in (0, 1):
    values = {'accuracy': np.ones(9), 'episode': np.arange(9) + seed}
    results.finish(options, f'{ROWS[0]}-{seed}', values)
  with pytest.raises(core.BadInput, match=r'seeds 0 and 1 .* other episodes'):
    run.collect(options)


@pytest.mark.parametrize(
  'line, reason',
  [
    ({'split': 'valid'}, 'split: valid -> test'),
    ({'checkpoint': 'best'}, 'checkpoint: best -> latest'),
    (
      {'overrides': {'eval.episodes': 600}},
      'eval.episodes: 600 -> 1000',
    ),
    (
      {'overrides': {'eval.episodes': 1000, 'data.shift': 'shear'}},
      "data.shift: shear -> the run's",
    ),
  ],
)
def test_an_evaluation_of_other_settings_is_named_and_left_out(
  tmp_path, warnings, line, reason
):
  options = results.arguments(tmp_path, 'semi')
  values = {'accuracy': np.ones(9)}
  workdir = results.finish(options, f'{ROWS[0]}-0', values)
  flags = ['--split=test', '--episodes=1000']
  assert evaluations.stale(workdir, 'test', flags) == ''
  assert run.collect(options)[0]
  results.finish(options, f'{ROWS[0]}-0', values, **line)
  assert evaluations.stale(workdir, 'test', flags) == reason
  assert not run.collect(options)[0]
  assert any(f'left out: test of {workdir}: {reason}' in w for w in warnings)


def test_an_evaluation_without_provenance_is_left_out(tmp_path):
  options = results.arguments(tmp_path, 'semi')
  workdir = results.finish(options, f'{ROWS[0]}-0', {'accuracy': np.ones(9)})
  line = evaluations.read_line(workdir, 'test')
  del line['overrides']
  with (workdir / 'eval' / 'test.jsonl').open('a') as file:
    file.write(json.dumps(line) + '\n')
  assert not run.collect(options)[0]
