"""Runs the commands in processes of their own, on tiny data, for tests."""

import atexit
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.storage import serialization
from tests.testing import forking

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 200
SECONDS = 600  # no process here takes as long, whatever else runs


class Result(NamedTuple):
  """Exit code and output of a process that has ended."""

  code: int
  out: str
  err: str

  @property
  def line(self):
    """The text on stderr, which must be one line."""
    assert self.err.count('\n') == 1, self.err
    return self.err


@functools.cache
def data_dir():
  """Return a folder of this session with the data sets `tiny` and `other`."""
  path = pathlib.Path(tempfile.mkdtemp(prefix='hyperudl-'))
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  split = ['train'] * 12 + ['valid'] * 6 + ['test'] * 6
  for seed, name in enumerate(('tiny', 'other')):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (24, 1, 14, 14))
    images = images + random.normal(0, 120, (24, 12, 14, 14))
    images = np.clip(images, 0, 255).astype(np.uint8)
    np.savez(path / f'{name}.npz', images=images, split=split)
  return path


def tiny_flags(workdir, *more, steps=STEPS, config='protonet', variant='tiny'):
  """Return the flags of a small `protonet` run; a later flag wins."""
  return [
    f'--config=configs/{config}.py:{variant},way=3,query=2,batch=2',
    f'--workdir={workdir}',
    f'--config.data.dir={data_dir()}',
    '--config.data.augment=none',
    '--config.learner.channels=4,4',
    f'--config.steps={steps}',
    '--config.log_steps=5',
    '--config.checkpoint_steps=10',
    '--config.eval.episodes=20',
    '--config.eval.batch=10',
    '--config.eval.keep_best=2',
    *more,
  ]


def environment():
  """Return the variables of all processes: CPU, one compilation cache."""
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(data_dir() / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }


def launch(command, variables=()):
  """Start a command at the top of the repository.

  Args:
    command: list of words.
    variables: of the environment, beside the usual ones.
  """
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env={**environment(), **dict(variables)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@functools.cache
def _forks():
  """Return the process of this session that runs `forking`."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'tests.testing.forking'],
    cwd=ROOT,
    env=environment(),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(process.kill)
  return process


def in_forks(commands):
  """Run commands in forks of one process that has imported their modules.

  Args:
    commands: list of (dotted name of a module, its flags).

  Returns:
    A `forking.Result` of each.
  """
  forks = _forks()
  commands = [
    (module, [str(flag) for flag in flags]) for module, flags in commands
  ]
  with tempfile.TemporaryDirectory() as folder:
    print(json.dumps([folder, commands]), file=forks.stdin, flush=True)
    line = forks.stdout.readline()
  assert line, 'the process that runs commands has ended: see its stderr'
  return [forking.Result(*values) for values in json.loads(line)]


def start(main, *flags, file_limit=None, variables=()):
  """Start `python -m hyperudl.<main> <flags>`.

  Args:
    main: name of the module.
    flags: of the command line.
    file_limit: kilobytes that a file may have, as on a full disk, or None.
    variables: of the environment, beside the usual ones.
  """
  command = [sys.executable, '-m', f'hyperudl.{main}', *map(str, flags)]
  if file_limit:
    # Not `preexec_fn`: this process has threads of JAX.
    limit = f'ulimit -f {file_limit}; exec "$@"'
    command = ['bash', '-c', limit, 'bash', *command]
  return launch(command, variables)


def finish(process):
  """Wait for a process and return its `Result`."""
  try:
    out, err = process.communicate(timeout=SECONDS)
  finally:
    process.kill()
  return Result(process.returncode, out, err)


def call(main, *flags, **options):
  """Run `python -m hyperudl.<main> <flags>` to its end."""
  if options:
    return finish(start(main, *flags, **options))
  return call_many(main, [flags])[0]


def call_many(main, commands):
  """Run `python -m hyperudl.<main>` for each of a list of flags."""
  done = in_forks([(f'hyperudl.{main}', flags) for flags in commands])
  return [Result(*result[:3]) for result in done]


@functools.cache
def finished_run():
  """Return the workdir of an undisturbed run, with its evaluator beside.

  The evaluator starts first, before there is a workdir.
  """
  workdir = data_dir() / 'finished'
  evaluator = start('evaluate', f'--workdir={workdir}')
  trained = call('train', *tiny_flags(workdir))
  evaluated = finish(evaluator)
  assert (trained.code, evaluated.code) == (0, 0), (trained, evaluated)
  return workdir


def copy(workdir, target):
  """Copy a run that a test will disturb."""
  shutil.copytree(workdir, target)
  return target


def steps(workdir):
  """Return the steps whose checkpoints are complete, ascending."""
  names = [p.name for p in pathlib.Path(workdir, 'checkpoints').glob('*')]
  return sorted(int(name) for name in names if name.isdecimal())


def newest_step(workdir):
  """Return the newest complete step, 0 without one."""
  return max(steps(workdir), default=0)


def logged_steps(workdir):
  """Return the steps of train.jsonl."""
  rows = metrics.read_jsonl(pathlib.Path(workdir, 'train.jsonl'))
  return [row['step'] for row in rows]


def results(workdir, tag):
  """Return the rows of eval/<tag>.jsonl."""
  return metrics.read_jsonl(pathlib.Path(workdir, 'eval', f'{tag}.jsonl'))


def digest(workdir):
  """Return the SHA-256 of all leaves of the newest checkpoint."""
  state, _, _ = selection.restore_step(workdir, 'latest')
  total = hashlib.sha256()
  for name, leaf in sorted(serialization.name_leaves(state).items()):
    total.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
    total.update(np.ascontiguousarray(leaf).tobytes())
  return total.hexdigest()


def wait_for(condition, process):
  """Wait until condition() while `process` runs."""
  end = time.monotonic() + SECONDS
  while not condition():
    assert process.poll() is None, finish(process)
    assert time.monotonic() < end
    time.sleep(0.005)


def flip_byte(workdir, step):
  """Change one byte in the data of a checkpoint."""
  folder = pathlib.Path(workdir, 'checkpoints', str(step), 'state')
  path = max(folder.rglob('*'), key=lambda p: p.stat().st_size * p.is_file())
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0x10
  path.write_bytes(content)
