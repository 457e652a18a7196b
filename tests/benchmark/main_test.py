"""The benchmark command: its flags, and comparison with earlier lines."""

import json

import pytest

from hyperudl import core
from hyperudl.benchmark import timing
from tests.testing import runs

PROTONET = '--config=configs/protonet.py'


@pytest.mark.parametrize(
  'arguments,code,text',
  [
    (['--help'], 0, '--batches'),
    (['--filter=resnet'], 2, 'fits no row'),
    (['--repeats=0'], 2, 'repeats=0'),
    ([PROTONET, '--batches=1,no'], 2, 'takes numbers like 1,16'),
    ([PROTONET, '--calls=0'], 2, 'takes numbers like 1,16'),
    ([PROTONET, '--suite=metric'], 2, '--suite is for suites'),
    (['--devices=2'], 2, '--devices needs --config'),
    ([PROTONET, '--config.learner.wdith=3'], 2, 'no field'),
  ],
  ids=str,
)
def test_the_command_line_explains_itself(arguments, code, text):
  done = runs.call('benchmark', *arguments)
  assert done.code == code
  assert text in done.out + done.err
  assert 'Traceback' not in done.err


@pytest.mark.slow
def test_a_suite_and_a_config_print_lines_of_the_same_fields():
  lines = []
  for arguments in (
    ['--suite=metric', '--filter=conv4-8'],
    [
      *('--config=configs/protonet.py:tiny,way=3,query=2', '--batches=1'),
      *('--config.learner.channels=4,4', '--config.eval.batch=2'),
      f'--config.data.dir={runs.data_dir()}',
    ],
  ):
    done = runs.call('benchmark', *arguments, '--repeats=1')
    assert done.code == 0, done.err
    lines.append([json.loads(text) for text in done.out.splitlines()])
  suite, config = lines
  assert [line['devices'] for line in suite] == [1, 2]
  assert {line['precision'] for line in suite + config} == {'float32'}
  assert set(suite[0]) - set(config[0]) == {
    *('strategy', 'formulation', 'batch', 'peak_mb')
  }
  assert set(config[0]) - set(suite[0]) == {'config', 'processes'}


def test_lines_are_compared_with_those_of_the_same_row(tmp_path):
  file = tmp_path / 'before.jsonl'
  line = {'config': 'maml on glyphs', 'name': 'update 1', 'devices': 1}
  other = {**line, 'devices': 2}
  before = [{**line, 'episodes_per_second': 4.0}]
  file.write_text('\n'.join(json.dumps(row) for row in before) + '\n')
  read = timing.read_lines(file)
  after = timing.add_ratio({**line, 'episodes_per_second': 6.0}, read)
  assert after['ratio'] == 1.5
  other['episodes_per_second'] = 6.0
  assert timing.add_ratio(other, read) == other
  assert timing.read_lines('') == {}


@pytest.mark.parametrize('text', ['no json', '[1]', '{"name": "a"}', None])
def test_a_file_of_something_else_cannot_be_compared_with(tmp_path, text):
  file = tmp_path / 'before.jsonl'
  if text:
    file.write_text(text)
  with pytest.raises(core.BadInput, match='does not hold JSON lines'):
    timing.read_lines(file)
