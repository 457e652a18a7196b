"""Records of results: which are shown, paired, kept and refused."""

import json

import numpy as np
import pytest

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
  settings = {('a', 'test'): 'semi.py --x'}
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
  before = {**record, 'settings': 'of before'}
  place = out.with_suffix('.jsonl')
  place.write_text(json.dumps(before) + '\n')
  assert list(run.collect(options)[0].values()) == [record]  # of the run
  config = json.loads((folder / 'config.json').read_text())
  config['steps'] = 7
  (folder / 'config.json').write_text(json.dumps(config))
  assert not run.collect(options)[0]
  # They are not shown, and not lost either.
  run.write(options)
  assert 'base-1layer' not in out.read_text()
  assert json.loads(place.read_text()) == before


@pytest.mark.parametrize(
  'conditions, paired',
  [
    ({}, True),
    ({'support_query': 'disjoint', 'augment': 'none'}, True),
    ({'support_query': 'joint'}, False),
    ({'augment': 'rot90'}, False),
    ({'shift': 'shear'}, False),
  ],
  ids=str,
)
def test_only_results_of_the_same_episodes_are_paired(
  tmp_path, conditions, paired
):
  options = results.arguments(tmp_path, 'semi')
  values = {'accuracy': np.linspace(0, 1, 9)}
  names = {'unlabelled-0-1layer': {}, 'unlabelled-4-1layer': conditions}
  for name, more in names.items():
    results.finish(options, f'{name}-0', values, episodes=9, **more)
  record = run.collect(options)[0]['unlabelled-4-1layer', 0, 'test']
  assert ('accuracy - unlabelled-0-1layer:accuracy' in record) == paired
