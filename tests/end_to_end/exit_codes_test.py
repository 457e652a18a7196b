"""A run that cannot go on ends with its exit code and one line.

Guards: core/errors.py, train.py, evaluate.py.
"""

import functools
import json
import pathlib

import numpy as np
import pytest

from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from hyperudl.storage import serialization
from tests.testing import runs

# name -> (flags added to those of a good run, words of the message)
BAD = {
  'typo': (['--config.stpes=3'], "'stpes'; did you mean 'steps'?"),
  'typo of the learner': (
    ['--config.learner.chanels=3'],
    "'chanels'; did you mean 'channels'?",
  ),
  'unknown field': (['--config.zzz=3'], "has no field 'zzz'"),
  'unknown flag': (['--stepz=3'], "Unknown command line flag 'stepz'"),
  'less than no device': (['--cpu_devices=-1'], '--cpu_devices=-1: expected'),
  'too many devices': (['--cpu_devices=10000'], 'expected at most 256'),
  'seed of more than 32 bits': (
    ['--config.seed=4294967296'],
    'seed = 4294967296 must be below 4294967296',
  ),
  'seed of more than 64 bits': (
    ['--config.seed=9223372036854775808'],
    'seed = 9223372036854775808 must be below',
  ),
  'huge images': (
    ['--config.data.image_size=100000'],
    'image_size = 100000 is above its maximum 4096',
  ),
  'data on another machine': (
    ['--config.data.dir=gs://data'],
    "config.data.dir='gs://data': only files and folders",
  ),
  'argument': (['tiny'], "unexpected argument 'tiny'"),
  'word for a number': (['--config.steps=abc'], '--config.steps=abc'),
  'fraction for a count': (['--config.steps=2.5'], '--config.steps=2.5'),
  'word for a switch': (
    ['--config.episode.transductive=maybe'],
    '--config.episode.transductive=maybe',
  ),
  'too many classes': (
    ['--config.episode.way=13'],
    'way=13 takes 13 classes, there are 12',
  ),
  'too many images': (
    ['--config.episode.shot=6', '--config.episode.query=7'],
    'takes 13 images per class, the smallest class has 12',
  ),
  'nan': (
    ['--config.optimizer.learning_rate=nan'],
    'learning_rate = nan is not a finite number',
  ),
  'negative rate': (
    ['--config.optimizer.learning_rate=-0.1'],
    'learning_rate = -0.1 must be above 0',
  ),
  'negative count': (['--config.batch=-2'], 'batch = -2 is below its minimum'),
  'uneven chunks': (
    ['--config.batch=8', '--config.chunk=3'],
    'chunk = 3 does not divide the 8 episodes of a device',
  ),
  'no episodes': (
    ['--config.eval.episodes=0'],
    'eval.episodes = 0 is below its minimum 1',
  ),
  'no steps': (['--config.steps=0'], 'steps = 0 is below its minimum 1'),
  'open tuple': (['--config.learner.channels=(4,'], 'learner.channels=(4,'),
  'tuple of words': (
    ['--config.learner.channels=4,x'],
    "'protonet': channels = ('4,x',): expected a tuple of int",
  ),
  'too deep for the images': (
    ['--config.learner.channels=4,4,4,4,4'],
    'support images of shape (3, 14, 14, 1)',
  ),
  'hyperparameter': (
    ['--config.learner.distance=l3'],
    "'protonet': distance = 'l3' is none of l2, cosine, dot",
  ),
  'unknown learner': (
    ['--config.learner.name=protonett'],
    "no learner 'protonett'. Did you mean 'protonet'?",
  ),
  'unknown set': (['--config.data.dataset=tinyy'], "Did you mean 'tiny'?"),
  'unknown shift': (['--config.data.shift=rain'], "unknown shift 'rain'"),
  'devices': (
    ['--config.strategy=parallel'],
    "strategy = 'parallel' is none of auto, scan",
  ),
  'no config file': (
    ['--config=configs/nothing.py'],
    "No such file or directory: 'configs/nothing.py'",
  ),
  'unknown variant': (
    ['--config=configs/protonet.py:tiny,ways=3'],
    "unknown variant key 'ways' (did you mean 'way'?)",
  ),
  'malformed variant': (
    ['--config=configs/protonet.py:tiny,way=x'],
    "way takes a int, not 'x'",
  ),
}


def replaced(flags, more):
  """Return `flags` and `more`, where a later --config replaces the first."""
  if more[0].startswith('--config='):
    return [*more, *flags[1:]]
  return [*flags, *more]


@functools.cache
def refusals():
  """Train with each of BAD; return {name: (result, workdir)}."""
  workdirs = [runs.data_dir() / f'bad{i}' for i in range(len(BAD))]
  commands = [
    replaced(runs.tiny_flags(workdir), more)
    for workdir, (more, _) in zip(workdirs, BAD.values())
  ]
  done = runs.call_many('train', commands)
  return {
    name: (result, workdir)
    for name, result, workdir in zip(BAD, done, workdirs)
  }


