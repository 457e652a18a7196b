"""Normalises by statistics of the current images, without running means."""

import jax
import jax.numpy as jnp

NORMS = ('batch', 'domain', 'group', 'layer', 'none')
EPSILON = 1e-5  # added to variances


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
  return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


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
