"""The recipes of CONTRIBUTING.md work in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.testing import runs

TEXT = (runs.ROOT / 'CONTRIBUTING.md').read_text()
TINY = [
  '--config.steps=1',
  '--config.batch=2',
  '--config.checkpoint_steps=1',
  '--config.log_steps=1',
]
UDL = [
  *('--config=configs/udl.py', '--config.learner.ssl=balance'),
  *('--config.learner.channels=4,6', '--config.learner.width=8'),
  *('--config.learner.trunk=4,6,8', '--config.learner.layers=1'),
  *('--config.learner.elbo=none', '--config.learner.critic=none'),
  *('--config.learner.inner_steps=1', '--config.learner.gate=none'),
  *('--config.learner.cluster=0', '--config.learner.blend=False'),
]
CASES = {
  'Add a learner': ['--config=configs/nearest.py:glyphs,way=3'],
  'Add an inner loss of `udl`': UDL,
  'Add a backbone': [
    '--config=configs/protonet.py',
    '--config.learner.backbone=conv_5x5',
    '--config.learner.channels=4,4',
  ],
  'Add a data set': [
    '--config=configs/protonet.py:flowers,way=3,shot=1',
    '--config.learner.channels=4,4',
  ],
}


def follow(section, folder):
  """Does what the code of a section of the page says, in a folder."""
  (part,) = re.findall(
    rf'\n## {re.escape(section)}\n(.*?)(?=\n## |\Z)', TEXT, re.S
  )
  for code in re.findall(r'```python\n(.*?)```', part, re.S):
    first, _, rest = code.partition('\n')
    new = re.fullmatch(r'# (\S+) \(new\)', first)
    added = re.fullmatch(r'# (\S+), (before|after) "(.*)"', first)
    if new:
      (folder / new[1]).write_text(rest)
    elif added:
      path, side, anchor = added.groups()
      text = (folder / path).read_text()
      assert text.count(anchor) == 1, (path, anchor)
      both = (
        (rest, anchor) if side == 'before' else (f'{anchor}\n', rest.rstrip())
      )
      (folder / path).write_text(text.replace(anchor, ''.join(both)))
    else:
      subprocess.run([sys.executable, '-c', code], cwd=folder, check=True)


@pytest.mark.parametrize(
  'section',
  [
    'Add an inner loss of `udl`',
    'Add a backbone',
    pytest.param('Add a learner', marks=pytest.mark.slow),
    pytest.param('Add a data set', marks=pytest.mark.slow),
  ],
)
def test_a_recipe_trains_for_one_update(section, tmp_path):
  folder = tmp_path / 'repository'
  for name in ('hyperudl', 'configs'):
    shutil.copytree(runs.ROOT / name, folder / name)
  (folder / 'data_numpy_dir').mkdir()
  follow(section, folder)
  command = [sys.executable, '-m', 'hyperudl.train', *CASES[section], *TINY]
  done = subprocess.run(
    [*command, f'--workdir={tmp_path / "run"}'],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(folder), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'run' / 'DONE').exists()


def test_every_recipe_is_followed():
  assert re.findall(r'\n## (Add .*)\n', TEXT) == list(CASES)
