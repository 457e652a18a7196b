"""Results pages: rows resolve, the page is made of records of runs."""

import json
import pathlib
import sys

import numpy as np
import pytest

from hyperudl import core
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics
from tests.testing import results as results_helper

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'launch'))

import page_runs  # noqa: E402
import records  # noqa: E402
import result_pages  # noqa: E402
import result_text  # noqa: E402
import results  # noqa: E402


def lines_of(arguments, word):
  """Lines of the page with a word."""
  text = result_text.page(
    arguments.page, page_runs.rows_of(arguments), results.collect(arguments)[0]
  )
  return [line for line in text.splitlines() if word in line]


def test_a_results_page_holds_what_there_is(tmp_path):
  for seed, right in ((0, 0.5), (1, 0.7)):
    accuracy = np.full(9, right)
    results_helper.finish(
      tmp_path, 'gradient', f'maml-{seed}', {'accuracy': accuracy}
    )
  (tmp_path / 'gradient' / 'omniglot' / 'maml-2').mkdir()  # interrupted
  (line,) = lines_of(results_helper.ask(tmp_path, 'gradient'), 'maml')
  # 1.96 s / sqrt(2) with s = .1 sqrt(2); 60 s and 120 / 2 s of training.
  assert line == '| maml | 60.0 +- 19.6 (50.0, 70.0) | yes | 180 | 2 |'


def run_page(monkeypatch, *asked):
  """The calls of `results.py`, which trains nothing here."""
  calls = []
  monkeypatch.setattr(
    page_runs, 'call', lambda *command, label: calls.append(command)
  )
  monkeypatch.setattr(sys, 'argv', ['results.py', *asked])
  results.main()
  return [call[0] for call in calls], calls


def test_results_stay_when_the_runs_are_gone(tmp_path, monkeypatch):
  """And with --recorded they are not trained again."""
  accuracy = {'accuracy': np.linspace(0, 1, 9)}
  run = results_helper.finish(tmp_path, 'semi', 'base-1layer-0', accuracy)
  out = tmp_path / 'tables' / 'semi.md'
  asked = ['--page=semi', '--dataset=omniglot', f'--out={out}']
  asked += ['--rows=base-1layer', f'--runs={tmp_path}']
  assert not run_page(monkeypatch, *asked)[0]
  page = out.read_text()
  assert '| base-1layer | 50.0 +- ' in page
  run.rename(tmp_path / 'elsewhere')
  assert not run_page(monkeypatch, *asked, '--recorded')[0]
  assert out.read_text() == page
  assert run_page(monkeypatch, *asked)[0] == ['train', 'evaluate']
  # What other rows start from is trained for them all the same.
  asked[-2] = '--rows=unlabelled-4-1layer'
  started, calls = run_page(monkeypatch, *asked, '--recorded')
  assert started == ['train', 'train', 'evaluate']
  base = f'{tmp_path}/semi/omniglot/base-1layer-0'
  assert f'--workdir={base}' in calls[0]
  assert f'--config.init_from.writer={base}' in calls[1]


def test_every_setting_of_guidance_has_a_line(tmp_path):
  steps = np.arange(9) / 10
  for name, result, accuracy in (
    ('multitask-0', 'wording-test', steps),
    ('hyperldm-0', 'wording-test', steps + 0.1),
    ('hyperldm-0', 'gamma4-wording-test', steps + 0.2),
    ('hyperldm-0', 'semantic-test', steps),
    ('hyperclip-0', 'retrieval-wording-test', steps),
  ):
    results_helper.finish(
      tmp_path,
      'guidance',
      name,
      {'accuracy': accuracy, 'retrieval': accuracy},
      result,
    )
  lines = lines_of(results_helper.ask(tmp_path, 'guidance'), '|')
  starts = [
    '| row | wording-test | semantic-test | transductive',
    '|---',
    '| multitask | 40.0 +- 17.9 |  |',
    '| hyperldm | 50.0 +- 17.9 | 40.0 +- 17.9 |',
    '| hyperldm, gamma4 | 60.0 +- 17.9 |  |',
    '| row | over | wording-test |',
    '|---',
    '| hyperldm | multitask | +10.0 +- 0.0 |',
    '| hyperldm, gamma4 | multitask | +20.0 +- 0.0 |',
    '| row | result | retrieval, % |',
    '|---',
    '| hyperclip | retrieval-wording-test | 40.0 +- 17.9 |',
  ]
  assert len(lines) == len(starts), lines
  for line, start in zip(lines, starts):
    assert line.startswith(start), line


