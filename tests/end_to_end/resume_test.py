"""Killed, stopped and damaged runs end with the bits of an undisturbed run."""

import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.testing import runs


def kill_until_done(flags, workdir, kills, pause, seed):
  """Kill a run `kills` times at random moments, then let it end."""
  moments = random.Random(seed)
  for kill in range(kills):
    process = runs.start('train', *flags)
    if kill:
      # Every second one while steps are made and saved.
      before = runs.newest_step(workdir) if kill % 2 else -1
      runs.wait_for(lambda: runs.newest_step(workdir) > before, process)
      time.sleep(moments.uniform(0, pause))
    else:
      time.sleep(moments.uniform(0.5, 3))
    process.kill()
    assert runs.finish(process).code == -signal.SIGKILL
  return runs.call('train', *flags)


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
  workdir = tmp_path / 'run'
  flags = runs.tiny_flags(workdir)
  last = kill_until_done(flags, workdir, kills=2, pause=0.1, seed=0)
  assert last.code == 0
  assert (workdir / 'DONE').read_text() == f'{runs.STEPS}\n'
  assert runs.digest(workdir) == runs.digest(runs.finished_run())
  assert runs.logged_steps(workdir) == list(range(5, runs.STEPS + 1, 5))
  again = runs.call('train', *flags)
  assert again.code == 0
  assert runs.logged_steps(workdir) == list(range(5, runs.STEPS + 1, 5))


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2])
def test_twenty_kills_change_no_bit(tmp_path, seed):
  options = '--config.checkpoint_steps=5', f'--config.seed={seed}'
  flags = runs.tiny_flags(tmp_path / 'killed', *options, steps=1000)
  last = kill_until_done(flags, tmp_path / 'killed', 20, 0.5, seed)
  assert last.code == 0
  straight = runs.tiny_flags(tmp_path / 'straight', *options, steps=1000)
  assert runs.call('train', *straight).code == 0
  digests = {runs.digest(tmp_path / name) for name in ('killed', 'straight')}
  assert len(digests) == 1
  assert runs.logged_steps(tmp_path / 'killed') == list(range(5, 1001, 5))


@pytest.mark.slow
def test_a_stopped_run_saves_at_once_and_a_second_trainer_is_refused(tmp_path):
  flags = runs.tiny_flags(tmp_path / 'run')
  # Without periodic saves, what is saved is due to the signal.
  first = runs.start('train', *flags, '--config.checkpoint_steps=100000')
  tensorboard = tmp_path / 'run' / 'tb' / 'train'
  runs.wait_for(tensorboard.exists, first)
  first.send_signal(signal.SIGSTOP)  # holds the workdir for as long as we like
  second = runs.call('train', *flags)
  assert second.code == 6
  assert f'{tmp_path}/run is in use by process {first.pid}' in second.line
  first.send_signal(signal.SIGTERM)
  first.send_signal(signal.SIGCONT)
  ended = runs.finish(first)
  assert ended.code == 143
  assert ended.err.splitlines()[-1].startswith('train: stopped; ')
  assert 'Traceback' not in ended.err
  stopped = runs.newest_step(tmp_path / 'run')
  assert 0 < stopped < runs.STEPS
  assert runs.logged_steps(tmp_path / 'run')[-1] == stopped

  third = runs.start('train', *flags)
  runs.wait_for(lambda: runs.newest_step(tmp_path / 'run') > stopped, third)
  third.send_signal(signal.SIGINT)
  ended = runs.finish(third)
  assert ended.code == 130
  assert 'Traceback' not in ended.err
  stopped = runs.newest_step(tmp_path / 'run')
  assert runs.logged_steps(tmp_path / 'run')[-1] == stopped < runs.STEPS
  assert not (tmp_path / 'run' / 'DONE').exists()

  assert runs.call('train', *flags).code == 0
  assert runs.digest(tmp_path / 'run') == runs.digest(runs.finished_run())
  steps = runs.logged_steps(tmp_path / 'run')
  assert steps == sorted(set(steps)) and steps[-1] == runs.STEPS


@pytest.mark.slow
def test_a_run_stopped_between_calls_of_several_updates_ends_the_same(tmp_path):
  # Calls end where something is written; without it, at the signal alone.
  several = ('steps_per_call=4', 'checkpoint_steps=100000', 'log_steps=100000')
  several = [f'--config.{change}' for change in several]
  flags = runs.tiny_flags(tmp_path / 'run', *several)
  first = runs.start('train', *flags)
  runs.wait_for((tmp_path / 'run' / 'tb' / 'train').exists, first)
  first.send_signal(signal.SIGTERM)
  assert runs.finish(first).code == 143
  stopped = runs.newest_step(tmp_path / 'run')
  assert 0 < stopped < runs.STEPS and stopped % 4 == 0
  assert runs.logged_steps(tmp_path / 'run') == [stopped]
  assert runs.call('train', *flags).code == 0
  whole = runs.tiny_flags(tmp_path / 'whole', *several)
  assert runs.call('train', *whole).code == 0
  assert runs.digest(tmp_path / 'run') == runs.digest(tmp_path / 'whole')


def test_a_second_ctrl_c_ends_a_process_at_once():
  program = """
    import os, signal, time
    from hyperudl.core import cli
    stop = cli.Stop()
    stop.install()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.code == 130
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(100)
  """
  command = [sys.executable, '-c', textwrap.dedent(program)]
  ended = subprocess.run(command, capture_output=True, timeout=60)
  assert (ended.returncode, ended.stderr) == (130, b'')


def test_a_flipped_byte_costs_one_checkpoint_and_no_bit(tmp_path):
  workdir = runs.copy(runs.finished_run(), tmp_path / 'run')
  (workdir / 'DONE').unlink()
  previous, newest = runs.steps(workdir)[-2:]
  assert newest == runs.STEPS
  runs.flip_byte(workdir, newest)
  ended = runs.call('train', *runs.tiny_flags(workdir))
  assert ended.code == 0
  (warning,) = [line for line in ended.err.splitlines() if 'checksum' in line]
  assert f'checkpoints/{newest} cannot be read' in warning
  assert f'step {previous} of {newest}' in ended.err
  assert runs.digest(workdir) == runs.digest(runs.finished_run())
  assert runs.logged_steps(workdir) == list(range(5, runs.STEPS + 1, 5))


def test_without_a_readable_checkpoint_nothing_starts_anew(tmp_path):
  workdir = runs.copy(runs.finished_run(), tmp_path / 'run')
  for step in runs.steps(workdir):
    runs.flip_byte(workdir, step)
  files = sorted(workdir.rglob('*'))
  for main, flags in (
    ('train', runs.tiny_flags(workdir)),
    ('evaluate', [f'--workdir={workdir}', '--once']),
  ):
    ended = runs.call(main, *flags)
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert last.startswith(f'{main}: none of the checkpoints in {workdir}')
    assert 'Traceback' not in ended.err
  assert set(workdir.rglob('*')) - set(files) <= {workdir / '.lock'}
