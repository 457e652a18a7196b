"""Normalises by statistics of the current images, without running means.

`recording` and `replaying` hold the statistics of norm='batch' fixed: those of
one call of a network, on reference images, are then used in another.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import contextvars
from typing import TypeAlias

import jax
import jax.numpy as jnp

from hyperudl.ops import losses

NORMS = ('batch', 'domain', 'group', 'layer', 'none')
EPSILON = 1e-5  # added to variances
_SMALLEST = 1e-6  # added to variances of features, which may be small

Moments: TypeAlias = tuple[jax.Array, jax.Array]  # mean, centred variance
# (whether to replay, the moments of each norm in the order of its call).
_tape: contextvars.ContextVar[tuple[bool, list[Moments]] | None] = (
  contextvars.ContextVar('tape', default=None)
)


@contextlib.contextmanager
def recording() -> Iterator[list[Moments]]:
  """Collect the moments of every norm='batch' that is computed inside."""
  moments: list[Moments] = []
  token = _tape.set((False, moments))
  try:
    yield moments
  finally:
    _tape.reset(token)


@contextlib.contextmanager
def replaying(moments: Sequence[Moments]) -> Iterator[None]:
  """Use recorded moments for every norm='batch' that is computed inside.

  Args:
    moments: from `recording` around the same function of other images.
  """
  token = _tape.set((True, list(moments)))
  try:
    yield
  finally:
    _tape.reset(token)


def may_fuse(norm: str) -> bool:
  """Return whether a norm may be computed together with its convolution."""
  return norm == 'batch' and _tape.get() is None


def moments(
  x: jax.Array, norm: str, groups: int = 1
) -> tuple[jax.Array, jax.Array]:
  """Return mean and centred variance, in shapes that broadcast to `x`.

  Args:
    x: f32[n, H, W, C].
    norm: 'batch' (moments of each channel over images and positions), 'group'
      (of each image and group of neighbouring channels) or 'layer' (of each
      image).
    groups: number of groups for 'group'; divides C.
  """
  tape = _tape.get() if norm == 'batch' else None
  if tape and tape[0]:
    return tape[1].pop(0)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if norm == 'group':
    n, height, width, channels = x.shape
    split = x.reshape(n, height, width, groups, channels // groups)
    axes = (1, 2, 4)
    mean = jnp.mean(split, axes, keepdims=True)
    variance = jnp.mean(jnp.square(split - mean), axes, keepdims=True)
    to_channels = lambda m: jnp.broadcast_to(
      m, (n, 1, 1, groups, channels // groups)
    ).reshape(n, 1, 1, channels)
    return to_channels(mean), to_channels(variance)
  axes = (0, 1, 2) if norm == 'batch' else (1, 2, 3)
  mean = jnp.mean(x, axes, keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
  if tape:
    tape[1].append((mean, variance))
  return mean, variance


def domain_statistics(
  x: jax.Array, part: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return mean and centred variance of each channel over each domain's images.

  As in adaptive batch normalisation (Li et al. 2016, arXiv:1603.04779).

  Args:
    x: f32[n, H, W, C].
    part: f32[n, G], the domain of each image, one-hot, or zeros for none. A
      domain without images takes the statistics of all images that have one.

  Returns:
    Two f32[G, C].
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  part = jnp.where(
    jnp.sum(part, axis=0) > 0, part, jnp.sum(part, axis=1, keepdims=True)
  )
  part = part / jnp.maximum(jnp.sum(part, axis=0), 1.0)
  # Deviations are taken from the mean of the domain.
  centres = part.T @ jnp.mean(x, axis=(1, 2))
  squares = jnp.stack(
    [
      jnp.mean(jnp.square(x - centre), axis=(1, 2)).T @ weight
      for centre, weight in zip(centres, part.T)
    ]
  )
  return centres, squares


def counting(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return one domain, with statistics of the images that count.

  Args:
    mask: [n], nonzero for images that count.

  Returns:
    (domain of each image, `part` of `domain_statistics`), two f32[n, 1].
  """
  counted = mask.astype(jnp.float32)[:, None]
  return jnp.ones_like(counted), counted


def of_rows(
  statistics: tuple[jax.Array, jax.Array], member: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return the statistics of each image's domain, two f32[n, 1, 1, C].

  Args:
    statistics: mean and variance of each domain, two f32[G, C].
    member: f32[n, G], the domain of each image, one-hot.
  """
  mean, variance = ((member @ each)[:, None, None] for each in statistics)
  return mean, variance


def affine(
  x: jax.Array,
  mean: jax.Array,
  variance: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
) -> jax.Array:
  """Return `x` normalised by its moments, then scaled and shifted."""
  return (x - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + bias


def standardise(
  features: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Scale each feature to mean 0 and variance 1 over the images.

  Args:
    features: f32[n, F].
    mask: f32[n], 1 for images that count, else 0; None for all.

  Returns:
    f32[n, F]; zeros where a feature is the same in all images.
  """
  mean = lambda x: jnp.mean(x, axis=0)
  if mask is not None:
    mean = lambda x: losses.masked_mean(x, mask)
  centred = features - mean(features)
  return centred / jnp.sqrt(mean(centred**2) + _SMALLEST)
