"""JSON lines, results of evaluations, and disks that refuse metrics."""

import contextlib
import errno
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.storage import metrics
from hyperudl.storage import tensorboard


@contextlib.contextmanager
def small_files():
  """While it lasts, no file of this process passes 4 kB.

  Not a fixture: pytest writes its report before fixtures end, and its own
  output may be a longer file.
  """
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_once_and_training_goes_on(tmp_path, warnings):
  writer = tensorboard.open_writer(tmp_path, 'train')
  log = metrics.TrainingLog(tmp_path / 'train.jsonl')
  log.append({'step': 0})
  images = np.random.default_rng(0).random((4, 32, 32, 3))
  with small_files():
    for step in range(1, 200):
      tensorboard.write_images(writer, step, 'x', images)
      log.append({'step': step, 'text': 'x' * 100})
    tensorboard.close_writer(writer)
  assert len(warnings) == 2, warnings  # TensorBoard, and the rows
  assert 'cannot write' in warnings[0] and 'cannot write' in warnings[1]
  rows = metrics.read_jsonl(tmp_path / 'train.jsonl')
  assert [row['step'] for row in rows] == list(range(len(rows)))
  assert (tmp_path / 'train.jsonl').read_bytes().endswith(b'}\n')


def test_after_a_full_disk_nothing_fails_when_the_process_ends(tmp_path):
  """What is buffered and cannot be written is dropped with the file."""
  code = """
import resource, sys
from hyperudl.storage import tensorboard
writer = tensorboard.open_writer(sys.argv[1], 'train')
writer.flush_seconds = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (10, -1))
tensorboard.write_scalars(writer, 1, {'loss': 1.0})
if sys.argv[2] == '10':  # else the flush has failed before
  tensorboard.close_writer(writer)
print('trained')
"""
  loud = ['-X', 'dev', '-W', 'ignore']  # tells what fails in a destructor
  for flush in ('-1', '10'):
    result = subprocess.run(
      [sys.executable, *loud, '-c', code, tmp_path, flush],
      capture_output=True,
      text=True,
      cwd=pathlib.Path(__file__).parents[2],
    )
    assert result.returncode == 0 and result.stdout == 'trained\n'
    assert 'going on without TensorBoard' in result.stderr
    assert result.stderr.count('\n') == 1


def test_a_folder_that_cannot_be_made_stops_no_run(tmp_path, warnings):
  (tmp_path / 'tb').write_text('a file')
  writer = tensorboard.open_writer(tmp_path, 'train')
  tensorboard.write_scalars(writer, 1, {'loss': 1.0})
  tensorboard.write_histogram(writer, 1, 'weights', [])
  metrics.TrainingLog(tmp_path / 'train.jsonl').append({'step': 1})
  tensorboard.close_writer(writer)
  assert len(warnings) == 1 and str(tmp_path / 'tb') in warnings[0]
  assert metrics.read_jsonl(tmp_path / 'train.jsonl') == [{'step': 1}]


def test_rows_are_strict_json(tmp_path):
  row = {
    'step': jnp.int32(3),
    'loss': np.float32(0.5),
    'nan': np.nan,
    'inf': jnp.float32(np.inf),
    'matrix': jnp.array([[1.0, np.nan], [2.0, 3.0]]),
    'nested': {'name': 'x', 'flag': np.bool_(True), 'none': None, 1: (2,)},
  }
  path = tmp_path / 'a.jsonl'
  metrics.append_jsonl(path, row)
  text = path.read_text()
  assert text.endswith('\n') and text.count('\n') == 1

  def refuse(word):
    raise AssertionError(f'{word} is not JSON')

  assert json.loads(text, parse_constant=refuse) == {
    'step': 3,
    'loss': 0.5,
    'nan': None,
    'inf': None,
    'matrix': [[1, None], [2, 3]],
    'nested': {'name': 'x', 'flag': True, 'none': None, '1': [2]},
  }


