"""The evaluator beside a trainer, restarted, stopped and run by hand."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from hyperudl.storage import selection
from tests.testing import runs

FIELDS = {
  'step',
  'episodes',
  'accuracy',
  'accuracy_ci95',
  'ece',
  'accuracy_pixels',
  'accuracy_pixels_ci95',
  'nll',
  'nll_ci95',
  'transductive',
  'shift',
  'proportions',
  'support_query',
  'augment',
  'split',
  'checkpoint',
  'overrides',
}


def test_beside_a_trainer_each_checkpoint_is_evaluated_once():
  workdir = runs.finished_run()
  for split in ('valid', 'test'):
    rows = runs.results(workdir, split)
    steps = [row['step'] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == runs.STEPS
    assert all(set(row) == FIELDS for row in rows)
    for row in rows:
      assert 0 <= row['accuracy'] <= 1 and row['accuracy_ci95'] > 0
      assert (row['episodes'], row['transductive']) == (20, True)
    with np.load(workdir / 'eval' / f'{split}_episodes.npz') as arrays:
      assert int(arrays['step']) == runs.STEPS
      assert arrays['accuracy'].shape == (20,)
      assert np.isclose(arrays['accuracy'].mean(), rows[-1]['accuracy'])
      assert 'probabilities' not in arrays


def test_numbers_are_shown_before_they_are_written_and_out_takes_them(
  tmp_path,
):
  workdir = runs.copy(runs.finished_run(), tmp_path / 'run')
  shutil.rmtree(workdir / 'eval')
  (workdir / 'eval').write_text('a file, which stops the superuser too')
  once = f'--workdir={workdir}', '--once'
  failed = runs.call('evaluate', *once)
  *_, shown, last = failed.err.splitlines()
  assert failed.code == 5 and 'Traceback' not in failed.err
  assert 'test step 200:  accuracy' in shown and '(20 episodes)' in shown
  assert last.startswith('evaluate: cannot write') and '--out' in last
  written = runs.call('evaluate', *once, f'--out={tmp_path / "out"}')
  assert written.code == 0, written.err
  (row,) = runs.results(tmp_path / 'out', 'test')
  assert f'accuracy {100 * row["accuracy"]:.2f}' in shown
  assert (tmp_path / 'out' / 'eval' / 'test_episodes.npz').exists()


def test_the_best_checkpoints_by_valid_accuracy_stay():
  workdir = runs.finished_run()
  rows = runs.results(workdir, 'valid')
  ranked = sorted(rows, key=lambda row: (-row['accuracy'], row['step']))
  best = selection.best_steps(workdir)
  assert best == [row['step'] for row in ranked[:2]]
  assert runs.steps(workdir)[-1] == runs.STEPS
  assert len(runs.steps(workdir)) == 3


def test_tensorboard_has_the_curves_and_pictures_of_a_run():
  events = {}
  for name in ('train', 'eval'):
    path = str(runs.finished_run() / 'tb' / name)
    events[name] = event_accumulator.EventAccumulator(path)
    events[name].Reload()
  losses = [event.step for event in events['train'].Scalars('loss')]
  assert losses == runs.logged_steps(runs.finished_run())
  rows = runs.results(runs.finished_run(), 'test')
  accuracies = events['eval'].Scalars('test/accuracy')
  assert [event.step for event in accuracies] == [row['step'] for row in rows]
  values = [row['accuracy'] for row in rows]
  assert np.allclose([event.value for event in accuracies], values)
  picture = events['eval'].Images('episode/support')[-1]
  assert (picture.step, picture.height) == (runs.STEPS, 14)
  assert picture.width == 14 * 3


def test_a_restarted_evaluator_adds_nothing_and_stops_promptly(tmp_path):
  workdir = runs.copy(runs.finished_run(), tmp_path / 'run')
  (workdir / 'DONE').unlink()
  before = {p: p.read_bytes() for p in (workdir / 'eval').iterdir()}
  events = lambda: len(list((workdir / 'tb' / 'eval').iterdir()))
  evaluator = runs.start('evaluate', f'--workdir={workdir}')
  runs.wait_for(lambda: events() == 2, evaluator)
  second = runs.call('evaluate', f'--workdir={workdir}')
  assert second.code == 6
  assert f'in use by process {evaluator.pid}' in second.line
  assert evaluator.poll() is None
  start = time.monotonic()
  evaluator.send_signal(signal.SIGTERM)
  ended = runs.finish(evaluator)
  assert ended.code == 143
  assert time.monotonic() - start < 10
  assert ended.line == 'evaluate: stopped; the same command goes on\n'
  after = {p: p.read_bytes() for p in (workdir / 'eval').iterdir()}
  assert after == before


GOOD = {
  'latest': [],
  'number': ['--step=190', '--tag=number'],
  'best': ['--step=best', '--split=valid', '--tag=best'],
  'ensemble': ['--step=best_ensemble', '--save_predictions', '--tag=ensemble'],
  'size': ['--way=2', '--shot=2'],
  'set': ['--dataset=other', f'--data_dir={runs.data_dir()}', '--episodes=7'],
  'shift': ['--config.data.shift=polarity', '--tag=inverted'],
  'all': ['--split=all', '--config.eval.episodes=3'],
}

BAD = {
  'no tag': (['--once', '--config.data.shift=polarity'], '--tag=NAME'),
  'typo': (
    ['--once', '--tag=a', '--config.data.shfit=blur'],
    "no field 'data.shfit'; did you mean 'data.shift'?",
  ),
  'no value': (['--once', '--tag=a', '--config.data.shift'], '=VALUE'),
  'type': (['--once', '--tag=a', '--config.episode.shot=x'], 'expected a int'),
  'range': (
    ['--once', '--tag=a', '--config.episode.shot=-1'],
    'below its minimum',
  ),
  'word for a step': (['--once', '--step=last'], '--step=last is neither'),
  'no such step': (['--once', '--step=7'], "no checkpoint '7'"),
  'split': (['--once', '--split=tset'], '--split=tset'),
  'episodes': (['--once', '--episodes=0'], '--episodes=0'),
  'way': (['--once', '--way=7'], 'takes 7 classes, there are 6'),
  'set': (['--once', '--dataset=othr'], "Did you mean 'other'?"),
  'tag': (['--once', '--tag=a/b'], "tag 'a/b-test' names a file"),
  'polling a tag': (['--tag=a'], '--tag needs --once'),
  'polling a step': (['--step=best'], '--step needs --once'),
  'polling an override': (['--config.data.shift=none'], 'needs --once'),
  'argument': (['--once', 'test'], "unexpected argument 'test'"),
}


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
  """Return a copy of the run, and the result by name of GOOD and BAD."""
  folder = tmp_path_factory.mktemp('evaluated')
  workdir = runs.copy(runs.finished_run(), folder / 'run')
  commands = [[f'--workdir={workdir}', '--once', *f] for f in GOOD.values()]
  commands += [[f'--workdir={workdir}', *flags] for flags, _ in BAD.values()]
  commands += [[f'--workdir={folder}/nowhere', '--once']]
  done = runs.call_many('evaluate', commands)
  return workdir, dict(zip([*GOOD, *(f'bad {b}' for b in BAD), 'none'], done))


@pytest.mark.parametrize('name', BAD)
def test_a_bad_flag_is_refused_in_one_line(evaluated, name):
  result = evaluated[1][f'bad {name}']
  assert result.code == 2
  assert BAD[name][1] in result.line
  assert result.line.startswith('evaluate: ')


def test_a_folder_without_a_run_is_refused(evaluated):
  workdir, done = evaluated
  assert done['none'].code == 2
  assert 'no run in' in done['none'].line
  assert not (workdir.parent / 'nowhere').exists()


def test_each_kind_of_evaluation_has_a_result_file_of_its_own(evaluated):
  workdir, done = evaluated
  for name in GOOD:
    assert done[name].code == 0, done[name].err
  polled = runs.results(runs.finished_run(), 'test')
  rows = runs.results(workdir, 'test')
  # The same numbers as the poller's, one line more.
  assert rows == [*polled, {**polled[-1], 'checkpoint': 'latest'}]
  assert [row['checkpoint'] for row in polled] == [
    str(row['step']) for row in polled
  ]
  (number,) = runs.results(workdir, 'number-test')
  assert number['step'] == 190
  valid = {r['step']: r for r in runs.results(runs.finished_run(), 'valid')}
  (best,) = runs.results(workdir, 'best-valid')
  highest = max(valid.values(), key=lambda r: (r['accuracy'], -r['step']))
  assert best == {**highest, 'checkpoint': 'best'}
  (size,) = runs.results(workdir, '2way-2shot-test')
  assert size['accuracy'] >= 0.4  # of 2 classes
  (other,) = runs.results(workdir, 'other-test')
  assert other['episodes'] == 7
  (shifted,) = runs.results(workdir, 'inverted-test')
  assert shifted['shift'] == 'polarity'
  assert shifted['accuracy'] != rows[-1]['accuracy']
  (everything,) = runs.results(workdir, 'all')
  assert everything['episodes'] == 3


def test_an_ensemble_averages_the_best_checkpoints(evaluated):
  workdir, _ = evaluated
  (row,) = runs.results(workdir, 'ensemble-test')
  assert row['ensemble'] == selection.best_steps(workdir)
  assert row['step'] == row['ensemble'][0]
  with np.load(workdir / 'eval' / 'ensemble-test_episodes.npz') as arrays:
    p, y = arrays['probabilities'], arrays['y']
  assert p.shape == (20, 6, 3) and np.allclose(p.sum(axis=-1), 1, atol=1e-5)
  accuracy = (p.argmax(axis=-1) == y).mean()
  assert np.isclose(accuracy, row['accuracy'])


def test_results_are_lines_of_json():
  text = (runs.finished_run() / 'eval' / 'test.jsonl').read_text()
  for line in text.splitlines():
    json.loads(line, parse_constant=lambda name: 1 / 0)
