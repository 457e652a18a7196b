"""Fits linear classifiers (W f32[D, N], b f32[N]) to labelled features.

Rows without a label are zero in `one_hot` and do not count.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from hyperudl.ops import gradient_descent
from hyperudl.ops import losses
from hyperudl.ops import ridge as ridge_ops

if TYPE_CHECKING:
  from hyperudl.learners.baseline import Config

Linear = tuple[jax.Array, jax.Array]  # W f32[D, N], b f32[N]


def of_means(
  means: jax.Array, scale: float, log_prior: jax.Array | float = 0.0
) -> Linear:
  """Return the classifier log_prior_c - scale |z - p_c|^2 without |z|^2.

  Args:
    means: f32[N, D], p.
    scale: inverse temperature.
    log_prior: f32[N] or 0.
  """
  bias = log_prior - scale * jnp.sum(jnp.square(means), axis=1)
  return 2 * scale * means.T, bias


def ridge(config: 'Config', z: jax.Array, one_hot: jax.Array) -> Linear:
  """Fit one-hot labels by least squares + penalty |W|^2; b is not penalised.

  Args:
    config: `penalty`, and `scale` by which the predictions are multiplied.
    z: f32[S, D].
    one_hot: f32[S, N].
  """
  labelled = jnp.sum(one_hot, axis=1)
  mean = losses.masked_mean(z, labelled)
  target_mean = losses.masked_mean(one_hot, labelled)
  weights = ridge_ops.fit(
    z - mean, one_hot - target_mean, labelled, config.penalty
  )
  bias = target_mean - mean @ weights
  return config.scale * weights, config.scale * bias


def logistic(config: 'Config', z: jax.Array, one_hot: jax.Array) -> Linear:
  """Minimise the summed cross-entropy + penalty |W|^2 / 2 by L-BFGS.

  Args:
    config: `penalty` (1 / C of scikit-learn) and `fit_steps`.
    z: f32[S, D].
    one_hot: f32[S, N].
  """
  optimizer = optax.lbfgs()

  def loss(linear):
    weights, bias = linear
    log_p = jax.nn.log_softmax(z @ weights + bias)
    penalty = config.penalty * jnp.sum(jnp.square(weights)) / 2
    return penalty - jnp.sum(one_hot * log_p)

  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(carry, _):
    linear, state = carry
    value, grad = value_and_grad(linear, state=state)
    updates, state = optimizer.update(
      grad, state, linear, value=value, grad=grad, value_fn=loss
    )
    return (optax.apply_updates(linear, updates), state), None

  start = jnp.zeros((z.shape[1], one_hot.shape[1])), jnp.zeros(one_hot.shape[1])
  carry = start, optimizer.init(start)
  (linear, _), _ = jax.lax.scan(step, carry, length=config.fit_steps)
  return linear


def finetune(config: 'Config', z: jax.Array, one_hot: jax.Array) -> Linear:
  """Take Adam steps on the mean cross-entropy of the labelled rows, from zero.

  Args:
    config: `fit_steps` and `finetune_rate`.
    z: f32[S, D].
    one_hot: f32[S, N].
  """
  labelled = jnp.sum(one_hot, axis=1)

  def loss(linear, step):
    del step
    weights, bias = linear
    log_p = jax.nn.log_softmax(z @ weights + bias)
    return losses.masked_mean(-jnp.sum(one_hot * log_p, axis=1), labelled)

  start = jnp.zeros((z.shape[1], one_hot.shape[1])), jnp.zeros(one_hot.shape[1])
  linear, _ = gradient_descent.optimise(
    loss, start, optax.adam(config.finetune_rate), config.fit_steps
  )
  return linear
