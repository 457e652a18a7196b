"""One run on several processes, and on other numbers of them and of devices."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.storage import filesystem
from hyperudl.storage import metrics
from hyperudl.storage import selection
from tests.testing import runs

STEPS = 20
LONG = 400
SELDOM = ('--config.log_steps=100', '--config.checkpoint_steps=200')
BATCH = ('--config.batch=4',)
# Float32 sums in another order.
CLOSE = {'rtol': 2e-3, 'atol': 2e-5}


def together(main, *flags, count=2):
  """Processes of one run, the first one first."""
  with contextlib.closing(socket.socket()) as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  values = f'127.0.0.1:{port}', str(count)
  return [
    runs.start(
      main,
      *flags,
      variables=zip(distributed.VARIABLES, (*values, str(number))),
    )
    for number in range(count)
  ]


def finish(started):
  return [runs.finish(process) for process in started]


def forced(count):
  """Variables that make one process of any main have several devices."""
  flag = f'--xla_force_host_platform_device_count={count}'
  return {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flag}'}


def flags(workdir, *more, steps=STEPS):
  return runs.tiny(workdir, *BATCH, *more, steps=steps)


def assert_close(workdir, other):
  """Parameters, logged losses and steps agree."""
  states = [selection.restore_step(w, 'latest')[0] for w in (workdir, other)]
  first, second = (filesystem.name_leaves(state['params']) for state in states)
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
  """The last losses agree, of runs so long that rounding has grown."""
  losses = [
    metrics.read_jsonl(w / 'train.jsonl')[-1]['loss'] for w in (workdir, other)
  ]
  assert runs.newest(workdir) == runs.newest(other) == LONG
  np.testing.assert_allclose(*losses, rtol=0.05)


def until_step(workdir, step):
  end = time.monotonic() + runs.SECONDS
  while runs.newest(workdir) < step:
    assert time.monotonic() < end
    time.sleep(0.05)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """A run and its evaluation on one device of one process."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
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
  """The same on two processes; the evaluation too."""
  workdir = tmp_path_factory.mktemp('pair') / 'run'
  for result in finish(together('train', *flags(workdir))):
    assert result.code == 0, result.err
  once = together('evaluate', f'--workdir={workdir}', '--once')
  for result in finish(once):
    assert result.code == 0, result.err
  return workdir


def test_two_processes_are_one_run(alone, pair):
  assert_close(alone, pair)
  assert runs.steps(alone) == runs.steps(pair)
  assert (pair / 'DONE').read_text() == f'{STEPS}\n'
  assert len(list((pair / 'tb' / 'train').iterdir())) == 1


def test_two_processes_evaluate_as_one(alone, pair):
  first, second = runs.results(alone, 'test'), runs.results(pair, 'test')
  assert len(first) == len(second) == 1  # one of them writes
  assert first[0]['episodes'] == second[0]['episodes'] == 20
  np.testing.assert_allclose(
    first[0]['accuracy'], second[0]['accuracy'], atol=0.02
  )
  arrays = [np.load(w / 'eval' / 'test_episodes.npz') for w in (alone, pair)]
  # The same episodes in the same order.
  for name in ('accuracy_pixels', 'family'):
    np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
  np.testing.assert_allclose(arrays[0]['nll'], arrays[1]['nll'], **CLOSE)


