"""Soft k-means of unlabelled features around prototypes."""

import jax
import jax.numpy as jnp

from hyperudl.ops import losses


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


def k_means(key, x, mask, clusters, restarts=10, iterations=20):
  """Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii 2007).

  Args:
    key: PRNG key of the seeds.
    x: f32[n, D].
    mask: f32[n], rows that count; at least `clusters` of them.
    clusters: N.
    restarts: how often it starts; the smallest sum of squares wins.
    iterations: of each start.

  Returns:
    f32[N, D], the centres: means of the rows assigned to them, with a gradient
    through these means and none through the assignment.
  """
  fixed = jax.lax.stop_gradient(x)

  def centres_of(shares, rows):
    counts = jnp.maximum(jnp.sum(shares, axis=0), 1.0)
    return shares.T @ rows / counts[:, None]

  def assign(centres):
    distances = losses.squared_distances(fixed, centres)
    nearest = jax.nn.one_hot(jnp.argmin(distances, axis=1), clusters)
    loss = jnp.sum(mask * jnp.maximum(jnp.min(distances, axis=1), 0.0))
    return nearest * mask[:, None], loss

  def run(key):
    centres = fixed[_seeds(key, fixed, mask, clusters)]

    def step(centres, _):
      shares, _ = assign(centres)
      # A cluster without rows stays where it is.
      empty = jnp.sum(shares, axis=0) == 0
      moved = centres_of(shares, fixed)
      return jnp.where(empty[:, None], centres, moved), None

    centres, _ = jax.lax.scan(step, centres, length=iterations)
    shares, loss = assign(centres)
    return shares, loss

  shares, loss = jax.vmap(run)(jax.random.split(key, restarts))
  return centres_of(shares[jnp.argmin(loss)], x)


def _seeds(key, x, mask, clusters):
  """k-means++: each next row with probability in proportion to D^2."""
  keys = jax.random.split(key, clusters)
  row = jax.random.categorical(keys[0], jnp.log(mask))
  rows, nearest = [row], losses.squared_distances(x, x[row][None])[:, 0]
  for step in range(1, clusters):
    weight = mask * jnp.maximum(nearest, 0.0)
    # All rows alike: any of them.
    weight = jnp.where(jnp.sum(weight) > 0, weight, mask)
    row = jax.random.categorical(keys[step], jnp.log(weight))
    rows.append(row)
    nearest = jnp.minimum(
      nearest, losses.squared_distances(x, x[row][None])[:, 0]
    )
  return jnp.stack(rows)
