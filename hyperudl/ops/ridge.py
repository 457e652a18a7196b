"""Fits linear maps in closed form: ridge regression with weighted rows."""

import jax
import jax.numpy as jnp


def fit(
  features: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  penalty: jax.Array | float,
) -> jax.Array:
  """Return argmin_W sum_i w_i |x_i W - y_i|^2 + penalty |W|^2.

  Differentiable in all arguments. It solves the smaller of the two normal
  equations, as in R2-D2 (Bertinetto et al. 2019, arXiv:1805.08136, eq. 5-6).

  Args:
    features: f32[n, D], rows x_i; append a column of ones for a bias.
    targets: f32[n, C], rows y_i.
    weights: f32[n], w_i >= 0; rows of weight 0 do not count.
    penalty: f32[], above 0.

  Returns:
    W, f32[D, C].
  """
  # sqrt has no finite derivative at 0.
  counted = weights > 0
  root = jnp.where(counted, jnp.sqrt(jnp.where(counted, weights, 1.0)), 0.0)
  x, y = root[:, None] * features, root[:, None] * targets
  rows, size = x.shape
  if rows < size:
    gram = x @ x.T + penalty * jnp.eye(rows, dtype=x.dtype)
    return x.T @ jax.scipy.linalg.solve(gram, y, assume_a='pos')
  gram = x.T @ x + penalty * jnp.eye(size, dtype=x.dtype)
  return jax.scipy.linalg.solve(gram, x.T @ y, assume_a='pos')
