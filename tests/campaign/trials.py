"""Makes one trial of the campaign, and judges it."""

import json
import os
import pathlib
import shutil

import numpy as np

from tests.campaign import faults
from tests.campaign import learners
from tests.campaign import mutations
from tests.testing import forking

KILLS_PER_RUN = 7
MEGABYTES = 300  # that a data set may take beside its own size
SECONDS = 5  # of CPU that reading one may take
RUN_CODES = (0, 2, 3, 4, 8)  # of a changed config or checkpoint


class Bench:
  """A folder with data, undisturbed runs, and room for one trial."""

  def __init__(self, folder):
    self._folder = folder
    self._good = folder / 'good'
    self._trial = folder / 'trial'
    self._digests = {}
    self._good.mkdir(exist_ok=True)
    if not (self._good / 'tiny.npz').exists():
      _write_data(self._good / 'tiny.npz')
    self._least = self._call(mutations.CONVERT, ['--help']).megabytes

  def _call(self, module, flags, output='call', **options):
    child = forking.start(module, flags, self._good / output, **options)
    return forking.finish(child)

  def disturb(self, learner, count, generator):
    """Disturb a run `count` times, let it end, and compare its bits."""
    expected = self._undisturbed(learner)
    self._clear()
    run = faults.Run(learner, self._trial, self._good)
    functions, weights = zip(*faults.FAULTS.items())
    names, problem = [], ''
    for place in range(count):
      fault = generator.choices(functions, weights)[0]
      if place == count - 1 and generator.random() < 0.3:
        fault = faults.evaluate_beside
      names.append(fault.__name__)
      problem = fault(run, generator)
      if problem:
        problem = f'{fault.__name__} ({place}): {problem}'
        break
    code = None
    if not problem:
      last = forking.finish(run.start())
      code = last.code
      problem = faults.complaint(last, (0,)) or self._differs(expected)
    return {
      'what': learner,
      'faults': names,
      'code': code,
      'problem': problem,
    }

  def _undisturbed(self, learner):
    """Return the digest of a run that nothing has disturbed."""
    if learner not in self._digests:
      workdir = self._good / learner
      flags = learners.train_flags(learner, workdir, self._good)
      result = self._call(mutations.TRAIN, flags, learner + '_log')
      assert result.code == 0, result.err
      self._digests[learner] = self._outcome(workdir)['digest']
    return self._digests[learner]

  def _outcome(self, workdir):
    result = self._call('tests.campaign.learners', [workdir], 'outcome')
    if result.code:
      return {'error': result.err[-1000:]}
    return json.loads(result.out)

  def _differs(self, digest):
    """Return '' or how a run differs from an undisturbed one."""
    outcome = self._outcome(self._trial / 'run')
    if 'error' in outcome:
      return outcome['error']
    steps, evaluated = outcome['steps'], outcome['evaluated']
    # A stop writes a row more, at its step.
    once = steps == sorted(set(steps))
    faults_found = {
      'bits differ': outcome['digest'] != digest,
      'not done': not outcome['done'],
      f'rows {steps}': not once or set(learners.expected_steps()) - set(steps),
      f'evaluated {evaluated}': len(evaluated) != len(set(evaluated)),
    }
    return ', '.join(name for name, found in faults_found.items() if found)

  def damage(self, generator):
    """Give a command a damaged file, and judge how it ends."""
    write = mutations.choose(generator)
    self._clear()
    canary = self._trial / 'canary'
    in_run = write in mutations.RUNS
    if in_run:
      self._undisturbed('protonet')
    given = self._good / 'protonet' if in_run else canary
    module, flags = write(self._trial, generator, given)
    enter = lambda: os.chdir(self._trial)
    result = self._call(module, flags, prepare=enter)
    if in_run:
      lines = 1 if result.code == 2 else None  # else there is a log
      problem = faults.complaint(result, RUN_CODES, lines)
    else:
      problem = self._judge(result)
    if canary.exists():
      problem = 'executed code of the file'
    if problem:
      shutil.copytree(self._trial, self._folder / 'failed', dirs_exist_ok=True)
    return {
      'what': write.__name__.removeprefix('write_'),
      'code': result.code,
      'megabytes': 0 if in_run else round(result.megabytes - self._least),
      'cpu_seconds': 0 if in_run else round(result.cpu_seconds, 2),
      'problem': problem and f'{problem} {flags}',
    }

  def _judge(self, result):
    files = [p for p in self._trial.rglob('*') if p.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    written = sorted(p.name for p in (self._trial / 'out').glob('*'))
    if result.megabytes - self._least > MEGABYTES + size:
      return f'{result.megabytes - self._least:.0f} MB'
    if result.cpu_seconds > SECONDS:
      return f'{result.cpu_seconds:.1f} s'
    if written and (result.code or written != ['set.npz', 'set.npz.sha256']):
      return f'left {written} behind'
    return faults.complaint(result, (0, 2), lines=1)

  def _clear(self):
    shutil.rmtree(self._trial, ignore_errors=True)
    pathlib.Path(self._trial).mkdir()


def _write_data(path):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (24, 12, 14, 14), np.uint8)
  split = ['train'] * 12 + ['valid'] * 6 + ['test'] * 6
  np.savez(path, images=images, split=split)
