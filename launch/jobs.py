"""Runs tasks that wait for one another, several at a time."""

from collections.abc import Callable
from collections.abc import Set
from concurrent import futures
import contextlib
import itertools
import os
import pathlib
import queue
import re
import subprocess
import sys
from typing import Any
from typing import NamedTuple


class Task(NamedTuple):
  """Something to do once others are done."""

  work: Callable[[], None]
  needs: Set = frozenset()  # names of other tasks
  rank: Any = 0  # of those that may begin the lowest does, then the first


def run(tasks, count, done=lambda name, left: None):
  """All tasks, `count` at a time, each of these on a share of the cores.

  After one that fails none begins, and its error is raised once those that had
  begun have ended. An error of another kind, such as a signal to this process,
  ends them at once: their commands get SIGTERM. With `count` 1 the cores are
  left as they are.

  Args:
    tasks: {name: Task}; what is needed of others is among them.
    count: how many at a time.
    done: called after each task that has not failed with its name and the
      names that are left.
  """
  left, running, failed = dict(tasks), {}, []
  with _pool(count) as pool, _ending_children():
    while running or (left and not failed):
      ready = [n for n in left if not left[n].needs & _names(left, running)]
      ready.sort(key=lambda name: left[name].rank)
      for name in [] if failed else ready[: count - len(running)]:
        running[pool.submit(left.pop(name).work)] = name
      if not running:
        raise ValueError(f'these wait for one another: {list(left)}')
      ended, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
      for future in ended:
        name, error = running.pop(future), future.exception()
        if error is None:
          done(name, _names(left, running))
        else:
          failed.append(error)
      if failed and running:
        sys.stderr.write(f'failed; waiting for {list(running.values())}\n')
  if failed:
    raise failed[0]


def _names(left, running):
  return {*left, *running.values()}


def _pool(count):
  """Threads; what they start stays on their cores, where one may say so."""
  shares = queue.SimpleQueue()
  for share in shares_of(cores(), count):
    shares.put(share)

  def begin():
    if count > 1 and hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(0, shares.get())  # of this thread, and its children

  return futures.ThreadPoolExecutor(count, initializer=begin)


def cores():
  """Those that this process may use, threads of one core beside each other."""
  if not hasattr(os, 'sched_getaffinity'):
    return list(range(os.cpu_count() or 1))
  return sorted(os.sched_getaffinity(0), key=lambda i: (_core_of(i), i))


def _core_of(thread):
  place = f'/sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list'
  try:
    return int(re.match(r'\d+', pathlib.Path(place).read_text())[0])
  except (OSError, TypeError):
    return thread


def shares_of(cores, count):
  """`count` lists of cores, as even as they can be; none is empty."""
  if count >= len(cores):
    return [[cores[i % len(cores)]] for i in range(count)]
  ends = [len(cores) * i // count for i in range(count + 1)]
  return [cores[a:b] for a, b in itertools.pairwise(ends)]


_children = set()


@contextlib.contextmanager
def _ending_children():
  try:
    yield
  except BaseException:
    for child in list(_children):
      child.terminate()
    raise


def call(command, label=''):
  """Exit code of a command; with a label it stands before each line."""
  out = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
  text = {'text': True, 'errors': 'replace'}
  with subprocess.Popen(command, **(out | text if label else {})) as child:
    _children.add(child)
    for line in child.stdout or ():
      sys.stderr.write(f'[{label}] {line.rstrip()}\n')
  _children.discard(child)
  return child.returncode
