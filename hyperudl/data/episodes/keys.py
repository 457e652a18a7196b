"""Makes the random keys of training and evaluation episodes.

Each episode has its own key, a pure function of its place in training or in an
evaluation, so that there is no iterator state to save.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl.core import BadInput

SPLITS = ('train', 'valid', 'test', 'all')


def train_keys(seed: int, step: int | jax.Array, batch: int) -> jax.Array:
  """Return key[batch], the keys of the training episodes of update `step`.

  Args:
    seed: int, the seed of the run.
    step: int or i32[].
    batch: int; a larger batch begins with the same keys.
  """
  return _stream(jax.random.key(seed), 0, step, 0, batch)


def eval_keys(split: str, start: int, count: int) -> jax.Array:
  """Return keys of the fixed episodes start .. start + count - 1 of a split.

  They do not depend on a seed, so that every model gets the same episodes.

  Args:
    split: one of `SPLITS`.
    start: number of the first episode.
    count: number of episodes.

  Returns:
    key[count].

  Raises:
    core.BadInput: an unknown split.
  """
  if split not in SPLITS:
    raise BadInput(
      f'unknown split {split!r}: choose one of {", ".join(SPLITS)}'
    )
  # Streams 1 to 4 of a constant seed; training uses stream 0 of its seed.
  return _stream(jax.random.key(2023), 1 + SPLITS.index(split), 0, start, count)


@functools.partial(jax.jit, static_argnames=('count',))
def _stream(key, stream, step, start, count):
  key = jax.random.fold_in(jax.random.fold_in(key, stream), step)
  return jax.vmap(functools.partial(jax.random.fold_in, key))(
    start + jnp.arange(count)
  )
