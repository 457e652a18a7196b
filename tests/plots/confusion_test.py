"""Confusions are counted by folder and label, from a file of predictions."""

import csv

import pytest

from hyperudl.plots import confusion
from tests.testing import errors
from tests.testing import runs

# path, label, unknown, error
ROWS = [
  ('q/ant/1.png', 'ant', '0', ''),
  ('q/ant/2.png', 'bee', '0', ''),
  ('q/ant/3.png', 'bee', '0', ''),
  ('q/bee/1.png', 'bee', '0', ''),
  ('q/bee/2.png', 'bee', '1', ''),
  ('q/elk/1.png', 'ant', '1', ''),
  ('q/ant/4.png', '', '', 'no image'),
]


@pytest.fixture
def write(tmp_path):
  def write(rows, classes=('ant', 'bee')):
    path = tmp_path / 'predictions.csv'
    with open(path, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file)
      names = [f'p:{name}' for name in classes]
      writer.writerow(['path', 'label', 'unknown', 'error', *names])
      writer.writerows([*row, *[0.5] * len(classes)] for row in rows)
    return path

  return write


def test_confusions_are_those_by_hand(write):
  counts, folders, labels = confusion.count(write(ROWS))
  assert folders == ['ant', 'bee', 'elk'] and labels == [
    'ant',
    'bee',
    'unknown',
  ]
  assert counts.tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]
  (axes,) = confusion.draw(write(ROWS)).axes
  assert axes.get_title() == '40.0% of 5 images correct'
  texts = [(*t.get_position(), int(t.get_text())) for t in axes.texts]
  assert (1, 0, 2) in texts and len(texts) == 5


def test_a_class_may_be_named_by_two_folders(write):
  rows = [('q/latin/a/1.png', 'latin/a', '0', ''), ('b.png', 'a', '0', '')]
  counts, folders, labels = confusion.count(write(rows, ('a', 'latin/a')))
  assert folders == ['latin/a', ''] and labels == ['a', 'latin/a']
  assert counts.tolist() == [[0, 1], [1, 0]]


def test_faults_are_refused(write, tmp_path):
  refuse = lambda *file: errors.refusal(confusion.draw, write(*file))
  assert 'no image is in a folder' in refuse(ROWS[5:])
  assert 'a label is none' in refuse(ROWS, ('ant',))
  assert 'columns are others' in refuse(ROWS, ())
  assert 'no such file' in errors.refusal(confusion.draw, tmp_path / 'nope')


def test_the_command_draws_beside_the_predictions(write, tmp_path):
  path = write(ROWS)
  commands = [
    ['--kind=confusion', f'--predictions={path}'],
    ['--kind=confusion', f'--workdir={tmp_path}'],
    ['--kind=curves', f'--predictions={path}'],
  ]
  done, *refused = runs.call_many('plots', commands)
  assert done.code == 0 and (tmp_path / 'confusion.png').exists(), done
  for result in refused:
    assert result.code == 2 and '--predictions' in result.err.splitlines()[-1]
