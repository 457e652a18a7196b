"""Computes gates that scale the unsupervised adaptation of `udl`.

A small network maps statistics of the inner loop's images to the gates: how
their ELBO under a frozen autoencoder differs from that of clean and of labelled
images, how certain the predictions are, or both.
"""

from typing import TYPE_CHECKING
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import target_network
from hyperudl.nets import mlp
from hyperudl.nets import vae as vae_net
from hyperudl.ops import losses

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config

ELBO_INPUTS = 13
PREDICTION_INPUTS = 8
OPEN = 0.7310586  # initial value of a gate, sigmoid(1)


class Gates(NamedTuple):
  """Factors of the adaptation; all are 1 if gate='none'."""

  step_size: jax.Array  # f32[] in (0, 1), factor of all step sizes
  unlabelled_weight: jax.Array  # f32[] in (0, 1), in k-means
  cosine_scale: jax.Array  # f32[] in (0.2, 1.7), in k-means; 1 at first


def init(key: jax.Array, config: 'Config', hidden: int = 16) -> core.PyTree:
  """Return initial parameters: all but the scale are then sigmoid(1) = .73."""
  inputs = PREDICTION_INPUTS * ('predictions' in config.gate)
  inputs += ELBO_INPUTS * ('elbo' in config.gate)
  return init_network(key, inputs, len(Gates._fields), hidden)


def init_network(
  key: jax.Array, inputs: int, outputs: int, hidden: int = 16
) -> core.PyTree:
  """Return the parameters of a network with initial outputs sigmoid(1)."""
  return {
    'first': mlp.init_dense(key, inputs, hidden),
    'last': {
      'kernel': jnp.zeros((hidden, outputs), jnp.float32),
      'bias': jnp.ones((outputs,), jnp.float32),
    },
  }


def apply_network(gate: core.PyTree, inputs: jax.Array) -> jax.Array:
  """Return gates f32[outputs] in (0, 1) from statistics f32[inputs]."""
  first, last = gate['first'], gate['last']
  hidden = inputs @ first['kernel'] + first['bias']
  return jax.nn.sigmoid(jax.nn.silu(hidden) @ last['kernel'] + last['bias'])


def as_scale(scale: jax.Array) -> jax.Array:
  """Return a factor in (0.2, 1.7) of a gate, 1 for its initial value."""
  return jnp.exp(2 * (scale - OPEN))


def compute(
  config: 'Config',
  params: core.PyTree,
  network: target_network.Network,
  inputs: inner_losses.Inputs,
  terms: dict[str, jax.Array],
  support_terms: dict[str, jax.Array],
) -> Gates:
  """Compute the gates of one episode.

  Args:
    config: of the learner.
    params: of the learner.
    network: under v_0.
    inputs: inputs of the inner losses, under v_0.
    terms: ELBO terms of the inner loop's images under the frozen vae.
    support_terms: ELBO terms of the support.
  """
  if config.gate == 'none':
    return Gates(*jnp.ones(len(Gates._fields)))
  mask = inputs.images.mask
  labelled = (inputs.images.support.y >= 0).astype(jnp.float32)
  values = []
  if 'elbo' in config.gate:
    moments = params['frozen']['vae']['moments']
    values.append(elbo_inputs(moments, terms, support_terms, mask, labelled))
  if 'predictions' in config.gate:
    values.append(
      prediction_inputs(
        inputs.features, network.features, inputs.logits, mask, labelled
      )
    )
  gate = params['inner']['gate']
  step_size, weight, scale = apply_network(gate, jnp.concatenate(values))
  return Gates(step_size, weight, as_scale(scale))


def elbo_inputs(
  moments: dict[str, jax.Array],
  terms: dict[str, jax.Array],
  support_terms: dict[str, jax.Array],
  mask: jax.Array,
  labelled: jax.Array,
) -> jax.Array:
  """Compare images with clean and with labelled ones: f32[13] in (-2, 2).

  Args:
    moments: of the frozen vae over clean images, see `learners/vae.py`.
    terms: ELBO terms of n images, see `nets/vae.py`.
    support_terms: ELBO terms of the S rows of the support.
    mask: f32[n], images that count.
    labelled: f32[S], rows that count.
  """
  variance = jnp.exp(moments['latent_log_variance'])
  population = vae_net.read_moments(moments)
  scores = vae_net.standardise(terms, population)
  support_scores = vae_net.standardise(support_terms, population)
  error, kl = losses.signed_log(scores).T
  support_error, support_kl = losses.signed_log(support_scores).T
  mean_error = losses.masked_mean(error, mask)
  mean_kl = losses.masked_mean(kl, mask)
  labelled_error = losses.masked_mean(support_error, labelled)
  labelled_kl = losses.masked_mean(support_kl, labelled)
  mean = losses.masked_mean(terms['mean'], mask)
  labelled_mean = losses.masked_mean(support_terms['mean'], labelled)
  ratio = losses.masked_variance(terms['mean'], mask) / variance
  ratio = jnp.mean(jnp.log(ratio + 1e-3))
  to_population = jnp.mean(jnp.square(mean - moments['latent_mean']) / variance)
  to_labelled = jnp.mean(jnp.square(mean - labelled_mean) / variance)
  values = jnp.stack(
    [
      mean_error,
      mean_kl,
      jnp.sqrt(losses.masked_variance(error, mask) + 1e-6),
      jnp.sqrt(losses.masked_variance(kl, mask) + 1e-6),
      mean_error - labelled_error,
      mean_kl - labelled_kl,
      labelled_error,
      labelled_kl,
      losses.signed_log(to_population),
      losses.signed_log(to_labelled),
      ratio,
      jnp.square(ratio),
      losses.masked_mean(jnp.square(error), mask),
    ]
  )
  return 2 * jnp.tanh(values / 3)


def prediction_inputs(
  features: jax.Array,
  support_features: jax.Array,
  logits: jax.Array,
  mask: jax.Array,
  labelled: jax.Array,
) -> jax.Array:
  """Compute statistics of predictions and features; no autoencoder is needed.

  Args:
    features: f32[n, D], of the images.
    support_features: f32[S, D].
    logits: f32[n, N], of the images.
    mask: f32[n], images that count.
    labelled: f32[S], rows that count.

  Returns:
    f32[8] in (-2, 2).
  """
  log_p = jax.nn.log_softmax(logits)
  p = jnp.exp(log_p)
  ordered = jnp.sort(p, axis=-1)
  largest, margin = ordered[:, -1], ordered[:, -1] - ordered[:, -2]
  entropies = losses.entropy(log_p)
  means, variances = [], []
  for x, rows in ((features, mask), (support_features, labelled)):
    x = losses.unit(x)
    means.append(losses.masked_mean(x, rows))
    variances.append(jnp.mean(losses.masked_variance(x, rows)) + 1e-6)
  values = jnp.stack(
    [
      losses.masked_mean(largest, mask),
      jnp.sqrt(losses.masked_variance(largest, mask) + 1e-6),
      losses.masked_mean(margin, mask),
      losses.masked_mean(entropies, mask),
      jnp.sqrt(losses.masked_variance(entropies, mask) + 1e-6),
      losses.marginal_entropy(p, mask),
      losses.squared_distances(means[0][None], means[1][None])[0, 0],
      jnp.log(variances[0] / variances[1]),
    ]
  )
  return 2 * jnp.tanh(values / 2)
