"""Principal components of the images of one episode."""

import jax
import jax.numpy as jnp


def principal_scores(x, mask, count):
  """Coordinates of images along the principal axes of these very images.

  HyperFast (arXiv:2402.14335) conditions its hypernetwork on the PCA of the
  samples at hand. Axes are sorted by variance; the sign of each is such that
  the image furthest out on it has a positive coordinate; all are divided by
  the standard deviation along the first. No gradient passes: eigenvectors of
  equal eigenvalues have none.

  Args:
    x: f32[n, ...], images.
    mask: f32[n]; rows with 0 take no part and get zeros.
    count: L. Columns beyond n are zeros.

  Returns:
    f32[n, L].
  """
  x = jax.lax.stop_gradient(x.reshape(x.shape[0], -1))
  mask = mask[:, None].astype(x.dtype)
  total = jnp.maximum(mask.sum(), 1.0)
  x = (x - (mask * x).sum(axis=0) / total) * mask
  # n is far below the number of pixels, so of the n x n inner products.
  values, vectors = jnp.linalg.eigh(x @ x.T)
  values, vectors = values[::-1], vectors[:, ::-1]
  furthest = jnp.argmax(jnp.abs(vectors), axis=0)
  signs = jnp.sign(jnp.take_along_axis(vectors, furthest[None], axis=0))
  scores = vectors * signs * jnp.sqrt(jnp.maximum(values, 0.0))
  scores = scores / jnp.sqrt(jnp.maximum(values[0] / total, 1e-12))
  scores = jnp.pad(scores, ((0, 0), (0, max(0, count - x.shape[0]))))
  return scores[:, :count] * mask
