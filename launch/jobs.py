"""Runs tasks that wait for one another, several at a time."""

from collections.abc import Callable
from collections.abc import Set
from concurrent import futures
import itertools
import os
import queue
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

  After one that fails none begins, and its error is raised once those that
  had begun have ended. With `count` 1 the cores are left as they are.

  Args:
    tasks: {name: Task}; what is needed of others is among them.
    count: how many at a time.
    done: called after each task with its name and the names that are left.
  """
  left, running = dict(tasks), {}
  with _pool(count) as pool:
    while left or running:
      ready = [n for n in left if not left[n].needs & _names(left, running)]
      ready.sort(key=lambda name: left[name].rank)
      for name in ready[: count - len(running)]:
        running[pool.submit(left.pop(name).work)] = name
      if not running:
        raise ValueError(f'these wait for one another: {list(left)}')
      ended, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
      for future in ended:
        name = running.pop(future)
        future.result()
        done(name, _names(left, running))


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
  """Those that this process may use, in order."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def shares_of(cores, count):
  """`count` lists of cores, as even as they can be; none is empty."""
  if count >= len(cores):
    return [[cores[i % len(cores)]] for i in range(count)]
  ends = [len(cores) * i // count for i in range(count + 1)]
  return [cores[a:b] for a, b in itertools.pairwise(ends)]


def call(command, label=''):
  """Exit code of a command; with a label it stands before each line."""
  if not label:
    return subprocess.run(command, check=False).returncode
  out, both = subprocess.PIPE, subprocess.STDOUT
  with subprocess.Popen(command, stdout=out, stderr=both, text=True) as child:
    for line in child.stdout:
      sys.stderr.write(f'[{label}] {line}')
  return child.returncode
