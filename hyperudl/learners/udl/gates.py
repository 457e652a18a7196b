"""The learned critic of the inner loop of `udl`, its gate, and what they see.

Parameters are plain dicts made by `init_*`; everything works on the images
of one episode and a mask f32[n] of the rows that count.
"""

import jax
import jax.numpy as jnp

from hyperudl.learners.udl import unsupervised
from hyperudl.nets import vae as vae_net
from hyperudl.ops import losses

ELBO_INPUTS = 13
PREDICTION_INPUTS = 8


# The learned critic: a loss that the outer loop shapes (SCA, Antoniou and
# Storkey 2019, arXiv:1905.10295).


def critic_inputs(logits, mask):
  """What the critic sees of predictions: f32[n, N + 2].

  Sorted probabilities, entropy, entropy of the mean prediction: nothing that
  depends on which class is which.
  """
  log_p = jax.nn.log_softmax(logits)
  p = jnp.exp(log_p)
  overall = losses.marginal_entropy(p, mask)
  return jnp.concatenate(
    [
      jnp.sort(p, axis=-1)[:, ::-1],
      losses.entropy(log_p)[:, None],
      jnp.broadcast_to(overall, (p.shape[0], 1)),
    ],
    axis=-1,
  )


def init_critic(key, inputs, hidden=32):
  """Parameters of a perceptron f32[inputs] -> f32[]."""
  first, second = jax.random.split(key)
  return {
    'first': unsupervised.dense(first, inputs, hidden),
    'last': jax.random.normal(second, (hidden,)) / hidden,
  }


def critic(params, inputs, mask):
  """Mean over the rows of tanh perceptrons of f32[n, inputs]: f32[]."""
  values = (
    jnp.tanh(unsupervised.apply_dense(params['first'], inputs)) @ params['last']
  )
  return losses.masked_mean(values, mask)


# ELBO statistics of images under the frozen autoencoder.


def elbo_inputs(terms, support, moments):
  """ELBO terms of each image relative to the population and the support.

  Args:
    terms: of the images, from `VAE.__call__`.
    support: the same of the labelled images, with its own 'mask'.
    moments: population moments, see `learners/vae.py`.

  Returns:
    f32[n, 6], squashed into (-2, 2).
  """
  r, q = vae_net.standardise(terms, moments)
  r_support, q_support = _support_level(support, moments)
  stacked = jnp.stack([r, q, r * r, q * q, r - r_support, q - q_support], -1)
  return 2 * jnp.tanh(stacked / 3)


def _support_level(support, moments):
  r, q = vae_net.standardise(support, moments)
  return (
    losses.masked_mean(r, support['mask']),
    losses.masked_mean(q, support['mask']),
  )


def elbo_gate_inputs(terms, support, moments, population, mask):
  """13 numbers that say how the images differ from what is known.

  Args:
    terms, support, moments: as in `elbo_inputs`.
    population: (mean f32[L], log-variance f32[L]) of posterior means.
    mask: f32[n], rows that count.

  Returns:
    f32[13], squashed into (-2, 2).
  """
  r, q = vae_net.standardise(terms, moments)
  r_support, q_support = _support_level(support, moments)
  center, log_spread = population
  spread = jnp.exp(log_spread)
  mean = losses.masked_mean(terms['mean'], mask)
  support_mean = losses.masked_mean(support['mean'], support['mask'])
  distance = lambda m: jnp.mean(jnp.square(mean - m) / spread)
  variance = losses.masked_variance(terms['mean'], mask)
  ratio = jnp.mean(jnp.log(variance / spread + 1e-3))
  sd = lambda v: jnp.sqrt(losses.masked_variance(v, mask) + 1e-6)
  average = lambda v: losses.masked_mean(v, mask)
  values = jnp.stack(
    [
      average(r),
      average(q),
      sd(r),
      sd(q),
      average(r) - r_support,
      average(q) - q_support,
      r_support,
      q_support,
      losses.signed_log(distance(center)),
      losses.signed_log(distance(support_mean)),
      ratio,
      jnp.square(ratio),
      average(jnp.square(r)),
    ]
  )
  return 2 * jnp.tanh(values / 3)


def prediction_gate_inputs(features, logits, labelled, mask, labelled_mask):
  """8 numbers on predictions and features, without any autoencoder.

  Args:
    features: f32[n, D] of the unlabelled images.
    logits: f32[n, N] of these.
    labelled: f32[m, D], features of labelled images.
    mask, labelled_mask: f32[n] and f32[m], rows that count.

  Returns:
    f32[8], squashed into (-2, 2).
  """
  log_p = jax.nn.log_softmax(logits)
  p = jnp.exp(log_p)
  likely = jnp.sort(p, axis=-1)
  entropies = losses.entropy(log_p)
  features, labelled = losses.unit(features), losses.unit(labelled)
  spread = lambda x, m: jnp.mean(losses.masked_variance(x, m)) + 1e-6
  center = losses.masked_mean(features, mask)
  reference = losses.masked_mean(labelled, labelled_mask)
  values = jnp.stack(
    [
      losses.masked_mean(likely[:, -1], mask),
      jnp.sqrt(losses.masked_variance(likely[:, -1], mask) + 1e-6),
      losses.masked_mean(likely[:, -1] - likely[:, -2], mask),
      losses.masked_mean(entropies, mask),
      jnp.sqrt(losses.masked_variance(entropies, mask) + 1e-6),
      losses.marginal_entropy(p, mask),
      losses.squared_distances(center[None], reference[None])[0, 0],
      jnp.log(spread(features, mask) / spread(labelled, labelled_mask)),
    ]
  )
  return 2 * jnp.tanh(values / 2)


def init_gate(key, inputs, outputs, hidden=16):
  """Gate parameters; the gate starts open at sigmoid(1) = .73."""
  return {
    'first': unsupervised.dense(key, inputs, hidden),
    'last': {
      'kernel': jnp.zeros((hidden, outputs), jnp.float32),
      'bias': jnp.ones((outputs,), jnp.float32),
    },
  }


def gate(params, inputs):
  """How far the inner loop may go: f32[inputs] -> f32[outputs] in (0, 1)."""
  hidden = jax.nn.silu(unsupervised.apply_dense(params['first'], inputs))
  return jax.nn.sigmoid(unsupervised.apply_dense(params['last'], hidden))
