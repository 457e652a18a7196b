"""The script of all speeds measures what is missing and prints the tables."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

WAYS = ('devices', 'processes')
ROOT = pathlib.Path(__file__).parents[2]
LEARNER = {
  'config': 'maml on glyphs',
  'devices': 1,
  'processes': 1,
  'name': 'update 1',
  'ms_per_call': 10.0,
  'episodes_per_second': 100.0,
  'share': 1.0,
  'gflops': None,
  'share_of_peak': None,
  'gemm_peak_gflops': 300.0,
  'peak_rss_mb': 900,
}
FORMULATION = {
  'name': 'maml naive',
  'strategy': 'vmap',
  'formulation': 'naive',
  'devices': 1,
  'batch': 4,
  'episodes_per_second': 20.0,
  'ms_per_episode': 50.0,
  'gflops': 3.0,
  'gemm_peak_gflops': 300.0,
  'share_of_peak': 0.01,
  'peak_mb': 200.0,
}


@pytest.fixture
def folder(tmp_path):
  """A copy of the script whose benchmarks print a line at once."""
  launch = tmp_path / 'launch'
  launch.mkdir()
  for name in ('speed.sh', 'speed_table.py', 'markdown_table.py'):
    (launch / name).write_text((ROOT / 'launch' / name).read_text())
  (tmp_path / 'learner').write_text(json.dumps(LEARNER) + '\n')
  (tmp_path / 'formulation').write_text(json.dumps(FORMULATION) + '\n')
  (launch / 'processes.sh').write_text('echo [Gloo] connected\ncat learner\n')
  (launch / 'setup.sh').write_text(
    'set -euo pipefail\nmake_environment() { :; }\n'
    'python() {\n  echo "$@" >> calls\n  case "$*" in\n'
    f'    *speed_table*) {sys.executable} "$@" ;;\n'
    '    *benchmark_learner*) cat learner ;;\n'
    '    *) cat formulation ;;\n  esac\n}\n'
  )
  return tmp_path


def call(folder, **variables):
  done = subprocess.run(
    ['bash', 'launch/speed.sh'],
    cwd=folder,
    env={**os.environ, 'LEARNERS': 'maml udl', **variables},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout, (folder / 'calls').read_text().splitlines()


def test_every_file_is_made_once_and_all_lines_are_in_the_tables(folder):
  text, first = call(folder)
  made = {path.stem for path in (folder / 'runs' / 'speed').iterdir()}
  pairs = [f'{n}-2{w}' for n in ('maml', 'protonet') for w in WAYS]
  assert made == {'meta-gradient', 'maml', 'udl', *pairs}
  assert text.count('| maml on glyphs | update 1 | 1 | 1 | 100.0 |') == 6
  assert '| maml naive | vmap, naive | 1 | 20.0 | 1.0 |' in text
  assert 'ratio to before' not in text
  again, calls = call(folder)
  assert again == text
  assert len(calls) == len(first) + 1  # the tables alone


def test_earlier_lines_are_compared_with(folder):
  call(folder)
  _, calls = call(folder, COMPARE='runs/speed', OUT='new', REPEATS='2')
  calls = [line for line in calls if '--compare' in line]
  assert len(calls) == 5  # two more are started by processes.sh
  assert all('--repeats=2' in line for line in calls)
  assert any('--compare=runs/speed/udl.jsonl' in line for line in calls)
