"""Computes losses and metrics of one episode, as means over rows that count."""

import jax
import jax.numpy as jnp

ABSENT = -1e9  # logit of a class that an episode does not have


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Return the mean of f32[n, ...] over rows whose `mask` f32[n] is 1."""
  weights = mask.reshape((-1,) + (1,) * (values.ndim - 1))
  return jnp.sum(values * weights, axis=0) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_variance(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Return the variance of f32[n, ...] over rows whose `mask` f32[n] is 1."""
  return masked_mean(jnp.square(values - masked_mean(values, mask)), mask)


def class_means(features: jax.Array, y: jax.Array, way: int) -> jax.Array:
  """Compute prototypes (Snell et al. 2017, arXiv:1703.05175, eq. 1).

  Args:
    features: f32[S, D].
    y: i32[S]; rows with y < 0 do not count.
    way: N.

  Returns:
    f32[N, D]; zero for a class without rows.
  """
  one_hot = jax.nn.one_hot(y, way, dtype=features.dtype)
  counts = jnp.maximum(jnp.sum(one_hot, axis=0), 1.0)
  return one_hot.T @ features / counts[:, None]


def class_counts(y: jax.Array, way: int) -> jax.Array:
  """Return the number f32[N] of rows of each class in i32[S] labels."""
  return jnp.sum(jax.nn.one_hot(y, way), axis=0)


def mask_absent(logits: jax.Array, present: jax.Array | None) -> jax.Array:
  """Give absent classes probability zero.

  Args:
    logits: f32[..., N].
    present: bool[N], the classes of the episode; None for all.
  """
  return logits if present is None else jnp.where(present, logits, ABSENT)


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
  """Compute f32[n, m] squared distances of f32[n, D] and f32[m, D]."""
  # Expanding the square loses digits for close pairs but needs no [n, m, D].
  cross = a @ b.T
  return jnp.sum(a * a, axis=-1)[:, None] + jnp.sum(b * b, -1) - 2 * cross


def unit(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
  """Scale rows f32[..., D] to length one, with a finite gradient at zero."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon**2)


def kl_standard_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """Compute KL(N(mean, exp(log_variance)) || N(0, 1)) over the last axis.

  Kingma and Welling 2014 (arXiv:1312.6114), appendix B.
  """
  terms = 1 + log_variance - jnp.square(mean) - jnp.exp(log_variance)
  return -0.5 * jnp.sum(terms, axis=-1)


def gaussian_nll(
  x: jax.Array, mean: jax.Array, log_variance: jax.Array
) -> jax.Array:
  """Compute -log N(x; mean, exp(log_variance)) over all axes but the first.

  Args:
    x: f32[n, ...].
    mean: f32[n, ...].
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


def geometry(
  outputs: jax.Array, reference: jax.Array, mask: jax.Array
) -> jax.Array:
  """Compare pairwise cosines with those of a frozen encoder.

  This is the inner loss of UDL, the mean over pairs of images of
  (cos(l_i, l_j) - cos(m_i, m_j))^2.

  Args:
    outputs: f32[n, D], outputs l of the adapted network.
    reference: f32[n, L], posterior means m of the encoder; no gradient.
    mask: f32[n], 1 for rows that count, else 0.

  Returns:
    f32[].
  """
  a = unit(outputs)
  b = unit(jax.lax.stop_gradient(reference))
  pairs = mask[:, None] * mask[None, :]
  gap = jnp.square(a @ a.T - b @ b.T)
  return jnp.sum(gap * pairs) / jnp.maximum(jnp.sum(pairs), 1.0)


def byol(online: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
  """Compute the BYOL loss 2 - 2 cos(online, target) (arXiv:2006.07733).

  Args:
    online: f32[n, D], predictions.
    target: f32[n, D], projections of another view; no gradient.
    mask: f32[n], 1 for rows that count, else 0.

  Returns:
    f32[].
  """
  cosines = jnp.sum(unit(online) * unit(jax.lax.stop_gradient(target)), -1)
  return masked_mean(2 - 2 * cosines, mask)


def entropy(log_probabilities: jax.Array) -> jax.Array:
  """Compute the entropy in nats of log-probabilities f32[..., N]."""
  return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def marginal_entropy(p: jax.Array, mask: jax.Array) -> jax.Array:
  """Compute the entropy in nats of the mean of n distributions f32[n, N]."""
  marginal = masked_mean(p, mask)
  return -jnp.sum(marginal * jnp.log(marginal + 1e-6))


def log_mean_probability(log_probabilities: jax.Array) -> jax.Array:
  """Return the logarithm of the mean probability over samples.

  Args:
    log_probabilities: f32[M, ..., N] of M samples.

  Returns:
    f32[..., N], log-probabilities of the mixture.
  """
  samples = log_probabilities.shape[0]
  return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(samples)


def signed_log(x: jax.Array) -> jax.Array:
  """Compute sign(x) log(1 + |x|), which compresses heavy tails."""
  return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
  """Compute the mean cross-entropy over labelled rows.

  Args:
    logits: f32[Q, N].
    y: i32[Q]; rows with y < 0 do not count.

  Returns:
    f32[], zero if no row is labelled.
  """
  one_hot = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
  total = -jnp.sum(one_hot * jax.nn.log_softmax(logits, axis=-1))
  return total / jnp.maximum(jnp.sum(one_hot), 1.0)


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
  """Compute the fraction of labelled rows whose largest logit is the label's.

  Args:
    logits: f32[Q, N].
    y: i32[Q]; rows with y < 0 do not count.

  Returns:
    f32[], zero if no row is labelled.
  """
  correct = jnp.sum((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
  return correct / jnp.maximum(jnp.sum((y >= 0).astype(jnp.float32)), 1.0)


def classification_metrics(
  logits: jax.Array, y: jax.Array
) -> dict[str, jax.Array]:
  """Return the metrics of all classifiers: accuracy, nll and probabilities."""
  return {
    'accuracy': accuracy(logits, y),
    'nll': cross_entropy(logits, y),
    'probabilities': jax.nn.softmax(logits, axis=-1),
  }


def mixture_nll(
  logits: jax.Array, mask: jax.Array, iterations: int = 3
) -> jax.Array:
  """Compute -mean log sum_c pi_c exp(logit_c), nats f32[].

  The negative log evidence of a mixture of classes whose proportions pi are
  found by expectation maximisation, without a gradient. Soft k-means is the E
  and the M step of this model.

  Args:
    logits: f32[n, N].
    mask: f32[n], rows that count.
    iterations: of the proportions, which start uniform; static.
  """
  pi = jnp.full(logits.shape[1], 1 / logits.shape[1])
  for _ in range(iterations):
    pi = masked_mean(jax.nn.softmax(logits + jnp.log(pi + 1e-6)), mask)
  pi = jax.lax.stop_gradient(pi)
  evidence = jax.nn.logsumexp(logits + jnp.log(pi + 1e-6), axis=-1)
  return -masked_mean(evidence, mask)
