"""Overrides in one process give what a process for each gives.

Guards: evaluate.py.
"""

import json

import numpy as np
import pytest

from tests.testing import runs

pytestmark = pytest.mark.slow  # an evaluation in a process for each override

LINES = {
  'test': [],
  'valid': ['--split=valid', '--step=best'],
  '2way-2shot-test': ['--way=2', '--shot=2'],
  'inverted-test': ['--config.data.shift=polarity', '--tag=inverted'],
  'shear-valid': [
    *('--config.data.shift=shear', '--config.episode.proportions=dirichlet'),
    *('--split=valid', '--tag=shear'),
  ],
  'scaled-test': [
    *('--config.learner.scale=3', '--save_predictions', '--episodes=7'),
    '--tag=scaled',
  ],
  'other-test': ['--dataset=other', f'--data_dir={runs.data_dir()}'],
  'ensemble-test': ['--step=best_ensemble', '--tag=ensemble'],
  'uncertainty-test': ['--uncertainty'],
}
BAD = {
  'flag': ('--tga=a', "Unknown command line flag 'tga'"),
  'flag of the command': ('--workdir=x', "Unknown command line flag 'workdir'"),
  'argument': ('shear', "unexpected argument 'shear'"),
  'value': ('--way=1', '--way=1'),
  'field': ('--tag=a --config.data.shfit=blur', "did you mean 'data.shift'?"),
  'no value': ('--tag=a --config.data.shift', '=VALUE'),
  'no tag': ('--config.data.shift=blur', '--tag=NAME'),
  'shift': ('--tag=a --config.data.shift=blurr', "unknown shift 'blurr'"),
  'learner': ('--tag=a --config.learner.scale=-1', 'scale'),
  'way': ('--way=7', 'takes 7 classes, there are 6'),
  'set': ('--dataset=othr', "Did you mean 'other'?"),
  'step': ('--step=last', '--step=last is neither'),
  'twice': ('--split=valid', "its result 'valid' is also that of"),
}


def evaluate(workdir, *flags):
  return [f'--workdir={workdir}', '--once', *flags]


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
  """Return folders of one process and of one for each, and all results."""
  folder = tmp_path_factory.mktemp('overrides')
  done = runs.finished_run()
  together, apart = (runs.copy(done, folder / n) for n in ('together', 'apart'))
  texts = {
    'all': '\n'.join(
      ' '.join(flags) or '--split=test' for flags in LINES.values()
    )
  }
  good = '--split=valid\n\n'
  texts |= {name: good + line for name, (line, _) in BAD.items()}
  texts['failing'] = (
    '--tag=wide --config.learner.channels=8,8\n--tag=after --way=2\n'
    '--tag=long --config.learner.channels=4,4,4'
  )
  commands = [evaluate(apart, *flags) for flags in LINES.values()]
  for name, text in texts.items():
    path = folder / f'{name.replace(" ", "_")}.txt'
    path.write_text(text)
    commands.append(evaluate(together, f'--overrides={path}'))
  commands.append(evaluate(together, f'--overrides={path}', '--tag=a'))
  commands.append([f'--workdir={together}', f'--overrides={path}'])
  results = runs.call_many('evaluate', commands)
  names = [*LINES, *texts, 'tagged', 'polling']
  return together, apart, dict(zip(names, results, strict=True))


@pytest.mark.parametrize('name', LINES)
def test_one_process_gives_the_results_of_one_for_each(evaluated, name):
  together, apart, done = evaluated
  assert done[name].code == done['all'].code == 0, done['all'].err
  ours, theirs = (
    (folder / 'eval' / f'{name}.jsonl').read_text().splitlines()
    for folder in (together, apart)
  )
  assert ours == theirs
  arrays = [
    np.load(folder / 'eval' / f'{name}_episodes.npz')
    for folder in (together, apart)
  ]
  assert set(arrays[0]) == set(arrays[1])
  for number in arrays[0]:
    np.testing.assert_array_equal(arrays[0][number], arrays[1][number])


@pytest.mark.parametrize('name', BAD)
def test_a_bad_line_is_named_before_anything_is_evaluated(evaluated, name):
  result = evaluated[2][name]
  assert result.code == 2, result.err
  assert f'{name.replace(" ", "_")}.txt:3: ' in result.line
  assert BAD[name][1] in result.line


def test_overrides_take_no_tag_for_all_and_need_once(evaluated):
  assert 'write --tag=NAME in its lines' in evaluated[2]['tagged'].line
  assert '--overrides needs --once' in evaluated[2]['polling'].line
  assert evaluated[2]['tagged'].code == evaluated[2]['polling'].code == 2


def test_a_failing_line_loses_no_other_result(evaluated):
  together, _, done = evaluated
  result = done['failing']
  assert result.code == 2
  errors = result.err.splitlines()
  assert sum('failing.txt:1: step 200 does not fit' in e for e in errors) == 2
  assert 'failing.txt:1: step 200 does not fit' in errors[-1]
  assert any('failing.txt:3: step 200 does not fit' in e for e in errors)
  (line,) = (together / 'eval' / 'after-test.jsonl').read_text().splitlines()
  assert json.loads(line)['overrides'] == {'episode.way': 2}
  assert not (together / 'eval' / 'wide-test.jsonl').exists()
