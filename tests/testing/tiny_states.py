"""Saves and damages states of one matrix, for the tests of selection."""

import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl.storage import checkpoints
from hyperudl.storage import selection

CONFIG = {'seed': 0}
POLICY = checkpoints.Policy()


def make_state(step, frozen=None):
  """Return a state whose matrix `w` is filled with its step."""
  params = {'w': jnp.full((3, 2), step, jnp.float32)}
  if frozen is not None:
    params['frozen'] = frozen
  return core.TrainState(jnp.int32(step), params, optax.sgd(1).init(params))


def write(workdir, *states):
  """Save these states in the order given."""
  manager = checkpoints.open_manager(workdir, POLICY)
  for state in states:
    checkpoints.save(manager, state, CONFIG)
  checkpoints.close(manager)


def keep_best(workdir, step, metric, keep=2, select_after=0):
  """Save a step if it is among the best, and return whether it is."""
  checkpoint = checkpoints.Checkpoint(make_state(step), step, CONFIG)
  policy = checkpoints.Policy(keep_best=keep, select_after=select_after)
  return selection.keep_best(workdir, checkpoint, metric, policy)


def damage(path):
  """Cut the file that lists the arrays of a checkpoint."""
  manifest = path / 'state' / 'manifest.ocdbt'
  manifest.write_bytes(manifest.read_bytes()[:20])
