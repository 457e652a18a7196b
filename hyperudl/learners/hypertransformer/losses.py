"""Computes the terms of the HyperTransformer's outer loss.

These are smoothed cross-entropies, a penalty on kernels, the losses of linear
heads that train one layer after another (warm-up), the size of generated
weights relative to learned ones, and the loss of a linear head that predicts
the training class from the shared features.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import target_network
from hyperudl.nets import mlp
from hyperudl.ops import losses


def init_dense(key: jax.Array, fan_in: int, fan_out: int) -> core.PyTree:
  """Return a linear layer with a Glorot-uniform kernel and a zero bias."""
  init = nn.initializers.glorot_uniform()
  return {
    'kernel': init(key, (fan_in, fan_out), jnp.float32),
    'bias': jnp.zeros((fan_out,), jnp.float32),
  }


def smoothed_cross_entropy(
  logits: jax.Array, y: jax.Array, smoothing: float
) -> jax.Array:
  """Return the cross-entropy f32[] with smoothed labels.

  The targets are (1 - smoothing) * one-hot + smoothing / N.

  Args:
    logits: f32[n, N].
    y: i32[n]; rows with -1 do not count.
    smoothing: in [0, 1).
  """
  fit = losses.cross_entropy(logits, y)
  if not smoothing:
    return fit
  labelled = (y >= 0).astype(logits.dtype)
  uniform = -jnp.mean(jax.nn.log_softmax(logits, axis=-1), axis=-1)
  even = losses.masked_mean(uniform, labelled)
  return (1 - smoothing) * fit + smoothing * even


def kernel_squares(cnn: core.PyTree) -> jax.Array:
  """Return the sum of squares of all kernels, generated or learned."""
  return sum(jnp.sum(jnp.square(layer['kernel'])) for layer in cnn.values())


def warmup_weights(step: jax.Array, steps: int, heads: int) -> jax.Array:
  """Return the weights f32[heads + 1] of the heads' losses and the main loss.

  Head h has weight 1 at step h * steps / heads, the main loss (the last entry)
  from `steps` on; in between, the weight moves linearly from one to the next.
  """
  place = step * heads / steps
  peaks = jnp.arange(heads + 1)
  weights = jnp.maximum(0.0, 1.0 - jnp.abs(place - peaks))
  return jnp.where(
    place >= heads, (peaks == heads).astype(jnp.float32), weights
  )


def head_losses(
  config: config_lib.Config,
  heads: list[core.PyTree],
  cnn: core.PyTree,
  query: core.Examples,
) -> list[jax.Array]:
  """Return the cross-entropy f32[] of each convolution's linear head.

  Args:
    config: hyperparameters.
    heads: a linear layer for each convolution but the last.
    cnn: parameters of the CNN.
    query: images in [0, 1] and labels.
  """
  z = target_network.scale_pixels(query.x)
  specs = target_network.layer_specs(config, z)
  values = []
  for spec, head in zip(specs, heads):
    z = spec.block.apply({'params': cnn[spec.name]}, z)
    logits = mlp.dense(head, jnp.mean(z, axis=(1, 2)))
    smoothing = config.label_smoothing
    values.append(smoothed_cross_entropy(logits, query.y, smoothing))
  return values


def variation(learned: core.PyTree, cnn: core.PyTree) -> jax.Array:
  """Return the sum over convolutions of |generated|^2 / |learned|^2.

  Args:
    learned: learned part of the CNN, to which generated weights were added.
    cnn: parameters of the CNN, the sums.
  """
  total = jnp.float32(0.0)
  for name, layer in cnn.items():
    if name != 'head' and 'kernel' in learned.get(name, {}):
      kernel = learned[name]['kernel']
      generated = jnp.sum(jnp.square(layer['kernel'] - kernel))
      total += generated / (1e-8 + jnp.sum(jnp.square(kernel)))
  return total


def shared_head(
  config: config_lib.Config,
  params: core.PyTree,
  episode: core.Episode,
  key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Return (loss, accuracy) f32[] of predicting the support's training classes.

  As in the main loss, labels are smoothed and shared features get dropout, for
  which `key` is used.
  """
  support, ids = episode.support, episode.extra['class_ids']
  features = feature_extractors.shared_features(config, params, support.x)
  drop = nn.Dropout(config.shared_dropout, deterministic=False)
  features = drop.apply({}, features, rngs={'dropout': key})
  logits = mlp.dense(params['shared']['head'], features)
  y = jnp.where(support.y < 0, -1, ids[support.y])
  # The loss is nan if a class has no output: it would silently be zero.
  fits = jnp.all(ids < config.shared_head_classes)
  value = smoothed_cross_entropy(logits, y, config.label_smoothing)
  value = jnp.where(fits, value, jnp.nan)
  return value, losses.accuracy(logits, y)