@pytest.mark.parametrize(
  'devices', [pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_devices_of_one_process_change_nothing(alone, devices, tmp_path):
  workdir = tmp_path / 'run'
  for main, options in (
    ('train', flags(workdir)),
    # 20 episodes in parts of 10 are no multiple of 4.
    ('evaluate', [f'--workdir={workdir}', '--once']),
  ):
    result = runs.call(main, *options, f'--cpu_devices={devices}')
    assert result.code == 0, result.err
    if main == 'train':
      assert f'sharded on {devices} of {devices} devices' in result.err
  assert_close(alone, workdir)
  first, second = (
    np.load(w / 'eval' / 'test_episodes.npz') for w in (alone, workdir)
  )
  np.testing.assert_allclose(first['nll'], second['nll'], **CLOSE)
  if devices == 2:  # what asks for one episode
    drawn = runs.call(
      'plots',
      f'--workdir={workdir}',
      '--kind=episode',
      variables=forced(devices),
    )
    assert drawn.code == 0, drawn.err


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_processes(long, tmp_path):
  workdir = tmp_path / 'run'
  first, second = together('train', *flags(workdir, steps=LONG))
  until_step(workdir, 10)
  second.send_signal(signal.SIGTERM)  # one is told, both save and stop
  results = finish([first, second])
  assert [r.code for r in results] == [143, 143], results
  at = runs.newest(workdir)
  assert 10 <= at < LONG and at % distributed.AGREE == 0
  more = runs.call('train', *flags(workdir, *SELDOM, steps=LONG))
  assert more.code == 0, more.err
  assert f'step {at} of {LONG}' in more.err
  assert_near(long, workdir)


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_when_one_is_killed_the_others_end_and_the_run_goes_on(
  long, number, tmp_path
):
  workdir = tmp_path / 'run'
  first, second = together('train', *flags(workdir, steps=LONG))
  until_step(workdir, 10)
  (first, second)[number].kill()
  left = finish([first, second])[1 - number]
  # JAX ends a process itself when the first one is gone, if it is quicker.
  by_jax = number == 0 and left.code == -signal.SIGABRT
  if not by_jax:
    assert left.code == core.PeerLost.exit_code, left.err
    assert re.search('^train: another process of this', left.err, re.M)
    assert 'Traceback' not in left.err
  at = runs.newest(workdir)
  assert at < LONG
  again = flags(workdir, *SELDOM, steps=LONG)
  for result in finish(together('train', *again)):
    assert result.code == 0, result.err
  assert_near(long, workdir)


@pytest.mark.slow
def test_what_the_first_cannot_do_ends_all(tmp_path):
  lock = filesystem.acquire_lock(tmp_path / 'run')
  with lock:
    busy = finish(together('train', *flags(tmp_path / 'run')))
  assert [r.code for r in busy] == [core.Busy.exit_code] * 2, busy
  assert 'is in use by process' in busy[0].err
  assert 'another process has ended this run' in busy[1].err


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_refused(pair, tmp_path):
  odd = together('train', *flags(tmp_path / 'run', '--config.batch=3'))
  for result in finish(odd):
    assert result.code == 2
    assert 'cannot be divided over 2 devices' in result.err
  assert not (tmp_path / 'run').exists()
  for result in finish(together('evaluate', f'--workdir={pair}')):
    assert result.code == 2
    assert 'an evaluator that polls runs in one process' in result.err


@pytest.mark.parametrize(
  'codes,expected',
  [((0, 0), 0), ((5, 6), 5), ((0, 143), 143), ((2, 2), 2), ((0, 3), 3)],
)
def test_the_launcher_ends_as_the_first_that_failed(codes, expected, tmp_path):
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
    ['bash', 'launch/processes.sh', '2', 'hyperudl.train', '--x=1'],
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
def test_half_an_address_is_refused(values):
  with pytest.raises(core.BadInput, match='an address and two numbers'):
    distributed.start(dict(zip(distributed.VARIABLES, values)))
  with pytest.raises(core.BadInput, match='expected 0 to 1'):
    distributed.start(dict(zip(distributed.VARIABLES, ('host:1', '2', '2'))))


def test_without_an_address_there_is_one_process():
  distributed.start({})
  distributed.start({'SLURM_STEP_NUM_TASKS': '1'})
  assert distributed.alone() and distributed.is_first()
  assert distributed.share(12) == slice(0, 12)
  assert distributed.lead(lambda: 5) == 5 and distributed.first_says(3) == 3
  with pytest.raises(ZeroDivisionError), distributed.guarded():
    raise ZeroDivisionError('Gloo')
