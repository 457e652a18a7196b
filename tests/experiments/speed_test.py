"""All speeds: what is missing is measured, and the tables are printed."""

import json
import subprocess
import types

import pytest

from experiments import speed

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
def measured(tmp_path, monkeypatch, capsys):
  """A function of flags: the page, and the commands of the benchmarks."""
  commands = []

  def run(command, **unused):
    commands.append(command)
    line = LEARNER if '--suite' not in ' '.join(command) else FORMULATION
    out = f'[Gloo] connected\n{json.dumps(line)}\n'
    return types.SimpleNamespace(returncode=0, stdout=out)

  def call(*flags):
    commands.clear()
    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr('sys.argv', ['speed', '--learners=maml,udl', *flags])
    speed.main()
    cells = lambda line: [cell.strip() for cell in line.strip('|').split('|')]
    lines = capsys.readouterr().out.splitlines()
    return [cells(line) for line in lines], [' '.join(c) for c in commands]

  monkeypatch.chdir(tmp_path)
  return call


def test_every_program_is_measured_once_and_all_lines_are_in_tables(
  measured, tmp_path
):
  lines, first = measured()
  files = {path.stem for path in (tmp_path / 'runs' / 'speed').iterdir()}
  ways = ('devices', 'processes')
  pairs = [f'{name}-2{way}' for name in ('maml', 'protonet') for way in ways]
  assert files == {'meta-gradient', 'maml', 'udl', *pairs}
  update = ['maml on glyphs', 'update 1', '1', '1', '100.0', '10.00', '900']
  assert lines.count(update) == 6
  assert ['maml naive', 'vmap, naive', '1', '20.0', '1.0'] in [
    line[:5] for line in lines
  ]
  assert sum('distributed.sh' in command for command in first) == 2
  again, commands = measured()
  assert again == lines and not commands


def test_earlier_lines_are_compared_with(measured):
  measured()
  _, commands = measured('--compare=runs/speed', '--out=new', '--repeats=2')
  assert all('--compare=runs/speed/' in command for command in commands)
  assert all('--repeats=2' in command for command in commands)
  with pytest.raises(SystemExit):
    measured('--compare=runs/speed')


def test_an_accelerator_is_measured_where_there_is_one(measured, capsys):
  with pytest.raises(SystemExit) as stopped:
    measured('--accelerator')
  assert stopped.value.code == 2
  assert 'JAX finds no accelerator' in capsys.readouterr().err
  _, commands = measured('--accelerator', '--cpu', '--batches=1,4')
  assert '--suite=accelerator' in commands[0]
  assert '--batches=1,4 --calls=1,8,32' in commands[1]


def test_a_program_that_fails_ends_it(measured, monkeypatch, tmp_path):
  failed = types.SimpleNamespace(returncode=8, stdout='')
  options = speed.parse_arguments(['--out', str(tmp_path)])
  monkeypatch.setattr(subprocess, 'run', lambda *unused, **more: failed)
  with pytest.raises(SystemExit) as stopped:
    speed.measure('udl', ['-m', 'hyperudl.benchmark'], options)
  assert stopped.value.code == 8 and not list(tmp_path.iterdir())