def test_a_difference_stays_when_the_other_run_is_gone(tmp_path):
  names = 'unlabelled-0-1layer-0', 'unlabelled-4-1layer-0'
  folders = [
    results_helper.finish(
      tmp_path, 'semi', name, {'accuracy': np.arange(9) ** power / 64}
    )
    for power, name in enumerate(names, 1)
  ]
  arguments = results_helper.ask(
    tmp_path, 'semi', out=str(tmp_path / 'tables.md')
  )
  results.write(arguments)
  page = pathlib.Path(arguments.out).read_text()
  assert '| unlabelled-4-1layer | unlabelled-0-1layer | +' in page
  folders[0].rename(tmp_path / 'elsewhere')
  results.write(arguments)
  assert pathlib.Path(arguments.out).read_text() == page
  # A result without its episodes is none.
  (folders[1] / 'eval' / 'test_episodes.npz').unlink()
  results.write(arguments)
  assert pathlib.Path(arguments.out).read_text() == page


def test_records_of_other_runs_are_refused(tmp_path, monkeypatch, capsys):
  path = tmp_path / 'tables.jsonl'
  one = {'runs': 'semi/mnist', 'row': 'a', 'seed': 0, 'result': 'test'}
  one['settings'] = 'semi.py --x'
  path.write_text(json.dumps(one) + '\n')
  settings = {('a', 'test'): 'semi.py --x'}
  found = records.load(path, 'semi/mnist', settings)
  assert found == ({('a', 0, 'test'): one}, {})
  asked = ['--page=semi', '--dataset=omniglot']
  for out, words in (
    (path.with_suffix('.md'), 'of semi/mnist, not of semi/omniglot'),
    (path, 'expected a name that ends in .md'),
  ):
    with pytest.raises(SystemExit) as stopped:
      run_page(monkeypatch, *asked, f'--out={out}')
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
  path.write_text(json.dumps(one) + '\n{"row": "a", "seed"\n')
  with pytest.raises(core.BadInput, match=r'tables\.jsonl:2 is no record'):
    records.load(path, 'semi/mnist', settings)
  assert len(path.read_text().splitlines()) == 2


def test_records_and_runs_of_other_settings_are_left_out(tmp_path):
  run = results_helper.finish(
    tmp_path, 'semi', 'base-1layer-0', {'accuracy': np.ones(9)}
  )
  arguments = results_helper.ask(
    tmp_path, 'semi', out=str(tmp_path / 'tables.md')
  )
  results.write(arguments)
  (found,) = results.collect(arguments)[0].values()
  place = tmp_path / 'tables.jsonl'
  before = {**found, 'settings': 'of before'}
  place.write_text(json.dumps(before) + '\n')
  assert list(results.collect(arguments)[0].values()) == [found]  # of the run
  config = json.loads((run / 'config.json').read_text())
  config['steps'] = 7
  (run / 'config.json').write_text(json.dumps(config))
  assert not results.collect(arguments)[0]
  # They are not shown, and not lost either.
  results.write(arguments)
  assert 'base-1layer' not in pathlib.Path(arguments.out).read_text()
  assert json.loads(place.read_text()) == before


def test_differences_are_paired_with_the_row_of_the_same_seed(tmp_path):
  rng = np.random.default_rng(0)
  found = rng.uniform(size=(2, 2, 50))  # row, seed
  found[1] = found[0] + 0.1 + 0.01 * found[1]
  for seed in (0, 1):
    for row, name in enumerate(('unlabelled-0-1layer', 'unlabelled-4-1layer')):
      accuracy = {'accuracy': found[row, seed]}
      results_helper.finish(tmp_path, 'semi', f'{name}-{seed}', accuracy)
  (line,) = lines_of(
    results_helper.ask(tmp_path, 'semi'), '| unlabelled-0-1layer | +'
  )
  pairs = [statistics.paired_ci95(found[1, s], found[0, s]) for s in (0, 1)]
  mean, half = statistics.pooled_ci95(*zip(*pairs))
  each = ', '.join(f'{100 * pair[0]:+.1f}' for pair in pairs)
  assert line == (
    '| unlabelled-4-1layer | unlabelled-0-1layer '
    f'| {100 * mean:+.1f} +- {100 * half:.1f} ({each}) |'
  )
  assert half < 0.01 < statistics.mean_ci95(found[1, 0])[1]


