"""Encodes the labels of an episode for a transformer, for any number of ways.

'learned' encodings belong to labels: one vector for each of N classes. The
others are a table of `SLOTS` vectors, of which the classes of an episode get
different ones at random, so that all are trained whatever the number of classes
is: 'random_table' is learned, 'equiangular' is fixed.
"""

from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

SLOTS = 20  # vectors of a table, the most classes that it can encode
Kind = Literal['learned', 'random_table', 'equiangular']


def check(kind: str, way: int, width: int) -> None:
  """Refuse an encoding with too few vectors, or too few dimensions.

  Raises:
    ValueError: naming the number and its limit.
  """
  if kind == 'learned':
    return
  if way > SLOTS:
    raise ValueError(
      f'label_encoding = {kind!r} has {SLOTS} vectors, and there are {way} '
      "classes: choose 'learned'"
    )
  if kind == 'equiangular' and width < SLOTS:
    raise ValueError(
      f"label_encoding = 'equiangular' needs a width of {SLOTS} or more, not "
      f"{width}: choose 'random_table'"
    )


def equiangular(width: int) -> jax.Array:
  """Return `SLOTS` unit vectors f32[SLOTS, width], all at the same angle.

  They are the corners of a regular simplex around zero, with cosines of
  -1 / (SLOTS - 1), the smallest possible (CAML, arXiv:2310.10971, section 4).

  Args:
    width: at least `SLOTS`.
  """
  corners = jnp.eye(SLOTS, width) - jnp.eye(SLOTS, width).mean(axis=0)
  return corners / jnp.linalg.norm(corners, axis=1, keepdims=True)


def assign(x: jax.Array, y: jax.Array, way: int) -> jax.Array:
  """Assign the vectors of a table to the classes of a support at random.

  The random numbers come from the pixels, so that a support always has the same
  assignment, in any order of its images and with any names of its classes.

  Args:
    x: f32[S, ...], images or features.
    y: i32[S]; only rows of a class in [0, N) are read.
    way: N, at most `SLOTS`.

  Returns:
    i32[N], different numbers below `SLOTS`.
  """
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  bits = bits.reshape(len(y), -1)
  # Sums of integers are exact in any order; those of floats are not.
  place = 2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1
  rows = _mix(jnp.sum(bits * place, axis=1, dtype=jnp.uint32))
  member = y == jnp.arange(way)[:, None]
  numbers = jnp.sum(jnp.where(member, rows, 0), axis=1, dtype=jnp.uint32)
  numbers = _mix(numbers)
  present = member.any(axis=1)
  order = jnp.lexsort((jnp.arange(way), numbers, ~present))
  key = jax.random.key(jnp.sum(numbers * present, dtype=jnp.uint32))
  shuffled = jax.random.permutation(key, SLOTS)
  return jnp.zeros(way, jnp.int32).at[order].set(shuffled[:way])


def _mix(x):
  """Scramble the bits of uint32[...], as MurmurHash3 does at its end."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def encode(
  module: nn.Module,
  kind: str,
  way: int,
  width: int,
  std: float,
  slots: jax.Array | None,
) -> jax.Array:
  """Return the encodings of classes, and of images without a label.

  Args:
    module: that the parameters belong to.
    kind: one of `Kind`.
    way: N.
    width: of a vector.
    std: root mean square of a vector's entries (at first, if it is learned).
    slots: i32[N], from `assign`; None for 'learned'.

  Returns:
    f32[N + 1, width], in the last row that of no label.
  """
  normal = nn.initializers.normal(std)
  if kind == 'learned':
    return module.param('labels', normal, (way + 1, width))
  chosen = jax.nn.one_hot(slots, SLOTS)
  if kind == 'random_table':
    table = module.param('labels', normal, (SLOTS + 1, width))
    return jnp.concatenate([chosen @ table[:SLOTS], table[SLOTS:]])
  no_label = module.param('no_label', normal, (1, width))
  table = std * width**0.5 * equiangular(width)
  return jnp.concatenate([chosen @ table, no_label])
