"""Small states, saved, compared and damaged, for the tests of checkpoints."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hyperudl import core
from hyperudl.storage import checkpoints

CONFIG = {'seed': 0, 'learner': {'name': 'maml', 'width': 4, 'rates': (1, 2)}}


def make_state(step, width=4, dtype=jnp.float32):
  key = jax.random.fold_in(jax.random.key(0), step)
  params = {
    'block0': {'kernel': jax.random.normal(key, (30, width), dtype)},
    'half': jnp.arange(4, dtype=jnp.bfloat16),
    'layers': [jnp.ones(2) * step, jnp.zeros((0, 3))],
  }
  state = optax.adam(1e-3).init(params)
  return core.TrainState(jnp.int32(step), params, state)


def write(workdir, *numbers, keep=3):
  """Saves these steps and returns `checkpoints/`."""
  manager = checkpoints.open_manager(workdir, keep)
  for step in numbers:
    assert checkpoints.save(manager, make_state(step), CONFIG)
  checkpoints.close(manager)
  return workdir / 'checkpoints'


def restore(workdir):
  return checkpoints.restore_latest(workdir, make_state(0))


def assert_same(state, expected):
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected)):
    assert isinstance(got, np.ndarray)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def assert_step(workdir, step):
  state, number, config = restore(workdir)
  assert number == step
  assert config == json.loads(json.dumps(CONFIG))
  assert_same(state, make_state(step))


def files(path):
  return sorted(p for p in path.rglob('*') if p.is_file())


def damage(path, how):
  content = bytearray(path.read_bytes())
  if how == 'delete':
    path.unlink()
  elif how == 'flip':
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
  else:
    path.write_bytes(content[: len(content) // 2 if how == 'half' else 0])


def run(code, *args, env=None):
  """Runs a program with the names of this module in a process of its own."""
  code = 'from tests.checkpoint_helpers import *\n' + textwrap.dedent(code)
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', **(env or {})}
  command = [sys.executable, '-c', code, *map(str, args)]
  root = pathlib.Path(__file__).parents[2]
  return subprocess.run(
    command, capture_output=True, text=True, env=env, cwd=root, timeout=60
  )