@pytest.mark.parametrize(
  'said, paired',
  [
    ({}, True),
    ({'support_query': 'disjoint', 'augment': 'none'}, True),
    ({'support_query': 'joint'}, False),
    ({'augment': 'rot90'}, False),
    ({'shift': 'shear'}, False),
  ],
  ids=str,
)
def test_only_results_of_the_same_episodes_are_paired(tmp_path, said, paired):
  for name, more in (('one', {}), ('two', said)):
    row = {'accuracy': 0.5, 'episodes': 9, **more}
    values = {'accuracy': np.linspace(0, 1, 9)}
    metrics.write_evaluation(tmp_path / name, 'test', 1, row, values)
    (tmp_path / name / 'train.jsonl').write_text(
      json.dumps({'step': 1, 'time': 0.0, 'steps_per_second': 1.0}) + '\n'
    )
  about = {'runs': 'a', 'settings': 'b'}
  key = ('two', 0, 'test')
  other = 'one', tmp_path / 'one', 'test'
  one = records.make(about, key, tmp_path / 'two', other)
  assert ('over' in one) == paired


def test_scores_and_matrices_of_sequences(tmp_path):
  rng = np.random.default_rng(0)
  found = rng.uniform(0.1, 0.3, size=(2, 9))
  matrix = np.tril(rng.uniform(size=(2, 9, 3, 3)))
  for seed in (0, 1):
    values = {
      'accuracy': found[seed],
      'forgetting_class': found[seed],
      'matrix_class': matrix[seed],
    }
    results_helper.finish(
      tmp_path, 'continual', f'reset-{seed}', values, '10tasks-test'
    )
  arguments = results_helper.ask(tmp_path, 'continual')
  first, second, title = lines_of(arguments, 'reset')
  assert first == '| reset | yes | 180 | 2 |'
  cells = [statistics.mean_ci95(values) for values in found]
  mean, half = statistics.pooled_ci95(*zip(*cells))
  assert second.startswith('| reset | 10tasks-test |')
  assert f'| {100 * mean:.1f} +- {100 * half:.1f} (' in second
  assert title == '`reset`, 10tasks-test, class:'
  a = 100 * matrix.mean(axis=(0, 1))
  lines = lines_of(arguments, '| 2 |')
  (line,) = [line for line in lines if line.startswith('| 2 |')]
  assert line == f'| 2 | {a[1, 0]:.1f} | {a[1, 1]:.1f} |  |'


def test_what_hallucinations_are_like_stands_beside_accuracies(tmp_path):
  values = {'accuracy': np.linspace(0, 1, 9), 'purity': np.full(9, 0.25)}
  results_helper.finish(
    tmp_path, 'metric', 'hallucination-10-0', values, '1shot-test'
  )
  del values['purity']
  results_helper.finish(
    tmp_path, 'metric', 'protonet-5way-0', values, '1shot-test'
  )
  lines = lines_of(results_helper.ask(tmp_path, 'metric'), 'hallucination-10')
  assert lines[0].startswith('| hallucination-10 | 50.0 +- ')
  (second,) = [one for one in lines if '| 1shot-test |' in one]
  # Columns without a number are left out.
  assert second == '| hallucination-10 | 1shot-test | 0.250 +- 0.000 |'
  (first,) = lines_of(
    results_helper.ask(tmp_path, 'metric'), 'protonet-5way | 50'
  )
  assert first.startswith('| protonet-5way |')


def test_a_page_says_which_rows_its_command_leaves_out(tmp_path):
  values = {'accuracy': np.linspace(0, 1, 9)}
  results_helper.finish(
    tmp_path, 'metric', 'protonet-5way-0', values, '1shot-test'
  )
  out = tmp_path / 'page.md'
  command = []
  for without in ([], ['protonet-20way', 'protonet-dot-fixed']):
    results.write(
      results_helper.ask(tmp_path, 'metric', out=str(out), without=without)
    )
    command.append(out.read_text().split('\n\n')[1])
  assert command[1] == (
    f'{command[0]} --without=protonet-20way,protonet-dot-fixed'
  )


def test_rows_are_chosen_and_left_out(monkeypatch):
  def rows(*options):
    monkeypatch.setattr('sys.argv', ['results.py', '--page=metric', *options])
    return results.parse_arguments().rows

  known = list(result_pages.PAGES['metric']())
  assert rows() == rows('--without=') == known
  assert rows('--without=protonet-20way') == known[1:]
  chosen = '--rows=protonet-dot-fixed,protonet-5way'
  assert rows(chosen) == ['protonet-dot-fixed', 'protonet-5way']
  assert rows(chosen, '--without=protonet-5way') == ['protonet-dot-fixed']
  with pytest.raises(SystemExit) as error:
    rows('--without=protonet-6way')
  assert error.value.code == 2
