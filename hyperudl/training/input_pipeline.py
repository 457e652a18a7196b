"""Draws the episodes of a training in the order of its steps.

The episodes of an update are a pure function of (seed, step): they depend
neither on the number of processes, nor on the number of updates in one call,
nor on whether they are drawn ahead.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import itertools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.core.config import ConfigDict
from hyperudl.data import episodes

AHEAD = 2  # calls whose episodes are drawn while the device computes


def calls(config: ConfigDict, start: int) -> Iterator[tuple[int, int]]:
  """Yield (first step, number of updates) of each call from step `start` on.

  A call of the compiled function makes `config.steps_per_call` updates, fewer
  before a step that is logged or saved and at the end.
  """
  while start < config.steps:
    intervals = config.log_steps, config.checkpoint_steps
    end = min(config.steps, *((start // n + 1) * n for n in intervals))
    count = min(config.steps_per_call, end - start)
    yield start, count
    start += count


def feed(
  config: ConfigDict,
  draw: Callable,
  mesh: jax.sharding.Mesh | None,
  start: int,
  ahead: bool = False,
) -> Iterator[tuple[int, core.Episode, jax.Array]]:
  """Yield (count, episodes, keys) for each of `calls`.

  Args:
    config: of the run.
    draw: from `episodes.make_draw`.
    mesh: over which the episodes of several processes are divided, or None.
    start: steps done.
    ahead: draw in a thread while the device computes; for data on the disk.

  Returns:
    A generator, to be closed. Leaves and keys have the axis B, and before it
    the axis of updates if `config.steps_per_call` is more than 1.
  """

  def load(step, count):
    rows = distributed.local_slice(config.batch)
    keys_of = lambda t: episodes.train_keys(config.seed, t, config.batch)[rows]
    if config.steps_per_call == 1:
      keys = keys_of(step)
      return distributed.to_global_arrays((draw(keys), keys), mesh)
    keys = jax.vmap(keys_of)(step + jnp.arange(count))
    # No -1: without unlabelled rows there are arrays of size zero.
    group = lambda leaf: leaf.reshape(
      count, leaf.shape[0] // count, *leaf.shape[1:]
    )
    batches = jax.tree.map(group, draw(keys.reshape(-1)))
    return distributed.to_global_arrays((batches, keys), mesh, axis=1)

  plan = calls(config, start)
  if not ahead:
    yield from ((count, *load(step, count)) for step, count in plan)
    return
  pool = futures.ThreadPoolExecutor(1, thread_name_prefix='draw')
  submit = lambda call: (call[1], pool.submit(load, *call))
  waiting = collections.deque(map(submit, itertools.islice(plan, AHEAD)))
  try:
    while waiting:
      waiting.extend(map(submit, itertools.islice(plan, 1)))
      count, drawn = waiting.popleft()
      yield count, *drawn.result()
  finally:
    pool.shutdown(cancel_futures=True)
