"""The tables of a results page hold the numbers of its records."""

import re

import numpy as np
import pytest

from experiments import run
from experiments import summary
from hyperudl.data.episodes import shifts
from hyperudl.evaluation import statistics
from hyperudl.storage import metrics
from tests.testing import results
from tests.testing import runs

STEPS = np.arange(9) / 10
TABLES = sorted((runs.ROOT / 'docs' / 'results' / 'tables').glob('*.md'))


@pytest.mark.parametrize('path', TABLES, ids=lambda path: path.stem)
def test_a_page_of_the_docs_is_the_print_of_its_records(path, capsys):
  text = path.read_text().replace('\\\n', ' ')
  command = re.search(r'^    python -m experiments\.run (.*)$', text, re.M)[1]
  flags = [flag for flag in command.split() if flag != '--print']
  out = f'--out={path}'
  flags = [out if f.startswith('--out=') else f for f in flags]
  run.run(run.parse_arguments([*flags, '--print', '--runs=/nonexistent']))
  assert path.read_text().endswith('\n\n' + capsys.readouterr().out)


def test_every_setting_of_guidance_has_a_line(tmp_path):
  options = results.arguments(tmp_path, 'guidance')
  for name, result, accuracy in (
    ('multitask-0', 'wording-test', STEPS),
    ('hyperldm-0', 'wording-test', STEPS + 0.1),
    ('hyperldm-0', 'gamma4-wording-test', STEPS + 0.2),
    ('hyperldm-0', 'semantic-test', STEPS),
    ('hyperclip-0', 'retrieval-wording-test', STEPS),
  ):
    values = {'accuracy': accuracy, 'retrieval': accuracy}
    results.finish(options, name, values, result)
  lines = [
    line for line in results.lines_of(options, '|') if ':--' not in line[0]
  ]
  starts = [
    ['row', 'wording-test', 'semantic-test', 'transductive'],
    ['multitask', '40.0 +- 21.1', ''],
    ['hyperldm', '50.0 +- 21.1', '40.0 +- 21.1'],
    ['hyperldm, gamma4', '60.0 +- 21.1', ''],
    ['row', 'over', 'wording-test'],
    ['hyperldm', 'multitask', '+10.0 +- 0.0'],
    ['hyperldm, gamma4', 'multitask', '+20.0 +- 0.0'],
    ['row', 'result', 'retrieval, %'],
    ['hyperclip', 'retrieval-wording-test', '40.0 +- 21.1'],
  ]
  assert len(lines) == len(starts), lines
  for line, start in zip(lines, starts):
    assert line[: len(start)] == start


def test_differences_are_paired_with_the_row_of_the_same_seed(tmp_path):
  options = results.arguments(tmp_path, 'semi')
  rng = np.random.default_rng(0)
  values = rng.uniform(size=(2, 2, 50))  # row, seed
  values[1] = values[0] + 0.1 + 0.01 * values[1]
  for seed in (0, 1):
    for row, name in enumerate(('unlabelled-0-1layer', 'unlabelled-4-1layer')):
      accuracy = {'accuracy': values[row, seed]}
      results.finish(options, f'{name}-{seed}', accuracy)
  *_, line = results.lines_of(options, 'unlabelled-4-1layer')
  differences = values[1] - values[0]
  mean, half = statistics.seeds_ci95(differences)
  each = ', '.join(f'{100 * each:+.1f}' for each in differences.mean(axis=1))
  cell = f'{100 * mean:+.1f} +- {100 * half:.1f} ({each})'
  assert line == ['unlabelled-4-1layer', 'unlabelled-0-1layer', cell, '2 x 50']
  assert half < 0.03 < statistics.mean_ci95(values[1, 0])[1]


def test_scores_and_matrices_of_sequences(tmp_path):
  options = results.arguments(tmp_path, 'continual')
  rng = np.random.default_rng(0)
  scores = rng.uniform(0.1, 0.3, size=(2, 9))
  matrix = np.tril(rng.uniform(size=(2, 9, 3, 3)))
  for seed in (0, 1):
    values = {
      'accuracy': scores[seed],
      'forgetting_class': scores[seed],
      'matrix_class': matrix[seed],
    }
    results.finish(options, f'reset-{seed}', values, '10tasks-test')
  first, second, title = results.lines_of(options, 'reset')
  assert first == ['reset', 'yes', '9', '180', '2']
  mean, half = statistics.seeds_ci95(scores)
  assert second[:2] == ['reset', '10tasks-test']
  assert second[2].startswith(f'{100 * mean:.1f} +- {100 * half:.1f} (')
  assert title == ['`reset`, 10tasks-test, class:']
  a = 100 * matrix.mean(axis=(0, 1))
  lines = [line for line in results.lines_of(options, '| ') if line[0] == '2']
  assert lines == [['2', f'{a[1, 0]:.1f}', f'{a[1, 1]:.1f}', '']]


def test_what_hallucinations_are_like_stands_beside_accuracies(tmp_path):
  options = results.arguments(tmp_path, 'metric')
  values = {'accuracy': np.linspace(0, 1, 9), 'purity': np.full(9, 0.25)}
  results.finish(options, 'hallucination-10-0', values, '1shot-test')
  del values['purity']
  results.finish(options, 'protonet-5way-0', values, '1shot-test')
  lines = results.lines_of(options, 'hallucination-10')
  assert lines[0][1].startswith('50.0 +- ')
  # Columns without a number are left out.
  expected = ['hallucination-10', '1shot-test', '0.250 +- 0.000']
  assert expected in lines
  assert results.lines_of(options, 'protonet-5way')[0][0] == 'protonet-5way'


