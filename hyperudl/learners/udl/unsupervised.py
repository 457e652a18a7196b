"""The label-free losses of the inner loop of `udl`.

Parameters are plain dicts made by `init_*`; everything works on the images
of one episode and a mask f32[n] of the rows that count.
"""

import jax
import jax.numpy as jnp

from hyperudl.ops import losses

PIXEL_VARIANCE = 0.1  # of the feature decoder's likelihood


def dense(key, fan_in, fan_out, scale=1.0):
  """Parameters of a linear layer, N(0, scale^2 / fan_in) and zeros."""
  spread = scale / jnp.sqrt(jnp.asarray(fan_in, jnp.float32))
  return {
    'kernel': spread * jax.random.normal(key, (fan_in, fan_out)),
    'bias': jnp.zeros((fan_out,), jnp.float32),
  }


def apply_dense(layer, x):
  """f32[n, fan_in] -> f32[n, fan_out]."""
  return x @ layer['kernel'] + layer['bias']


# An ELBO mounted on the features of the generated network.


def init_feature_elbo(key, features, pixels, latent=16, hidden=64):
  """Posterior heads on f32[D] features and a decoder to small images."""
  keys = jax.random.split(key, 3)
  return {
    'posterior': dense(keys[0], features, 2 * latent, 0.1),
    'hidden': dense(keys[1], latent, hidden),
    'pixels': dense(keys[2], hidden, pixels, 0.1),
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
    apply_dense(params['posterior'], features), 2, axis=-1
  )
  log_variance = jnp.clip(log_variance, -6.0, 6.0)
  z = mean + jnp.exp(0.5 * log_variance) * noise
  hidden = jax.nn.silu(apply_dense(params['hidden'], z))
  image = jax.nn.sigmoid(apply_dense(params['pixels'], hidden))
  error = jnp.sum(jnp.square(targets - image), -1) / (2 * PIXEL_VARIANCE)
  kl = losses.kl_standard_normal(mean, log_variance)
  return losses.masked_mean(error + beta * kl, mask) / targets.shape[1]


# Self-supervision.


def init_byol(key, features, hidden=64):
  """Projector and predictor of BYOL (Grill et al. 2020) on features."""
  keys = jax.random.split(key, 4)
  return {
    'project': (
      dense(keys[0], features, hidden),
      dense(keys[1], hidden, hidden),
    ),
    'predict': (
      dense(keys[2], hidden, hidden),
      dense(keys[3], hidden, hidden),
    ),
  }


def _two_layers(layers, x):
  return apply_dense(layers[1], jax.nn.relu(apply_dense(layers[0], x)))


def views(key, x):
  """Two views f32[n, H, W, C]: moved by up to two pixels, faint noise.

  Neither is one of the shift families, so agreement of the views does not
  teach invariance to what the inner loop should notice.

  Args:
    key: PRNG key.
    x: f32[n, H, W, C].

  Returns:
    (first, second, f32[2] how far the second lies from the first, in units of
    four pixels).
  """

  def view(key):
    move, noise = jax.random.split(key)
    offset = jax.random.randint(move, (2,), -2, 3)
    moved = jnp.roll(x, offset, axis=(1, 2))
    return moved + 0.05 * jax.random.normal(noise, x.shape), offset

  first_key, second_key = jax.random.split(key)
  (first, here), (second, there) = view(first_key), view(second_key)
  return first, second, (there - here).astype(jnp.float32) / 4


def byol(params, first, second, mask):
  """Symmetric BYOL loss of features f32[n, D] of two views."""
  project = lambda x: _two_layers(params['project'], x)
  predict = lambda x: _two_layers(params['predict'], project(x))
  return 0.5 * (
    losses.byol(predict(first), project(second), mask)
    + losses.byol(predict(second), project(first), mask)
  )


def init_projector(key, features, hidden=64):
  """Projector of `infonce` on f32[D] features."""
  first, second = jax.random.split(key)
  return (dense(first, features, hidden), dense(second, hidden, hidden))


def infonce(params, first, second, mask, temperature=0.07):
  """InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) of two views.

  Args:
    params: from `init_projector`.
    first, second: f32[n, D], features of the views.
    mask: f32[n], rows that count, as anchors and as negatives.
    temperature: of the cosines.
  """
  first = losses.unit(_two_layers(params, first))
  second = losses.unit(_two_layers(params, second))
  likeness = first @ second.T / temperature
  # A row that does not count is no negative of another one.
  hidden = jnp.where(mask[None, :] > 0, 0.0, -1e9)
  hidden = jnp.where(jnp.eye(mask.shape[0]) > 0, 0.0, hidden)
  per_row = lambda m: -jnp.diagonal(jax.nn.log_softmax(m + hidden))
  both = per_row(likeness) + per_row(likeness.T)
  return 0.5 * losses.masked_mean(both, mask)


def init_displacement(key, features, hidden=64):
  """Perceptron from the features of two views to their displacement."""
  first, second = jax.random.split(key)
  return (dense(first, 2 * features, hidden), dense(second, hidden, 2, 0.1))


def displacement(params, first, second, moved, mask):
  """Squared error of the predicted displacement between two views.

  Transform prediction (after TTT, Sun et al. 2020, arXiv:1909.13231) with
  translations: rotations would turn some characters into others.

  Args:
    params: from `init_displacement`.
    first, second: f32[n, D], features of the views.
    moved: f32[2], from `views`.
    mask: f32[n].
  """
  pair = jnp.concatenate([first, second], axis=-1)
  error = jnp.square(_two_layers(params, pair) - moved)
  return losses.masked_mean(jnp.sum(error, axis=-1), mask)


def mean_entropy(logits, mask):
  """Mean entropy of the predictions, nats (TENT, arXiv:2006.10726, eq. 1)."""
  return losses.masked_mean(losses.entropy(jax.nn.log_softmax(logits)), mask)


def balanced_entropy(logits, mask):
  """Mean entropy minus entropy of the mean prediction, nats.

  The negative mutual information of image and class (Bridle et al. 1992):
  certain of each image, and all classes in use.
  """
  overall = losses.marginal_entropy(jax.nn.softmax(logits), mask)
  return mean_entropy(logits, mask) - overall
