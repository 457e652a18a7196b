"""Tasks that wait for one another: order, failures, cores, labels."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'launch'))

import jobs  # noqa: E402


def test_tasks_wait_for_what_they_need_and_then_go_by_rank():
  log = []
  task = lambda name, **given: jobs.Task(lambda: log.append(name), **given)
  tasks = {
    'last': task('last', needs={'b', 'a'}),
    'b': task('b', rank=2),
    'a': task('a', needs={'c'}, rank=3),
    'c': task('c', rank=1),
    'd': task('d', rank=2),
  }
  ended = []
  jobs.run(tasks, 1, lambda name, left: ended.append((name, set(left))))
  assert log == ['c', 'b', 'd', 'a', 'last']
  assert ended[0] == ('c', {'last', 'b', 'a', 'd'})
  assert ended[-1] == ('last', set())


def test_two_at_a_time_each_on_its_own_cores():
  both, seen = threading.Barrier(2, timeout=30), []

  def work():
    both.wait()
    seen.append(tuple(jobs.cores()))

  before = jobs.cores()
  jobs.run({name: jobs.Task(work) for name in 'ab'}, 2)
  assert jobs.cores() == before
  if hasattr(os, 'sched_setaffinity'):
    assert sorted(seen) == sorted(map(tuple, jobs.shares_of(before, 2)))


@pytest.mark.parametrize(
  ('count', 'shares'),
  [
    (1, [[0, 1, 2, 3, 4]]),
    (2, [[0, 1], [2, 3, 4]]),
    (5, [[0], [1], [2], [3], [4]]),
    (7, [[0], [1], [2], [3], [4], [0], [1]]),
  ],
)
def test_shares_of_cores(count, shares):
  assert jobs.shares_of([0, 1, 2, 3, 4], count) == shares


def test_after_a_failure_nothing_begins_and_what_had_begun_ends():
  log = []

  def fail():
    time.sleep(0.05)
    sys.exit(3)

  def slow():
    time.sleep(0.2)
    log.append('slow')

  tasks = {'fail': jobs.Task(fail), 'slow': jobs.Task(slow)}
  more = {i: jobs.Task(lambda: log.append('more')) for i in range(20)}
  with pytest.raises(SystemExit) as stopped:
    jobs.run(tasks | more, 2)
  assert stopped.value.code == 3 and log == ['slow']


def test_what_ends_beside_a_failure_is_done(capsys):
  both, log = threading.Barrier(2, timeout=30), []

  def fail():
    both.wait()
    sys.exit(3)

  tasks = {
    'fail': jobs.Task(fail),
    'well': jobs.Task(lambda: (both.wait(), time.sleep(0.2))),
    'never': jobs.Task(lambda: log.append('never'), {'well'}),
  }
  with pytest.raises(SystemExit):
    jobs.run(tasks, 2, lambda name, left: log.append((name, left)))
  assert log == [('well', {'never'})]
  assert "failed; waiting for ['well']" in capsys.readouterr().err


@pytest.mark.skipif(os.name != 'posix', reason='signals of POSIX')
def test_a_signal_ends_what_runs():
  code = f"""if True:
    import signal, sys
    sys.path.insert(0, {str(ROOT / 'launch')!r})
    import jobs
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    sleep = [sys.executable, '-uc', 'print(1); import time; time.sleep(60)']
    work = lambda: jobs.call(sleep, 'a')
    jobs.run({{'a': jobs.Task(work), 'b': jobs.Task(work)}}, 2)
  """
  begun = time.monotonic()
  with subprocess.Popen(
    [sys.executable, '-c', code], stderr=subprocess.PIPE, text=True
  ) as parent:
    assert {parent.stderr.readline() for _ in range(2)} == {'[a] 1\n'}
    parent.terminate()
    assert parent.wait(30) == 143
    assert not parent.stderr.read()  # closed: no child has it any more
  assert time.monotonic() - begun < 30


def test_tasks_that_wait_for_one_another_are_refused():
  tasks = {name: jobs.Task(print, {other}) for name, other in ('ab', 'ba')}
  with pytest.raises(ValueError, match="wait for one another: \\['a', 'b'\\]"):
    jobs.run(tasks, 2)


def test_a_label_stands_before_each_line(capsys):
  code = (
    'import sys; print("one"); print("two", file=sys.stderr); '
    'sys.stdout.buffer.write(b"\\xff"); sys.exit(4)'
  )
  assert jobs.call([sys.executable, '-uc', code], 'row-0') == 4
  said = capsys.readouterr().err.splitlines()
  assert sorted(said) == ['[row-0] one', '[row-0] two', '[row-0] \ufffd']
  assert jobs.call([sys.executable, '-c', 'raise SystemExit(5)']) == 5
