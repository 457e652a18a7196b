"""Jobs that wait for one another: order, failures, signals."""

import graphlib
import os
import subprocess
import sys
import time

import pytest

from experiments import jobs
from tests.testing import runs


def test_jobs_run_in_their_order_once_what_they_need_is_done():
  log, ended = [], []
  job = lambda name, *needs: jobs.Job(lambda: log.append(name), needs)
  wanted = {
    'last': job('last', 'b', 'a'),
    'a': job('a', 'c'),
    'b': job('b'),
    'c': job('c'),
    'd': job('d'),
  }
  jobs.run(wanted, ended.append)
  assert log == ended == ['b', 'c', 'a', 'last', 'd']


def test_after_a_failure_nothing_begins():
  log = []

  def fail():
    sys.exit(3)

  wanted = {
    'first': jobs.Job(lambda: log.append('first')),
    'fail': jobs.Job(fail),
    'more': jobs.Job(lambda: log.append('more')),
  }
  ended = []
  with pytest.raises(SystemExit) as stopped:
    jobs.run(wanted, ended.append)
  assert stopped.value.code == 3 and log == ended == ['first']


def test_jobs_that_wait_for_one_another_are_refused():
  wanted = {name: jobs.Job(print, {other}) for name, other in ('ab', 'ba')}
  with pytest.raises(graphlib.CycleError):
    jobs.run(wanted, print)


@pytest.mark.skipif(os.name != 'posix', reason='signals of POSIX')
def test_a_signal_ends_what_runs():
  code = """if True:
    import signal, sys
    from experiments import jobs
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    jobs.call([sys.executable, '-uc', 'print(1); import time; time.sleep(60)'])
  """
  begun = time.monotonic()
  with subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    text=True,
    cwd=runs.ROOT,
  ) as parent:
    assert parent.stdout.readline() == '1\n'
    parent.terminate()
    assert parent.wait(30) == 143
    assert not parent.stdout.read()  # closed: no child has it any more
  assert time.monotonic() - begun < 30


def test_a_call_returns_the_exit_code():
  assert jobs.call([sys.executable, '-c', 'raise SystemExit(5)']) == 5