def test_rows_of_many_writers_do_not_mix(tmp_path):
  path = tmp_path / 'a.jsonl'

  def append(writer):
    for step in range(50):
      metrics.append_jsonl(path, {'writer': writer, 'step': step})

  threads = [threading.Thread(target=append, args=[w]) for w in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  rows = metrics.read_jsonl(path)
  assert sorted((row['writer'], row['step']) for row in rows) == [
    (writer, step) for writer in range(4) for step in range(50)
  ]


def test_a_line_cut_short_by_a_kill_spoils_no_other(tmp_path):
  path = tmp_path / 'a.jsonl'
  assert metrics.read_jsonl(path) == []
  path.write_text('{"step": 1}\n{"step": 2, "lo')
  assert metrics.read_jsonl(path) == [{'step': 1}]
  metrics.append_jsonl(path, {'step': 3})
  assert metrics.read_jsonl(path) == [{'step': 1}, {'step': 3}]


def test_a_resumed_run_has_each_step_once(tmp_path):
  path = tmp_path / 'train.jsonl'
  metrics.truncate_jsonl(path, 5)
  assert not path.exists()
  for step in (2, 4, 6, 8):
    metrics.append_jsonl(path, {'step': step, 'loss': 1 / step})
  path.write_bytes(path.read_bytes() + b'{"step": 10, "lo')
  metrics.truncate_jsonl(path, 4)
  assert metrics.read_jsonl(path) == [
    {'step': 2, 'loss': 0.5},
    {'step': 4, 'loss': 0.25},
  ]
  metrics.append_jsonl(path, {'step': 6})
  assert [row['step'] for row in metrics.read_jsonl(path)] == [2, 4, 6]


def test_an_evaluation_is_a_line_and_its_episodes(tmp_path):
  accuracy = np.random.default_rng(0).random(20)
  for step in (10, 20):
    metrics.write_evaluation(
      tmp_path,
      'glyphs-test',
      step,
      {'episodes': 20, 'accuracy': accuracy.mean(), 'half': math.nan},
      {'accuracy': jnp.asarray(accuracy + step)},
    )
  rows = metrics.read_jsonl(tmp_path / 'eval' / 'glyphs-test.jsonl')
  assert rows[1] == {
    'step': 20,
    'episodes': 20,
    'accuracy': accuracy.mean(),
    'half': None,
  }
  assert list(rows[0]) == ['step', 'episodes', 'accuracy', 'half']
  with np.load(tmp_path / 'eval' / 'glyphs-test_episodes.npz') as arrays:
    np.testing.assert_allclose(arrays['accuracy'], accuracy + 20, 1e-6)
    assert arrays['step'] == 20
  assert metrics.evaluated_steps(tmp_path, 'glyphs-test') == {10, 20}
  assert metrics.evaluated_steps(tmp_path, 'valid') == set()


@pytest.mark.parametrize('tag', ['', '../x', 'a/b', '.hidden', 'a b'])
def test_a_tag_is_a_name_not_a_path(tmp_path, tag):
  with pytest.raises(core.BadInput, match='tag'):
    metrics.write_evaluation(tmp_path, tag, 1, {}, {})
  assert os.listdir(tmp_path) == []


def test_results_that_cannot_be_written_are_an_error(tmp_path, monkeypatch):
  metrics.write_evaluation(tmp_path, 'test', 1, {'a': 1}, {'x': np.ones(2)})
  files = {p: p.read_bytes() for p in (tmp_path / 'eval').iterdir()}
  noise = np.random.default_rng(0).random(2000)
  path = tmp_path / 'eval' / 'test.jsonl'
  with (
    small_files(),
    pytest.raises(core.Unwritable, match=r'test_episodes.npz: File too'),
  ):
    metrics.write_evaluation(tmp_path, 'test', 2, {'a': 2}, {'x': noise})
  with small_files(), pytest.raises(core.Unwritable, match=r'test.jsonl: '):
    metrics.append_jsonl(path, {'t': 'x' * 9000})
  assert {p: p.read_bytes() for p in (tmp_path / 'eval').iterdir()} == files
  (tmp_path / 'file').write_text('')
  with pytest.raises(core.Unwritable) as raised:
    metrics.write_evaluation(tmp_path / 'file', 'test', 2, {}, {})
  assert os.strerror(errno.ENOTDIR) in str(raised.value)
