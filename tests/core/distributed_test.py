"""A run on several processes or devices equals one on a single device."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.storage import serialization
from tests.testing import runs

STEPS = 20
LONG = 400
SELDOM = ('--config.log_steps=100', '--config.checkpoint_steps=200')
BATCH = ('--config.batch=4',)
# Float32 sums in another order.
CLOSE = {'rtol': 2e-3, 'atol': 2e-5}


def variables_of(count):
  """Return the variables of `count` processes of one run, primary first."""
  with contextlib.closing(socket.socket()) as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [
    dict(zip(distributed.VARIABLES, (f'127.0.0.1:{port}', str(count), str(i))))
    for i in range(count)
  ]


def start_two(main, *flags):
  """Start a command in two processes of one run, the primary one first."""
  return [runs.start(main, *flags, variables=v) for v in variables_of(2)]


def finish(started):
  return [runs.finish(process) for process in started]


def devices(count):
  """Return variables that make one process of any command have devices."""
  flag = f'--xla_force_host_platform_device_count={count}'
  return {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flag}'}


def flags(workdir, *more, steps=STEPS):
  """Return the flags of a small run whose batch two processes can divide."""
  return runs.tiny_flags(workdir, *BATCH, *more, steps=steps)


def assert_close(workdir, other):
  """Assert that parameters, logged losses and steps of two runs agree."""
  states = [selection.restore_step(w, 'latest')[0] for w in (workdir, other)]
  first, second = (
    serialization.name_leaves(state['params']) for state in states
  )
  assert list(first) == list(second)
  for name, leaf in first.items():
    np.testing.assert_allclose(leaf, second[name], **CLOSE, err_msg=name)
  logs = [metrics.read_jsonl(w / 'train.jsonl') for w in (workdir, other)]
  steps, losses = (
    [[row[name] for row in log] for log in logs] for name in ('step', 'loss')
  )
  assert steps[0] == steps[1]
  np.testing.assert_allclose(*losses, rtol=1e-3)


def assert_near(workdir, other):
  """Assert that the last losses agree, of runs in which rounding has grown."""
  losses = [
    metrics.read_jsonl(w / 'train.jsonl')[-1]['loss'] for w in (workdir, other)
  ]
  assert runs.newest_step(workdir) == runs.newest_step(other) == LONG
  np.testing.assert_allclose(*losses, rtol=0.05)


def wait_for_step(workdir, step):
  end = time.monotonic() + runs.SECONDS
  while runs.newest_step(workdir) < step:
    assert time.monotonic() < end
    time.sleep(0.05)


@pytest.fixture(scope='module')
def single(tmp_path_factory):
  """A run and its evaluation on one device of one process."""
  workdir = tmp_path_factory.mktemp('single') / 'run'
  assert runs.call('train', *flags(workdir)).code == 0
  evaluated = runs.call('evaluate', f'--workdir={workdir}', '--once')
  assert evaluated.code == 0, evaluated.err
  return workdir


@pytest.fixture(scope='module')
def long(tmp_path_factory):
  """A run of one process that takes long enough to be disturbed."""
  workdir = tmp_path_factory.mktemp('long') / 'run'
  trained = runs.call('train', *flags(workdir, *SELDOM, steps=LONG))
  assert trained.code == 0, trained.err
  return workdir


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """The same run and evaluation on two processes."""
  workdir = tmp_path_factory.mktemp('pair') / 'run'
  for result in finish(start_two('train', *flags(workdir))):
    assert result.code == 0, result.err
  once = start_two('evaluate', f'--workdir={workdir}', '--once')
  for result in finish(once):
    assert result.code == 0, result.err
  return workdir


def test_processes_exchange_numbers_errors_and_arrays():
  command = [sys.executable, '-m', 'tests.testing.two_processes']
  for result in finish([runs.launch(command, v) for v in variables_of(2)]):
    assert result.code == 0, result.err


@pytest.mark.slow
def test_two_processes_train_as_one(single, pair):
  assert_close(single, pair)
  assert runs.steps(single) == runs.steps(pair)
  assert (pair / 'DONE').read_text() == f'{STEPS}\n'
  assert len(list((pair / 'tb' / 'train').iterdir())) == 1


@pytest.mark.slow
def test_two_processes_evaluate_as_one(single, pair):
  first, second = runs.results(single, 'test'), runs.results(pair, 'test')
  assert len(first) == len(second) == 1  # one of them writes
  assert first[0]['episodes'] == second[0]['episodes'] == 20
  np.testing.assert_allclose(
    first[0]['accuracy'], second[0]['accuracy'], atol=0.02
  )
  arrays = [np.load(w / 'eval' / 'test_episodes.npz') for w in (single, pair)]
  # The same episodes in the same order.
  for name in ('accuracy_pixels', 'family'):
    np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
  np.testing.assert_allclose(arrays[0]['nll'], arrays[1]['nll'], **CLOSE)


@pytest.mark.parametrize('count', [2, 4])
@pytest.mark.slow
def test_several_devices_of_one_process_change_nothing(single, count, tmp_path):
  workdir = tmp_path / 'run'
  for main, options in (
    ('train', flags(workdir)),
    # 20 episodes in parts of 10 are no multiple of 4.
    ('evaluate', [f'--workdir={workdir}', '--once']),
  ):
    result = runs.call(main, *options, f'--cpu_devices={count}')
    assert result.code == 0, result.err
    if main == 'train':
      assert f'sharded on {count} of {count} devices' in result.err
  assert_close(single, workdir)
  first, second = (
    np.load(w / 'eval' / 'test_episodes.npz') for w in (single, workdir)
  )
  np.testing.assert_allclose(first['nll'], second['nll'], **CLOSE)
  if count == 2:  # a command that draws one episode
    drawn = runs.call(
      'plots',
      f'--workdir={workdir}',
      '--kind=episode',
      variables=devices(count),
    )
    assert drawn.code == 0, drawn.err


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_processes(long, tmp_path):
  workdir = tmp_path / 'run'
  first, second = start_two('train', *flags(workdir, steps=LONG))
  wait_for_step(workdir, 10)
  second.send_signal(signal.SIGTERM)  # both save and stop
  results = finish([first, second])
  assert [r.code for r in results] == [143, 143], results
  at = runs.newest_step(workdir)
  assert 10 <= at < LONG and at % distributed.STOP_CHECK_STEPS == 0
  more = runs.call('train', *flags(workdir, *SELDOM, steps=LONG))
  assert more.code == 0, more.err
  assert f'step {at} of {LONG}' in more.err
  assert_near(long, workdir)


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_when_a_process_is_killed_the_others_end_and_a_restart_resumes(
  long, number, tmp_path
):
  workdir = tmp_path / 'run'
  first, second = start_two('train', *flags(workdir, steps=LONG))
  wait_for_step(workdir, 10)
  (first, second)[number].kill()
  left = finish([first, second])[1 - number]
  # JAX ends a process itself when the first one is gone, if it is quicker.
  by_jax = number == 0 and left.code == -signal.SIGABRT
  if not by_jax:
    assert left.code == core.PeerLost.exit_code, left.err
    assert re.search('^train: another process of this', left.err, re.M)
    assert 'Traceback' not in left.err
  at = runs.newest_step(workdir)
  assert at < LONG
  again = flags(workdir, *SELDOM, steps=LONG)
  for result in finish(start_two('train', *again)):
    assert result.code == 0, result.err
  assert_near(long, workdir)


@pytest.mark.slow
def test_an_error_of_the_primary_process_ends_all(tmp_path):
  lock = filesystem.acquire_lock(tmp_path / 'run')
  with lock:
    busy = finish(start_two('train', *flags(tmp_path / 'run')))
  assert [r.code for r in busy] == [core.Busy.exit_code] * 2, busy
  assert 'is in use by process' in busy[0].err
  assert 'another process has ended this run' in busy[1].err


@pytest.mark.slow
@pytest.mark.slow
def test_several_processes_refuse_uneven_batches_and_polling(pair, tmp_path):
  odd = start_two('train', *flags(tmp_path / 'run', '--config.batch=3'))
  for result in finish(odd):
    assert result.code == 2
    assert 'cannot be divided over 2 devices' in result.err
  assert not (tmp_path / 'run').exists()
  for result in finish(start_two('evaluate', f'--workdir={pair}')):
    assert result.code == 2
    assert 'an evaluator that polls runs in one process' in result.err


@pytest.mark.parametrize(
  'codes,expected',
  [((0, 0), 0), ((5, 6), 5), ((0, 143), 143), ((2, 2), 2), ((0, 3), 3)],
)
def test_the_launcher_ends_with_the_code_of_the_first_failure(
  codes, expected, tmp_path
):
  fake = tmp_path / 'python'
  lines = [
    f'{i}) sleep {0.3 * (1 - i)}; exit {c};;' for i, c in enumerate(codes)
  ]
  fake.write_text(
    f'#!/bin/bash\necho "$JAX_NUM_PROCESSES $@"\n'
    f'case $JAX_PROCESS_ID in {" ".join(lines)} esac\n'
  )
  fake.chmod(0o755)
  done = subprocess.run(
    ['bash', 'launch/distributed.sh', '2', 'hyperudl.train', '--x=1'],
    cwd=runs.ROOT,
    env={**os.environ, 'PYTHON': str(fake)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == expected, done.stderr
  assert done.stdout.splitlines() == ['2 -m hyperudl.train --x=1'] * 2


@pytest.mark.parametrize(
  'values', [('host:1', '2', ''), ('', '2', '1'), ('host:1', 'two', '0')]
)
def test_an_incomplete_address_is_refused(values):
  with pytest.raises(core.BadInput, match='an address and two numbers'):
    distributed.initialize(dict(zip(distributed.VARIABLES, values)))
  with pytest.raises(core.BadInput, match='expected 0 to 1'):
    distributed.initialize(
      dict(zip(distributed.VARIABLES, ('host:1', '2', '2')))
    )


def test_without_an_address_a_process_is_single():
  distributed.initialize({})
  distributed.initialize({'SLURM_STEP_NUM_TASKS': '1'})
  assert distributed.is_single_process() and distributed.is_primary()
  assert distributed.local_slice(12) == slice(0, 12)
  assert distributed.run_on_primary(lambda: 5) == 5
  assert distributed.broadcast_from_primary(3) == 3
  distributed.assert_equal_across_processes(4, 'nothing')
  with pytest.raises(ZeroDivisionError), distributed.translate_peer_loss():
    raise ZeroDivisionError('Gloo')
