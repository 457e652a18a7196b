"""Clusters features by k-means, and by soft k-means around prototypes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hyperudl.ops import losses


def refine_prototypes(
  prototypes: jax.Array,
  features: jax.Array,
  mask: jax.Array,
  *,
  prior: jax.Array | float,
  mass: jax.Array | float,
  scale: jax.Array | float,
  iterations: int,
  present: jax.Array | None = None,
) -> jax.Array:
  """Move prototypes towards the unlabelled images assigned to them.

  This is `soft_k_means` of directions, by cosines:
  r_uc = softmax_c(scale cos(f_u, p_c)),
  p_c = (prior p_c(0) + mass sum_u r_uc f_u) / (prior + mass sum_u r_uc).

  Args:
    prototypes: f32[N, D], p(0).
    features: f32[n, D] of unlabelled images.
    mask: f32[n], 1 for rows that count, else 0.
    prior: number of labelled images of each class, f32[] or f32[N, 1].
    mass: f32[], weight of an unlabelled image; 0 changes nothing.
    scale: f32[], factor of the cosines (inverse temperature).
    iterations: static.
    present: bool[N], classes that images can belong to; None for all.

  Returns:
    f32[N, D], weighted means of unit rows; only their directions matter.
  """

  def logits(features, centroids):
    cosines = scale * features @ _unit(centroids).T
    return losses.mask_absent(cosines, present)

  return soft_k_means(
    _unit(prototypes),
    _unit(features),
    mass * mask,
    prior,
    logits,
    iterations,
  )


def _unit(x):  # as losses.unit
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def soft_k_means(
  init_centroids: jax.Array,
  features: jax.Array,
  weights: jax.Array,
  init_counts: jax.Array | float,
  logits: Callable[[jax.Array, jax.Array], jax.Array],
  iterations: int,
) -> jax.Array:
  """Move centroids towards the features softly assigned to them.

  Follows Ren et al. 2018 (arXiv:1803.00676, eq. 3-4).

  Args:
    init_centroids: f32[N, D].
    features: f32[n, D].
    weights: f32[n], weights of the features.
    init_counts: f32[N, 1] or f32[], weights of the initial centroids.
    logits: (features, centroids) -> f32[n, N], logits of the assignment.
    iterations: static.

  Returns:
    f32[N, D].
  """
  centroids = init_centroids
  for _ in range(iterations):
    assigned = weights[:, None] * jax.nn.softmax(logits(features, centroids))
    total = init_counts + jnp.sum(assigned, axis=0)[:, None]
    centroids = init_counts * init_centroids + assigned.T @ features
    centroids /= jnp.maximum(total, 1e-6)
  return centroids


def k_means(
  key: jax.Array,
  x: jax.Array,
  mask: jax.Array,
  clusters: int,
  restarts: int = 10,
  iterations: int = 20,
) -> jax.Array:
  """Run Lloyd's algorithm from k-means++ seeds (Arthur, Vassilvitskii 2007).

  Args:
    key: PRNG key of the seeds.
    x: f32[n, D].
    mask: f32[n], 1 for rows that count (at least `clusters`), else 0.
    clusters: N.
    restarts: number of runs; the one with the smallest sum of squares wins.
    iterations: number of iterations of each run.

  Returns:
    f32[N, D], the centroids: means of the rows assigned to them, with a
    gradient through these means and none through the assignment.
  """
  fixed = jax.lax.stop_gradient(x)

  def means(assigned, rows):
    counts = jnp.maximum(jnp.sum(assigned, axis=0), 1.0)
    return assigned.T @ rows / counts[:, None]

  def assign(centroids):
    distances = losses.squared_distances(fixed, centroids)
    nearest = jax.nn.one_hot(jnp.argmin(distances, axis=1), clusters)
    loss = jnp.sum(mask * jnp.maximum(jnp.min(distances, axis=1), 0.0))
    return nearest * mask[:, None], loss

  def run(key):
    centroids = fixed[_seeds(key, fixed, mask, clusters)]

    def step(centroids, _):
      assigned, _ = assign(centroids)
      # The centroid of a cluster without rows does not move.
      empty = jnp.sum(assigned, axis=0) == 0
      new = means(assigned, fixed)
      return jnp.where(empty[:, None], centroids, new), None

    centroids, _ = jax.lax.scan(step, centroids, length=iterations)
    return assign(centroids)

  assigned, loss = jax.vmap(run)(jax.random.split(key, restarts))
  return means(assigned[jnp.argmin(loss)], x)


def _seeds(key, x, mask, clusters):
  """Draw rows by k-means++, each with probability proportional to D^2."""
  weight, rows = mask, []
  nearest = jnp.full(x.shape[0], jnp.inf)
  for row_key in jax.random.split(key, clusters):
    row = jax.random.categorical(row_key, jnp.log(weight))
    rows.append(row)
    distances = losses.squared_distances(x, x[row][None])[:, 0]
    nearest = jnp.minimum(nearest, distances)
    weight = mask * jnp.maximum(nearest, 0.0)
    # If all rows are equal to chosen ones, draw any of them.
    weight = jnp.where(jnp.sum(weight) > 0, weight, mask)
  return jnp.stack(rows)
