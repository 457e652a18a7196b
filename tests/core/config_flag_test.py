"""Of repeated flags the last one wins, and errors are one useful line."""

import subprocess
import sys

import pytest

from hyperudl.core import config_flag
from tests.testing import runs

SHOW = """
import sys
from absl import flags
from hyperudl.core import cli
cli.define_config('A config.')
sys.argv[0] = 'train'
cli.run(lambda argv: print(
  flags.FLAGS.config.learner.channels, flags.FLAGS.config.steps))
"""


def show(*arguments):
  """Exit code and text of a command that prints two fields of its config."""
  done = subprocess.run(
    [sys.executable, '-c', SHOW, *arguments],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stdout.strip() or done.stderr.strip()


CONFIG = '--config=configs/protonet.py'


@pytest.mark.parametrize(
  'arguments, wanted',
  [
    (['--config.learner.channels=4,4', '--config.learner.channels=8,16'], 2),
    (['--config.learner.channels', '4', '--config.learner.channels=8,16'], 2),
    (['-config.learner.channels=4', '-config.learner.channels', '8,16'], 2),
  ],
)
def test_of_a_tuple_given_twice_the_last_wins(arguments, wanted):
  kept = config_flag.keep_last(
    ['train', CONFIG, *arguments, '--config.steps=3']
  )
  assert len(kept) in (4, 5)
  code, text = show(CONFIG, *arguments, '--config.steps=3')
  assert (code, text) == (0, '(8, 16) 3')


def test_of_a_config_file_given_twice_the_last_wins():
  kept = config_flag.keep_last(
    ['train', '--config=a.py', '--config.steps=3', '--config=b.py', '--x', '1']
  )
  assert kept == ['train', '--config=b.py', '--config.steps=3', '--x', '1']


def test_a_tuple_in_a_flag_file_is_replaced_by_the_command_line(tmp_path):
  path = tmp_path / 'flags'
  path.write_text('--config.learner.channels=4,4\n--config.steps=7\n')
  code, text = show(CONFIG, f'--flagfile={path}', '--config.learner.channels=8')
  assert (code, text) == (0, '(8,) 7')


def test_other_arguments_stay_in_order():
  argv = ['train', 'a', 'a', '--b=1', '--b=2', '--noconfig', '--', 'a']
  assert config_flag.keep_last(argv) == argv


def test_a_missing_flag_file_and_a_config_without_function_are_one_line(
  tmp_path,
):
  code, text = show(CONFIG, '--flagfile=/nonexistent')
  assert code == 2 and 'Unable to open flagfile' in text
  assert text.count('\n') == 0
  (tmp_path / 'plain.py').write_text('x = 1\n')
  code, text = show(f'--config={tmp_path}/plain.py')
  assert code == 2 and 'no function get_config()' in text
  assert text.count('\n') == 0


def test_configs_that_come_with_the_library_have_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = config_flag.config_folder()
  assert {'udl', 'protonet'} <= set(config_flag.config_names())
  assert 'common' not in config_flag.config_names()
  for given, expected in (
    (['--config=udl:glyphs,way=3'], [f'--config={folder}/udl.py:glyphs,way=3']),
    (['--config', 'udl'], ['--config', f'{folder}/udl.py']),
    (['-config=udl'], [f'-config={folder}/udl.py']),
    (['--config=mine/udl.py:a'], ['--config=mine/udl.py:a']),
    (['--config=no'], ['--config=no']),
    (['--config'], ['--config']),
    (
      ['--config.data.dataset=udl', 'udl'],
      ['--config.data.dataset=udl', 'udl'],
    ),
  ):
    assert config_flag.expand_names(given) == expected
  (tmp_path / 'udl').write_text('')  # a file of the user comes first
  assert config_flag.expand_names(['--config=udl']) == ['--config=udl']