@pytest.mark.parametrize('name', BAD)
def test_a_bad_config_is_refused_in_one_line_and_writes_nothing(name):
  result, workdir = refusals()[name]
  assert result.code == 2
  assert result.line.startswith('train: ')
  assert BAD[name][1] in result.line
  assert result.out == ''
  assert not workdir.exists()


def test_a_workdir_that_cannot_take_the_run_is_refused(tmp_path):
  good = runs.finished_run()
  before = (good / 'config.json').read_bytes()
  damaged = tmp_path / 'damaged'
  damaged.mkdir()
  (damaged / 'config.json').write_text('{"seed":')
  a_file = tmp_path / 'file'
  a_file.write_text('mine')
  changes = '--config.seed=7', '--config.optimizer.learning_rate=0.5'
  other, broken, at_file, below = runs.call_many(
    'train',
    [
      runs.tiny_flags(good, *changes),
      runs.tiny_flags(damaged),
      runs.tiny_flags(a_file),
      runs.tiny_flags(a_file / 'run'),
    ],
  )
  assert [r.code for r in (other, broken, at_file, below)] == [2, 2, 2, 5]
  assert 'optimizer.learning_rate: 0.005 -> 0.5; seed: 0 -> 7' in other.line
  assert (good / 'config.json').read_bytes() == before
  assert f'{damaged}/config.json: not a config' in broken.line
  assert f'--workdir={a_file} is a file' in at_file.line
  assert f'cannot write {a_file}/run/.lock: Not a directory (' in below.line
  assert 'bytes free)' in below.line
  assert a_file.read_text() == 'mine'


def test_a_full_disk_is_exit_code_5_and_can_be_resumed(tmp_path):
  """A limit on the size of files stands in for the disk."""
  workdir = tmp_path / 'run'
  # Two checkpoints in the past, so that something is there to be kept.
  first = runs.copy(runs.finished_run(), workdir)
  (first / 'DONE').unlink()
  newest = runs.newest_step(workdir)
  runs.flip_byte(workdir, newest)
  full = runs.call('train', *runs.tiny_flags(workdir), file_limit=9)
  assert full.code == 5, full.err
  last = full.err.splitlines()[-1]
  assert last.startswith(f'train: cannot write {workdir}')
  assert 'bytes free)' in last
  assert 'Traceback' not in full.err
  assert runs.newest_step(workdir) < newest
  assert runs.call('train', *runs.tiny_flags(workdir)).code == 0
  assert runs.digest(workdir) == runs.digest(runs.finished_run())


def test_a_diverging_run_is_exit_code_4_and_leaves_a_good_checkpoint(tmp_path):
  workdir = tmp_path / 'run'
  flags = (
    '--config.optimizer.name=sgd',
    # Two layers without a norm: 1e16 squared twice is not a float32.
    '--config.optimizer.learning_rate=1e16',
    '--config.learner.norm=none',
    '--config.learner.learn_scale=False',
    '--config.optimizer.clip=0',
    '--config.log_steps=7',
    '--config.checkpoint_steps=1',
  )
  ended = runs.call('train', *runs.tiny_flags(workdir, *flags))
  assert ended.code == 4, ended.err
  last = ended.err.splitlines()[-1]
  assert 'loss' in last and 'became NaN or infinite' in last
  assert 'Traceback' not in ended.err
  state, step, _ = selection.restore_latest(
    workdir, {'params': template(workdir)}
  )
  assert f'within steps [{step + 1}, {step + 1}]' in last
  for name, leaf in serialization.name_leaves(state).items():
    assert np.isfinite(leaf).all(), name
  again = runs.call('train', *runs.tiny_flags(workdir, *flags))
  assert (again.code, again.err.splitlines()[-1]) == (4, last)
  # Several updates in a call: one of them is enough, and nothing is saved.
  several = ('--config.steps_per_call=4', '--config.checkpoint_steps=4')
  ended = runs.call(
    'train', *runs.tiny_flags(tmp_path / 'four', *flags, *several)
  )
  assert ended.code == 4, ended.err
  assert 'within steps [1, 4]' in ended.err.splitlines()[-1]
  assert not runs.steps(tmp_path / 'four')


def template(workdir):
  """Return the parameters in the newest checkpoint."""
  path = pathlib.Path(workdir, 'checkpoints', str(runs.newest_step(workdir)))
  state, _, _ = checkpoints.read_step(str(path))
  return state['params']


def test_the_log_is_strict_json(tmp_path):
  del tmp_path
  for line in (runs.finished_run() / 'train.jsonl').read_text().splitlines():
    row = json.loads(line, parse_constant=lambda name: 1 / 0)
    assert {'step', 'loss', 'grad_norm', 'steps_per_second'} <= set(row)


def test_a_network_larger_than_the_memory_is_exit_code_8(tmp_path):
  wide = '--config.learner.channels=4000000000000'
  done = runs.call('train', *runs.tiny_flags(tmp_path / 'run', wide))
  assert done.code == 8
  line = done.err.strip().splitlines()[-1]
  assert line.startswith('train: the device has too little memory (RESOURCE_EX')
  assert 'config.batch or config.chunk' in line
