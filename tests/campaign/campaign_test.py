"""A short campaign: killed runs end alike, damaged files end in one line.

The long one, `python -m tests.campaign --kills=1000 --files=10000`, and its
report are in docs/results/reliability.md.
"""

import json
import os
import random
import subprocess
import sys

import pytest

from tests.campaign import faults
from tests.campaign import mutations
from tests.testing import forking
from tests.testing import runs


def result(code, err):
  return forking.Result(code, '', err, 0.1, 100)


@pytest.mark.parametrize(
  'ended, words',
  [
    (result(2, 'train: no\n'), ''),
    (result(1, 'train: no\n'), 'exit code 1'),
    (result(-11, ''), 'exit code -11'),
    (result(2, 'train: no\nand more\n'), '2 lines'),
    (result(2, 'Traceback (most recent call last):\n'), 'traceback'),
  ],
)
def test_what_is_not_documented_is_a_complaint(ended, words):
  found = faults.complaint(ended, (0, 2), lines=1)
  assert words in found and bool(found) == bool(words)


def test_a_mutation_depends_on_its_seed_alone():
  content = bytes(range(100))
  one, same, other = (
    mutations.mutate(content, random.Random(seed)) for seed in (0, 0, 1)
  )
  assert one == same != other and one != content


def campaign(folder, kills, files, seed=0):
  """Run a campaign and return its report."""
  flags = [f'--kills={kills}', f'--files={files}', f'--seed={seed}']
  done = subprocess.run(
    [sys.executable, '-m', 'tests.campaign', *flags, f'--out={folder}'],
    cwd=runs.ROOT,
    env=dict(os.environ),
    capture_output=True,
    text=True,
  )
  assert 'Traceback' not in done.stderr.replace('traceback: ', ''), done.stderr
  report = json.loads(done.stdout)
  assert (done.returncode, report['failed']) == (0, []), done.stderr[-3000:]
  return report


@pytest.mark.slow
def test_a_few_kills_and_damaged_files(tmp_path):
  report = campaign(tmp_path, kills=2, files=20)
  assert sum(report['faults'].values()) == 2
  assert sum(kind['trials'] for kind in report['trials'].values()) == 21
  # It goes on where it ended: with nothing.
  lines = (tmp_path / 'trials.jsonl').read_text()
  assert campaign(tmp_path, kills=2, files=20) == report
  assert (tmp_path / 'trials.jsonl').read_text() == lines


@pytest.mark.slow
def test_a_short_campaign(tmp_path):
  report = campaign(tmp_path, kills=20, files=300)
  assert {'protonet', 'udl', 'hypertransformer'} <= set(report['trials'])
  assert {f.__name__ for f in mutations.DATA} <= {
    f'write_{name}' for name in report['trials']
  }
