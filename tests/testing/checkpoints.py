"""Saves, compares and damages small states, for the tests of checkpoints."""

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
from hyperudl.storage import selection

CONFIG = {'seed': 0, 'learner': {'name': 'maml', 'width': 4, 'rates': (1, 2)}}


def make_state(step, width=4, dtype=jnp.float32):
  """Return a state with leaves of several types, different at each step."""
  key = jax.random.fold_in(jax.random.key(0), step)
  params = {
    'block0': {'kernel': jax.random.normal(key, (30, width), dtype)},
    'half': jnp.arange(4, dtype=jnp.bfloat16),
    'layers': [jnp.ones(2) * step, jnp.zeros((0, 3))],
  }
  state = optax.adam(1e-3).init(params)
  return core.TrainState(jnp.int32(step), params, state)


def write(workdir, *numbers, keep=3):
  """Save these steps and return the path of `checkpoints/`."""
  policy = checkpoints.Policy(keep_latest=keep)
  manager = checkpoints.open_manager(workdir, policy)
  for step in numbers:
    assert checkpoints.save(manager, make_state(step), CONFIG)
  checkpoints.close(manager)
  return workdir / 'checkpoints'


def restore(workdir):
  """Restore the newest readable checkpoint."""
  return selection.restore_latest(workdir, make_state(0))


def assert_same(state, expected):
  """Assert that two pytrees of arrays are equal, dtypes included."""
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected)):
    assert isinstance(got, np.ndarray)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def assert_step(workdir, step):
  """Assert that the newest readable checkpoint is this step's, bit for bit."""
  state, number, config = restore(workdir)
  assert number == step
  assert config == json.loads(json.dumps(CONFIG))
  assert_same(state, make_state(step))


def files(path):
  """Return all files below a folder."""
  return sorted(p for p in path.rglob('*') if p.is_file())


def damage(path, how):
  """Flip a bit of a file, cut it in half, empty or delete it."""
  content = bytearray(path.read_bytes())
  if how == 'delete':
    path.unlink()
  elif how == 'flip':
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
  else:
    path.write_bytes(content[: len(content) // 2 if how == 'half' else 0])


def run(code, *args, env=None):
  """Run a program with the names of this module in a process of its own."""
  code = 'from tests.testing.checkpoints import *\n' + textwrap.dedent(code)
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', **(env or {})}
  env.pop('JAX_COMPILATION_CACHE_DIR', None)  # files may not grow in some
  command = [sys.executable, '-c', code, *map(str, args)]
  root = pathlib.Path(__file__).parents[2]
  return subprocess.run(
    command, capture_output=True, text=True, env=env, cwd=root, timeout=60
  )
