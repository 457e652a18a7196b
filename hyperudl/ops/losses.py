"""Losses shared by learners. All are means over the rows that count."""

import jax
import jax.numpy as jnp


def masked_mean(values, mask):
  """Mean of f32[n, ...] over the rows with f32[n] mask 1; 0 if none has."""
  weights = mask.reshape((-1,) + (1,) * (values.ndim - 1))
  return jnp.sum(values * weights, axis=0) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_variance(values, mask):
  """Variance of f32[n, ...] over the rows that `mask` f32[n] keeps."""
  return masked_mean(jnp.square(values - masked_mean(values, mask)), mask)


def class_means(features, y, way):
  """Prototypes (Snell et al. 2017, arXiv:1703.05175, eq. 1).

  Args:
    features: f32[S, D].
    y: i32[S]; rows with y = -1 do not count.
    way: N.

  Returns:
    f32[N, D]; zero for a class without rows.
  """
  one_hot = jax.nn.one_hot(y, way, dtype=features.dtype)
  counts = jnp.maximum(jnp.sum(one_hot, axis=0), 1.0)
  return one_hot.T @ features / counts[:, None]


def squared_distances(a, b):
  """f32[n, m] squared Euclidean distances of f32[n, D] and f32[m, D]."""
  # Expanding the square loses digits for near pairs but needs no [n, m, D].
  cross = a @ b.T
  return jnp.sum(a * a, axis=-1)[:, None] + jnp.sum(b * b, -1) - 2 * cross


def unit(x, epsilon=1e-6):
  """Rows scaled to length one; finite value and gradient at zero."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon**2)


def kl_standard_normal(mean, log_variance):
  """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the last axis.

  Kingma and Welling 2014 (arXiv:1312.6114), appendix B.
  """
  terms = 1 + log_variance - jnp.square(mean) - jnp.exp(log_variance)
  return -0.5 * jnp.sum(terms, axis=-1)


def gaussian_nll(x, mean, log_variance):
  """-log N(x; mean, exp(log_variance)) summed over all axes but the first.

  Args:
    x, mean: f32[n, ...].
    log_variance: f32[] shared by all entries, or broadcastable to `x`.

  Returns:
    f32[n], nats.
  """
  terms = (
    jnp.square(x - mean) * jnp.exp(-log_variance)
    + log_variance
    + jnp.log(2 * jnp.pi)
  )
  terms = jnp.broadcast_to(terms, x.shape)
  return 0.5 * jnp.sum(terms, axis=tuple(range(1, x.ndim)))


def geometry(outputs, reference, mask):
  """Consistency of pairwise cosines with those of a frozen encoder.

  The inner loss of UDL: mean over pairs of (cos(l_i, l_j) - cos(m_i, m_j))^2.

  Args:
    outputs: f32[n, D], through the adapted variable.
    reference: f32[n, L], posterior means; no gradient.
    mask: f32[n], rows that count.
  """
  a = unit(outputs)
  b = unit(jax.lax.stop_gradient(reference))
  pairs = mask[:, None] * mask[None, :]
  gap = jnp.square(a @ a.T - b @ b.T)
  return jnp.sum(gap * pairs) / jnp.maximum(jnp.sum(pairs), 1.0)


def byol(online, target, mask):
  """2 - 2 cos(online, stop(target)), the loss of BYOL (arXiv:2006.07733).

  Args:
    online: f32[n, D], predictions.
    target: f32[n, D], projections of another view; no gradient.
    mask: f32[n], rows that count.
  """
  cosines = jnp.sum(unit(online) * unit(jax.lax.stop_gradient(target)), -1)
  return masked_mean(2 - 2 * cosines, mask)


def entropy(log_probabilities):
  """Entropy in nats of rows f32[..., N] of log-probabilities."""
  return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def marginal_entropy(p, mask):
  """Entropy in nats of the mean of distributions f32[n, N]: f32[]."""
  marginal = masked_mean(p, mask)
  return -jnp.sum(marginal * jnp.log(marginal + 1e-6))


def signed_log(x):
  """sign(x) log(1 + |x|): compresses heavy tails, smooth at zero."""
  return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def cross_entropy(logits, y):
  """Mean cross-entropy over labelled rows.

  Args:
    logits: f32[Q, N].
    y: i32[Q]; rows with y = -1 do not count.

  Returns:
    f32[], zero if no row is labelled.
  """
  one_hot = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
  total = -jnp.sum(one_hot * jax.nn.log_softmax(logits, axis=-1))
  return total / jnp.maximum(jnp.sum(one_hot), 1.0)


def accuracy(logits, y):
  """Share of labelled rows of f32[Q, N] `logits` whose argmax is i32[Q] `y`."""
  right = jnp.sum((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
  return right / jnp.maximum(jnp.sum((y >= 0).astype(jnp.float32)), 1.0)


def classification_metrics(logits, y):
  """The metrics every classifier reports: accuracy, nll, probabilities."""
  return {
    'accuracy': accuracy(logits, y),
    'nll': cross_entropy(logits, y),
    'probabilities': jax.nn.softmax(logits, axis=-1),
  }
