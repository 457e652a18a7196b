"""Fits linear classifiers to labelled and unlabelled features.

In all functions `one_hot` f32[S, N] is zero for rows without a label, and
`rows` f32[S] is 1 for these. Without any such row each returns what the
labelled ones say alone.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from hyperudl.learners.baseline import supervised
from hyperudl.ops import clustering
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

if TYPE_CHECKING:
  from hyperudl.learners.baseline import Config


def soft_k_means(
  config: 'Config',
  means: jax.Array,
  z: jax.Array,
  one_hot: jax.Array,
  rows: jax.Array,
) -> supervised.Linear:
  """Move class means towards the rows softly assigned to them.

  Ren et al. 2018, arXiv:1803.00676, eq. 3-4, of squared distances.

  Args:
    config: `scale` and `iterations`.
    means: f32[N, D], class means.
    z: f32[S, D].
    one_hot, rows: see above.
  """
  means = clustering.soft_k_means(
    means,
    z,
    weights=rows,
    init_counts=jnp.sum(one_hot, axis=0)[:, None],
    logits=lambda z, p: -config.scale * losses.squared_distances(z, p),
    iterations=config.iterations,
  )
  return supervised.of_means(means, config.scale)


def tim(
  config: 'Config',
  means: jax.Array,
  z: jax.Array,
  one_hot: jax.Array,
  rows: jax.Array,
) -> supervised.Linear:
  """Raise the mutual information of rows and predictions: TIM-GD.

  Boudiaf et al. 2020, arXiv:2008.11297, eq. 4-5: Adam on the means p of
    a CE(labelled) - b H(mean of P_u) + c mean of H(P_u),
    P_uc = softmax_c(-tau / 2 |z_u - p_c|^2).

  Args:
    config: `tim_scale`, `tim_weights`, `tim_steps` and `tim_rate`.
    means: f32[N, D], class means, where p starts.
    z: f32[S, D].
    one_hot, rows: see above.
  """
  cross, marginal, conditional = config.tim_weights
  labelled = jnp.sum(one_hot, axis=1)

  def loss(means, step):
    del step
    weights, bias = supervised.of_means(means, config.tim_scale)
    log_p = jax.nn.log_softmax(z @ weights + bias)
    ce = losses.masked_mean(-jnp.sum(one_hot * log_p, axis=1), labelled)
    value = cross * ce
    value -= marginal * losses.marginal_entropy(jnp.exp(log_p), rows)
    return value + conditional * losses.masked_mean(losses.entropy(log_p), rows)

  means, _ = gradient_descent.optimise(
    loss, means, optax.adam(config.tim_rate), config.tim_steps
  )
  return supervised.of_means(means, config.tim_scale)


def centre(z: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Centre labelled and unlabelled features by their own means, as PT-MAP does.

  Args:
    z: f32[S, D], rows of length one.
    rows: f32[S], 1 for unlabelled rows.

  Returns:
    (f32[S, D], again of length one; f32[D], the mean of the unlabelled rows,
    or without any that of the labelled ones, by which to centre queries).
  """
  labelled = losses.masked_mean(z, 1 - rows)
  others = losses.masked_mean(z, rows)
  others = jnp.where(jnp.sum(rows) > 0, others, labelled)
  return losses.unit(z - jnp.where(rows[:, None] > 0, others, labelled)), others


def pt_map(
  config: 'Config', z: jax.Array, one_hot: jax.Array, rows: jax.Array
) -> supervised.Linear:
  """Estimate class centres by optimal transport of the unlabelled rows.

  Hu et al. 2021, arXiv:2006.03806, algorithm 1: with P of `sinkhorn`,
    c_j <- c_j + alpha ((sum of labelled z + sum_u P_uj z_u) / (K + sum_u P_uj)
                        - c_j).
  The classifier is the P of the last centres: a row's class does not depend on
  the other rows once the factors of the classes are known.

  Args:
    config: `scale` (lambda), `map_steps`, `map_rate` (alpha) and
      `sinkhorn_steps`.
    z: f32[S, D], of `centre`.
    one_hot, rows: see above.
  """
  counts = jnp.sum(one_hot, axis=0)[:, None]
  totals = one_hot.T @ z

  def step(centres, _):
    plan, _ = sinkhorn(config, z, centres, rows)
    masses = counts + jnp.sum(plan, axis=0)[:, None]
    estimate = (totals + plan.T @ z) / jnp.maximum(masses, 1e-6)
    return centres + config.map_rate * (estimate - centres), None

  centres = totals / jnp.maximum(counts, 1e-6)
  centres, _ = jax.lax.scan(step, centres, length=config.map_steps)
  _, log_factors = sinkhorn(config, z, centres, rows)
  return supervised.of_means(centres, config.scale, log_factors)


def sinkhorn(
  config: 'Config', z: jax.Array, centres: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Transport unlabelled rows to classes of equal size at the least cost.

  P_uj = r_u exp(-lambda |z_u - c_j|^2) v_j with sum_j P_uj = 1 (in the end
  exactly) and sum_u P_uj = U / N.

  Args:
    config: `scale` (lambda) and `sinkhorn_steps`.
    z: f32[S, D].
    centres: f32[N, D].
    rows: f32[S], 1 for the U rows to transport.

  Returns:
    (P f32[S, N], zero for other rows; log v f32[N], zero without any row).
  """
  logits = -config.scale * losses.squared_distances(z, centres)
  count = jnp.sum(rows)
  mask = jnp.where(rows[:, None] > 0, 0.0, -jnp.inf)
  target = jnp.log(jnp.maximum(count, 1.0) / centres.shape[0])

  def step(log_factors, _):
    log_p = jax.nn.log_softmax(logits + log_factors)
    sums = jax.nn.logsumexp(jnp.where(count > 0, log_p + mask, 0.0), axis=0)
    change = jnp.where(count > 0, target - sums, 0.0)
    return log_factors + change, None

  start = jnp.zeros(centres.shape[0])
  log_factors, _ = jax.lax.scan(step, start, length=config.sinkhorn_steps)
  return rows[:, None] * jax.nn.softmax(logits + log_factors), log_factors
