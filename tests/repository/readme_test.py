"""What the README shows works as shown, and it is short."""

import re

import jax.numpy as jnp

from tests.testing import runs

README = runs.ROOT / 'README.md'


def test_the_readme_is_short_and_begins_with_the_two_commands():
  lines = README.read_text().splitlines()
  assert len(lines) <= 200
  commands = [
    line.split('#')[0].strip() for line in lines if line[:4] == ' ' * 4
  ]
  assert commands[:2] == ['bash launch/quickstart.sh', 'bash launch/test.sh']


def test_the_python_of_the_readme_runs():
  (code,) = re.findall(r'```python\n(.*?)```', README.read_text(), re.S)
  names = {}
  exec(compile(code, 'README.md', 'exec'), names)
  assert names['logits'].shape == (3, 3)
  assert jnp.isfinite(names['logits']).all()


def test_every_learner_has_a_config_in_the_readme():
  named = set(re.findall(r'^\| `(\w+\.py)` \|', README.read_text(), re.M))
  configs = {path.name for path in (runs.ROOT / 'configs').glob('*.py')}
  assert named == configs - {'common.py', '__init__.py'}
