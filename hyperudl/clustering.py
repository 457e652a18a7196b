"""Soft k-means of unlabelled features around prototypes."""

import jax
import jax.numpy as jnp

from hyperudl import losses


def refine_prototypes(head, features, mask, *, prior, mass, scale, iterations):
  """Prototypes moved by the unlabelled images that are assigned to them.

  Ren et al. 2018 (arXiv:1803.00676, eq. 3-4), by cosine in place of squared
  distances:  r_uc = softmax_c(scale cos(f_u, p_c)),
  p_c = (prior p_c(0) + mass sum_u r_uc f_u) / (prior + mass sum_u r_uc).

  Args:
    head: f32[N, D], p(0).
    features: f32[n, D] of unlabelled images.
    mask: f32[n], rows that count.
    prior: labelled images of each class.
    mass: f32[], what an unlabelled image counts; 0 changes nothing.
    scale: f32[], of the cosines.
    iterations: int, static.

  Returns:
    f32[N, D], unit rows weighted; only their directions matter.
  """
  start, features = losses.unit(head), losses.unit(features)
  moved = start
  for _ in range(iterations):
    likeness = scale * features @ losses.unit(moved).T
    shares = mass * jax.nn.softmax(likeness) * mask[:, None]
    total = prior + jnp.sum(shares, axis=0)
    moved = (prior * start + shares.T @ features) / total[:, None]
  return moved
