"""The label-free losses of the inner loop of `udl`, and its gate.

Parameters are plain dicts made by `init_*`; everything works on the images
of one episode and a mask f32[n] of the rows that count.
"""

import jax
import jax.numpy as jnp

from hyperudl import losses
from hyperudl.nets import vae as vae_net

GATE_INPUTS = 13
PIXEL_VARIANCE = 0.1  # of the feature decoder's likelihood


def _dense(key, fan_in, fan_out, scale=1.0):
  spread = scale / jnp.sqrt(jnp.asarray(fan_in, jnp.float32))
  return {
    'kernel': spread * jax.random.normal(key, (fan_in, fan_out)),
    'bias': jnp.zeros((fan_out,), jnp.float32),
  }


def _apply(layer, x):
  return x @ layer['kernel'] + layer['bias']


# The learned critic: a loss that the outer loop shapes (SCA, Antoniou and
# Storkey 2019, arXiv:1905.10295).


def critic_inputs(logits, mask):
  """What the critic sees of predictions: f32[n, N + 2].

  Sorted probabilities, entropy, entropy of the mean prediction: nothing that
  depends on which class is which.
  """
  log_p = jax.nn.log_softmax(logits)
  p = jnp.exp(log_p)
  marginal = losses.masked_mean(p, mask)
  overall = -jnp.sum(marginal * jnp.log(marginal + 1e-6))
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
    'first': _dense(first, inputs, hidden),
    'last': jax.random.normal(second, (hidden,)) / hidden,
  }


def critic(params, inputs, mask):
  """Mean over the rows of tanh perceptrons of f32[n, inputs]: f32[]."""
  values = jnp.tanh(_apply(params['first'], inputs)) @ params['last']
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


def gate_inputs(terms, support, moments, population, mask):
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


def init_gate(key, hidden=16):
  """Gate parameters; the gate starts open at sigmoid(1) = .73."""
  return {
    'first': _dense(key, GATE_INPUTS, hidden),
    'last': {
      'kernel': jnp.zeros((hidden, 1), jnp.float32),
      'bias': jnp.ones((1,), jnp.float32),
    },
  }


def gate(params, inputs):
  """How far the inner loop may go, f32[] in (0, 1), from f32[13]."""
  hidden = jax.nn.silu(_apply(params['first'], inputs))
  return jax.nn.sigmoid(_apply(params['last'], hidden))[0]


# An ELBO mounted on the features of the generated network.


def init_feature_elbo(key, features, pixels, latent=16, hidden=64):
  """Posterior heads on f32[D] features and a decoder to small images."""
  keys = jax.random.split(key, 3)
  return {
    'posterior': _dense(keys[0], features, 2 * latent, 0.1),
    'hidden': _dense(keys[1], latent, hidden),
    'pixels': _dense(keys[2], hidden, pixels, 0.1),
  }


def small_images(x):
  """Images f32[n, H, W, C] averaged 2x2 and flattened."""
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.mean(axis=(2, 4)).reshape(n, -1)


def feature_elbo(params, features, targets, noise, beta, mask):
  """Negative ELBO in nats a pixel of small images given CNN features.

  Args:
    params: from `init_feature_elbo`.
    features: f32[n, D], through the adapted variable.
    targets: f32[n, P] from `small_images`.
    noise: f32[n, latent] standard normal.
    beta: weight of the KL.
    mask: f32[n].
  """
  mean, log_variance = jnp.split(
    _apply(params['posterior'], features), 2, axis=-1
  )
  log_variance = jnp.clip(log_variance, -6.0, 6.0)
  z = mean + jnp.exp(0.5 * log_variance) * noise
  hidden = jax.nn.silu(_apply(params['hidden'], z))
  image = jax.nn.sigmoid(_apply(params['pixels'], hidden))
  error = jnp.sum(jnp.square(targets - image), -1) / (2 * PIXEL_VARIANCE)
  kl = losses.kl_standard_normal(mean, log_variance)
  return losses.masked_mean(error + beta * kl, mask) / targets.shape[1]


# Self-supervision.


def init_byol(key, features, hidden=64):
  """Projector and predictor of BYOL (Grill et al. 2020) on features."""
  keys = jax.random.split(key, 4)
  return {
    'project': (
      _dense(keys[0], features, hidden),
      _dense(keys[1], hidden, hidden),
    ),
    'predict': (
      _dense(keys[2], hidden, hidden),
      _dense(keys[3], hidden, hidden),
    ),
  }


def _two_layers(layers, x):
  return _apply(layers[1], jax.nn.relu(_apply(layers[0], x)))


def views(key, x):
  """Two views f32[n, H, W, C]: moved by up to two pixels, faint noise.

  Neither is one of the shift families, so agreement of the views does not
  teach invariance to what the inner loop should notice.
  """

  def view(key):
    move, noise = jax.random.split(key)
    offset = jax.random.randint(move, (2,), -2, 3)
    moved = jnp.roll(x, offset, axis=(1, 2))
    return moved + 0.05 * jax.random.normal(noise, x.shape)

  first, second = jax.random.split(key)
  return view(first), view(second)


def byol(params, first, second, mask):
  """Symmetric BYOL loss of features f32[n, D] of two views."""
  project = lambda x: _two_layers(params['project'], x)
  predict = lambda x: _two_layers(params['predict'], project(x))
  return 0.5 * (
    losses.byol(predict(first), project(second), mask)
    + losses.byol(predict(second), project(first), mask)
  )
