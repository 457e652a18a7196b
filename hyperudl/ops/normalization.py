"""Normalisation by the images at hand: nothing is remembered between calls."""

import jax
import jax.numpy as jnp

NORMS = ('batch', 'domain', 'group', 'layer', 'none')
EPSILON = 1e-5  # added to variances


def moments(x, norm, groups=1):
  """Mean and centred variance, in shapes that broadcast to `x`.

  Args:
    x: f32[n, H, W, C].
    norm: 'batch' (of each channel over images and positions), 'group' (of
      each image and group of neighbouring channels) or 'layer' (of each
      image).
    groups: number of groups of 'group'; it divides C.
  """
  if norm == 'group':
    n, height, width, channels = x.shape
    split = x.reshape(n, height, width, groups, channels // groups)
    axes = (1, 2, 4)
    mean = jnp.mean(split, axes, keepdims=True)
    variance = jnp.mean(jnp.square(split - mean), axes, keepdims=True)
    spread = lambda m: jnp.broadcast_to(
      m, (n, 1, 1, groups, channels // groups)
    ).reshape(n, 1, 1, channels)
    return spread(mean), spread(variance)
  axes = (0, 1, 2) if norm == 'batch' else (1, 2, 3)
  mean = jnp.mean(x, axes, keepdims=True)
  return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


def domain_statistics(x, part):
  """Mean and centred variance of each channel over the rows of each domain.

  Adaptive batch normalisation (Li et al. 2016, arXiv:1603.04779).

  Args:
    x: f32[n, H, W, C].
    part: f32[n, G], one-hot rows of the domain that an image is part of (zeros:
      of none). A domain without images takes the statistics of all.

  Returns:
    Two f32[G, C].
  """
  part = jnp.where(
    jnp.sum(part, axis=0) > 0, part, jnp.sum(part, axis=1, keepdims=True)
  )
  part = part / jnp.maximum(jnp.sum(part, axis=0), 1.0)
  # Each domain's deviations are from its own mean.
  centres = part.T @ jnp.mean(x, axis=(1, 2))
  squares = jnp.stack(
    [
      jnp.mean(jnp.square(x - centre), axis=(1, 2)).T @ share
      for centre, share in zip(centres, part.T)
    ]
  )
  return centres, squares


def of_rows(statistics, member):
  """Two f32[G, C], f32[n, G] -> two f32[n, 1, 1, C], of each image's domain."""
  return tuple((member @ each)[:, None, None] for each in statistics)


def affine(x, mean, variance, scale, bias):
  """`x` normalised by its moments, then scaled and shifted."""
  return (x - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + bias
