"""Disturbs a training in one way at a random moment, and judges its end.

Each fault is a function (run, generator) that returns '' or what was wrong.
"""

import dataclasses
import errno
import os
import pathlib
import random
import resource
import signal
import time

from hyperudl.storage import checkpoints
from tests.campaign import learners
from tests.testing import forking
from tests.testing import runs

TRAIN, EVALUATE = 'hyperudl.train', 'hyperudl.evaluate'


class Run:
  """A run that is started again and again in one workdir."""

  def __init__(self, learner, folder, data_dir):
    self.workdir = pathlib.Path(folder, 'run')
    self.flags = learners.train_flags(learner, self.workdir, data_dir)
    self.flipped = set()  # steps that may be unreadable
    self._folder = folder
    self._count = 0

  def start(self, module=TRAIN, flags=None, prepare=None):
    self._count += 1
    output = f'{self._folder}/{self._count}'
    return forking.start(module, flags or self.flags, output, prepare)

  def wait(self, condition, child, seconds=60):
    """Wait for condition(), the end of the process, or a time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end and is_alive(child):
      time.sleep(0.002)


def is_alive(child):
  """Return whether a process runs; leaves it to be waited for."""
  flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
  return os.waitid(os.P_PID, child.pid, flags) is None


def complaint(result, codes, lines=None):
  """Return '' or in what the end of a process is not as documented."""
  if 'Traceback' in result.err:
    return f'traceback: {result.err[-1500:]}'
  if result.code not in codes:
    return f'exit code {result.code}: {result.err[-500:]}'
  if lines is not None and result.code and result.err.count('\n') != lines:
    return f'{result.err.count(chr(10))} lines: {result.err[-500:]}'
  return ''


def _disturb_later(run, generator, child):
  """Wait for a random moment: of the start, or after the next checkpoint."""
  if generator.random() < 0.4:
    time.sleep(generator.uniform(0, 3))
    return
  before = runs.newest_step(run.workdir)
  run.wait(lambda: runs.newest_step(run.workdir) > before, child)
  time.sleep(generator.choice((0, 0, 0.01, 0.1)) * generator.random())


def kill(run, generator):
  """SIGKILL."""
  child = run.start()
  _disturb_later(run, generator, child)
  os.kill(child.pid, signal.SIGKILL)
  return complaint(forking.finish(child), (0, -signal.SIGKILL))


def terminate(run, generator):
  """SIGTERM: a checkpoint and 143, unless it comes before the handler."""
  child = run.start()
  _disturb_later(run, generator, child)
  os.kill(child.pid, signal.SIGTERM)
  return complaint(forking.finish(child), (0, 143, -signal.SIGTERM))


def fill_disk(run, generator):
  """A limit on the size of files stands in for a full disk."""
  limit = 1024 * generator.choice((6, 9, 20, 40))
  limits = (limit, resource.RLIM_INFINITY)
  # The output of the process goes to a file of the same size limit.
  prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  result = forking.finish(run.start(prepare=prepare))
  return complaint(result, (0, 5))


def flip_byte(run, generator):
  """Change one byte of the newest checkpoint, if an older one is whole."""
  steps = runs.steps(run.workdir)
  if len(steps) < 2 or run.flipped & set(steps):
    return kill(run, generator)
  folder = run.workdir / 'checkpoints' / str(steps[-1])
  files = [p for p in sorted(folder.rglob('*')) if p.is_file()]
  path = generator.choice([p for p in files if p.stat().st_size])
  content = bytearray(path.read_bytes())
  content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
  path.write_bytes(content)
  run.flipped.add(steps[-1])
  (run.workdir / 'DONE').unlink(missing_ok=True)
  return kill(run, generator)


def second_trainer(run, generator):
  """Of two trainers on one workdir the second is refused."""
  logs = run.workdir / 'tb' / 'train'
  before = set(logs.glob('*'))  # of earlier starts
  first = run.start()
  run.wait(lambda: set(logs.glob('*')) - before, first)  # it has the lock now
  os.kill(first.pid, signal.SIGSTOP)
  held = is_alive(first)
  second = forking.finish(run.start())
  os.kill(first.pid, signal.SIGCONT)
  os.kill(first.pid, signal.SIGKILL)
  ended = forking.finish(first)
  if ended.code == 0 or not held:
    return ''
  return complaint(second, (6,), lines=1)


def fail_writes(run, generator):
  """A shared folder: calls of the operating system are slow, some fail."""
  number = generator.choice((errno.EIO, errno.ESTALE, errno.ENOSPC))
  rate, seed = generator.choice((0, 0.02, 0.2)), generator.random()

  def unreliable(call, chance):
    def wrapped(*arguments, **options):
      time.sleep(0.02 * chance.random())
      if chance.random() < rate:
        raise OSError(number, os.strerror(number))
      return call(*arguments, **options)

    return wrapped

  def prepare():
    chance = random.Random(seed)
    for name in ('replace', 'rename', 'makedirs', 'fsync', 'posix_fallocate'):
      setattr(os, name, unreliable(getattr(os, name), chance))

  return complaint(forking.finish(run.start(prepare=prepare)), (0, 5))


def evaluate_beside(run, generator):
  """An evaluator beside a trainer that keeps one checkpoint and is killed."""

  def keep_one():
    policy = checkpoints.Policy
    from_config = policy.from_config
    policy.from_config = lambda config: dataclasses.replace(
      from_config(config), keep_latest=1
    )

  flags = [f'--workdir={run.workdir}']
  evaluator = run.start(EVALUATE, flags)
  trainer = run.start(prepare=keep_one)
  _disturb_later(run, generator, trainer)
  os.kill(trainer.pid, signal.SIGKILL)
  problem = complaint(forking.finish(trainer), (0, -signal.SIGKILL))
  trainer = run.start(prepare=keep_one)
  problem = problem or complaint(forking.finish(trainer), (0,))
  return problem or complaint(forking.finish(evaluator), (0,))


# Fault -> how often it occurs, in proportion.
FAULTS = {
  kill: 10,
  terminate: 3,
  fill_disk: 2,
  flip_byte: 2,
  second_trainer: 1,
  fail_writes: 2,
}
