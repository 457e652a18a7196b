"""The small runs that the campaign disturbs, and what must come of them."""

import json
import pathlib
import sys

from tests.testing import runs
from tests.testing import tiny_sizes

STEPS = 60
EVERY = 5  # steps between rows of train.jsonl, and between checkpoints

_OPTIONS = {
  'protonet': {},
  'udl': {
    **{f'learner.{k}': v for k, v in tiny_sizes.UDL.items()},
    'learner.inner_steps': 1,
    'data.shift': 'noise',
  },
  'hypertransformer': {
    f'learner.{k}': v for k, v in tiny_sizes.HYPERTRANSFORMER.items()
  },
}
LEARNERS = tuple(_OPTIONS)


def train_flags(learner, workdir, data_dir):
  """Return the flags of a small run of a learner."""
  word = '' if learner == 'protonet' else ',unlabelled=0'
  if learner == 'udl':
    word = ',unlabelled=2'
  options = {
    'data.dir': data_dir,
    'data.augment': 'none',
    'steps': STEPS,
    'log_steps': EVERY,
    'checkpoint_steps': EVERY,
    'eval.episodes': 6,
    'eval.batch': 3,
    **({'learner.channels': '4,4'} if learner == 'protonet' else {}),
    **_OPTIONS[learner],
  }
  return [
    f'--config=configs/{learner}.py:tiny,way=3,shot=1,query=2,batch=2{word}',
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in options.items()),
  ]


def expected_steps():
  """Return the steps of the rows of train.jsonl of a finished run."""
  return list(range(EVERY, STEPS + 1, EVERY))


def main():
  """Print what a run has come to; in a process of its own, as it uses JAX."""
  workdir = pathlib.Path(sys.argv[1])
  state = {
    'digest': runs.digest(workdir),
    'steps': runs.logged_steps(workdir),
    'done': (workdir / 'DONE').exists(),
    'evaluated': [row['step'] for row in runs.results(workdir, 'test')],
  }
  sys.stdout.write(json.dumps(state))


if __name__ == '__main__':
  main()
