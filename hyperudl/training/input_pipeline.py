"""Episodes for the updates of a training, in the order of its steps.

What an update gets is a pure function of (seed, step): neither the number of
processes nor of updates in one call nor drawing ahead changes it.
"""

from concurrent import futures

import jax
import jax.numpy as jnp

from hyperudl.core import distributed
from hyperudl.data import episodes

AHEAD = 2  # calls whose episodes are drawn while others compute


def calls(config, start):
  """Yields (first step, count) of the calls from step `start` on.

  `config.steps_per_call` updates each, fewer before a step that is logged or
  saved and at the end.
  """
  while start < config.steps:
    every = config.log_steps, config.checkpoint_steps
    end = min(config.steps, *((start // n + 1) * n for n in every))
    count = min(config.steps_per_call, end - start)
    yield start, count
    start += count


def feed(config, draw, mesh, start, ahead=False):
  """Yields (count, episodes, keys) for each of `calls`.

  Args:
    config: of the run.
    draw: from `episodes.make_draw`.
    mesh: over which the episodes of several processes are spread, or None.
    start: int, steps done.
    ahead: draw in a thread while the device computes; for sets on the disk.

  Returns:
    A generator, to be closed. Leaves and keys have the axis B, and before it
    the axis of updates if `config.steps_per_call` is more than 1.
  """

  def load(step, count):
    share = distributed.share(config.batch)
    if config.steps_per_call == 1:
      keys = episodes.train_keys(config.seed, step, config.batch)[share]
      return distributed.spread((draw(keys), keys), mesh)
    of_step = lambda t: episodes.train_keys(config.seed, t, config.batch)[share]
    keys = jax.vmap(of_step)(step + jnp.arange(count))
    together = draw(keys.reshape(-1))
    # No -1: without unlabelled rows there are arrays of size zero.
    group = lambda leaf: leaf.reshape(
      count, leaf.shape[0] // count, *leaf.shape[1:]
    )
    parts = jax.tree.map(group, together), keys
    return distributed.spread(parts, mesh, axis=1)

  plan = calls(config, start)
  if not ahead:
    for step, count in plan:
      yield count, *load(step, count)
    return
  pool = futures.ThreadPoolExecutor(1, thread_name_prefix='draw')
  waiting = []
  try:
    for step, count in plan:
      waiting.append((count, pool.submit(load, step, count)))
      if len(waiting) > AHEAD:
        count, drawn = waiting.pop(0)
        yield count, *drawn.result()
    for count, drawn in waiting:
      yield count, *drawn.result()
  finally:
    pool.shutdown(cancel_futures=True)
