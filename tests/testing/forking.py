"""Runs commands in forks of one process that has imported everything.

  python -m tests.testing.forking

reads lines, each a JSON list [folder, commands], and answers each with the list
of its results. Outputs go to files in the folder. A fork starts in milliseconds
where a new process imports for seconds. Nothing here may start a backend of
JAX, whose threads do not survive a fork.
"""

import contextlib
import ctypes
import functools
import importlib
import json
import os
import pathlib
import resource
import runpy
import signal
import sys
import time
import traceback
from typing import NamedTuple

_DEATH_SIGNAL = 1  # of prctl: end with the process that has forked
SECONDS = 600  # no command takes as long, whatever else runs


class Result(NamedTuple):
  """Exit code, output and consumption of a process that has ended."""

  code: int  # minus the number of the signal that ended it
  out: str
  err: str
  cpu_seconds: float
  megabytes: float  # most memory, with that of the process it was forked from


class Child(NamedTuple):
  """A process that was forked."""

  pid: int
  output: str  # path without ending of the files of its output


@functools.cache
def load(module):
  """Import a module, so that it can be run again in forks."""
  importlib.import_module(module)
  del sys.modules[module]  # or runpy warns


def start(module, flags, output, prepare=None):
  """Fork a process that runs `python -m <module> <flags>`.

  Args:
    module: its dotted name; see `load`.
    flags: of the command line.
    output: path, without ending, of the files for stdout and stderr.
    prepare: called first in the new process, to set limits for instance.
  """
  pid = os.fork()
  if not pid:
    _run(module, [str(flag) for flag in flags], output, prepare)
  return Child(pid, str(output))


def _run(module, flags, output, prepare):
  """Run a module; never return."""
  code = 1
  with contextlib.suppress(AttributeError, OSError):  # Linux alone
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
  try:
    for number, name in ((1, 'out'), (2, 'err')):
      mode = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
      os.dup2(os.open(f'{output}.{name}', mode, 0o644), number)
    if prepare:
      prepare()
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    code = 0
  except SystemExit as end:
    code = end.code or 0
    if isinstance(code, str):
      sys.stderr.write(code)
      code = 1
  except BaseException:
    traceback.print_exc()
  with contextlib.suppress(OSError):
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code)


def finish(child, seconds=SECONDS):
  """Wait for a process and return its `Result`; kill it after `seconds`."""
  end = time.monotonic() + seconds
  while True:
    pid, status, usage = os.wait4(child.pid, os.WNOHANG)
    if pid:
      break
    if time.monotonic() > end:
      os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.003)
  read = lambda name: pathlib.Path(f'{child.output}.{name}').read_text(
    errors='replace'
  )
  return Result(
    os.waitstatus_to_exitcode(status),
    read('out'),
    read('err'),
    usage.ru_utime + usage.ru_stime,
    usage.ru_maxrss / 1024,
  )


def limit_memory(megabytes):
  """Return a `prepare` that refuses a process more address space than this."""
  limit = megabytes << 20
  return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run_many(commands, folder, parallel=2, **options):
  """Run a list of (module, flags); return their `Result`s in this order."""
  results, running = {}, []
  for number, (module, flags) in enumerate(commands):
    child = start(module, flags, f'{folder}/{number}', **options)
    running.append((number, child))
    if len(running) >= parallel:
      number, child = running.pop(0)
      results[number] = finish(child)
  results |= {number: finish(child) for number, child in running}
  return [results[number] for number in range(len(commands))]


def main():
  for line in sys.stdin:
    folder, commands = json.loads(line)
    for module, _ in commands:
      load(module)
    print(json.dumps(run_many(commands, folder)), flush=True)


if __name__ == '__main__':
  main()