def finish_variant(options, name, rng, adapted=True, shift='heldout'):
  """A run of `udl` with one result under a shift of several families."""
  unadapted = rng.uniform(0.2, 0.5, size=30)
  names = list(dict.fromkeys(shifts.families(shift)))
  numbers = [shifts.family_index(name) for name in names]
  values = {
    'accuracy_unadapted': unadapted,
    'accuracy_placebo': unadapted - 0.1,
    'accuracy_kmeans_0.5': unadapted + 0.05,
    'accuracy': unadapted + 0.2,
    'family': np.resize(numbers, 30),
  }
  if not adapted:
    del values['accuracy_unadapted'], values['accuracy_placebo']
  results.finish(
    options, name, values, 'shear-dirichlet-test', episodes=30, shift=shift
  )
  return unadapted


def test_variants_of_udl_are_compared_episode_by_episode(tmp_path):
  options = results.arguments(tmp_path, 'udl')
  rng = np.random.default_rng(0)
  accuracies = {
    (row, seed): finish_variant(options, f'{row}-{seed}', rng)
    for row in ('default', 'cluster_alone')
    for seed in (0, 1)
  }
  header, default, alone, families = (
    results.lines_of(options, 'unadapted')[0],
    *results.lines_of(options, 'shear-dirichlet-test |')[:2],
    results.lines_of(options, '| cluster_alone')[-1],
  )
  gain = '+20.0 +- 0.0 (+20.0, +20.0)'
  line = dict(zip(header, default))
  assert line['gain, %'] == gain
  assert line['over noise control, %'] == '+30.0 +- 0.0 (+30.0, +30.0)'
  assert line['over k-means 0.5, %'] == '+15.0 +- 0.0 (+15.0, +15.0)'
  assert line['over default, %'] == ''  # itself
  # Intervals over seeds are of all episodes.
  values = np.stack(
    [
      accuracies['cluster_alone', seed] - accuracies['default', seed]
      for seed in (0, 1)
    ]
  )
  mean, half = statistics.seeds_ci95(values)
  cell = dict(zip(header, alone))['over default, %']
  assert cell.startswith(f'{100 * mean:+.1f} +- {100 * half:.1f} (')
  # By family the gain is the same, in as many columns as there are families.
  count = len(set(shifts.families('heldout')))
  assert families == ['cluster_alone', *[gain] * count]


def test_the_inner_loop_has_a_table_of_its_own(tmp_path):
  options = results.arguments(tmp_path, 'udl')
  values = {
    'accuracy_unadapted': np.array([0.5, 0.5, 0.5, 0.5]),
    'accuracy_step_1': np.array([0.6, 0.4, 0.5, 0.7]),
    'accuracy': np.array([0.7, 0.4, 0.5, 0.8]),
    'inner_update_norm': np.full(4, 0.25),
    'weight_elbo': np.full(4, -0.125),
  }
  results.finish(options, 'default-0', values, 'none-dirichlet-test')
  header, line = (
    results.lines_of(options, word)[-1] for word in ('that lose', '| default')
  )
  line = dict(zip(header, line))
  assert line['episodes that gain, %'] == '50.0'
  assert line['that lose, %'] == '25.0'
  assert line['step 1, %'].startswith('55.0 +- ')
  assert line['length of all steps'] == '0.250 +- 0.000'
  assert line['weight of elbo'] == '-0.125 +- 0.000'
  assert 'weight of byol' not in line


def test_the_smallest_difference_is_that_to_the_best_reference(tmp_path):
  options = results.arguments(tmp_path, 'udl-distractors')
  values = {'accuracy': STEPS}
  result = 'none-dirichlet-test'
  results.finish(options, 'cluster_alone-0', {'accuracy': STEPS - 0.2}, result)
  for scale, behind in (('0.5', 0.15), ('1', 0.1), ('2', 0.3)):
    values[f'accuracy_kmeans_{scale}'] = STEPS - behind
  results.finish(options, 'default-0', values, result)
  (header,) = results.lines_of(options, 'best cluster-only')
  line = dict(zip(header, results.lines_of(options, '| default')[1]))
  assert line['over cluster_alone, %'].startswith('+20.0 +- ')
  cell = line['over the best cluster-only, %']
  assert cell == '+10.0 +- 0.0, accuracy_kmeans_1'


def test_networks_for_other_episodes_are_compared_with_their_own(tmp_path):
  options = results.arguments(tmp_path, 'udl-generated-for')
  for tag, accuracy in (('', STEPS), ('mean-', STEPS - 0.1)):
    values = {'accuracy': accuracy, 'accuracy_unadapted': accuracy / 2}
    result = f'{tag}none-dirichlet-test'
    results.finish(options, 'default-0', values, result, episodes=9)
  line = ['default, mean', 'default', '-10.0 +- 0.0', '1 x 9']
  assert line in results.lines_of(options, 'default, mean')
  (line,) = results.lines_of(options, 'mean-none-dirichlet-test')
  assert line[2:] == [
    '15.0 +- 10.5',
    '-5.0 +- 0.0',
    '30.0 +- 21.1',
    '-10.0 +- 0.0',
  ]


def test_results_of_one_run_are_printed_as_a_table(tmp_path, capsys):
  line = {'accuracy': 0.5, 'accuracy_ci95': 0.01, 'gain_step': 0.1}
  line |= {'gain_step_ci95': None, 'episodes': 9}
  metrics.write_evaluation(str(tmp_path), 'test', 8, line, {})
  summary.main(str(tmp_path))
  header, _, row = capsys.readouterr().out.splitlines()[-3:]
  assert results.cells(header) == [
    'result',
    'step',
    'episodes',
    'adapted',
    'gain',
  ]
  assert results.cells(row) == ['test', '8', '9', '50.0 +- 1.0', '10.0']
  with pytest.raises(SystemExit, match='no results in'):
    summary.main(str(tmp_path / 'elsewhere'))
