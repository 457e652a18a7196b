"""Losses of the HyperTransformer beside its cross-entropy, and their heads.

`learners/hypertransformer.py` says what each is for.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl.ops import losses


def init_dense(key, fan_in, fan_out):
  """A linear layer, Glorot-uniform and zero."""
  init = nn.initializers.glorot_uniform()
  return {
    'kernel': init(key, (fan_in, fan_out), jnp.float32),
    'bias': jnp.zeros((fan_out,), jnp.float32),
  }


def dense(layer, x):
  """f32[n, fan_in] -> f32[n, fan_out]."""
  return x @ layer['kernel'] + layer['bias']


def smoothed_cross_entropy(logits, y, smoothing):
  """Cross-entropy against (1 - smoothing) * one-hot + smoothing / N."""
  fit = losses.cross_entropy(logits, y)
  if not smoothing:
    return fit
  labelled = (y >= 0).astype(logits.dtype)
  uniform = -jnp.mean(jax.nn.log_softmax(logits, axis=-1), axis=-1)
  even = losses.masked_mean(uniform, labelled)
  return (1 - smoothing) * fit + smoothing * even


def kernel_squares(task):
  """Sum of squares of all kernels of the CNN, written or learned."""
  return sum(jnp.sum(jnp.square(layer['kernel'])) for layer in task.values())


def warmup_weights(step, steps, heads):
  """Weights of the heads' losses, the main one last: f32[heads + 1].

  Head h has its peak at step h steps / heads, the main loss from `steps` on;
  between two peaks the weight moves linearly from one to the next.
  """
  place = step * heads / steps
  peaks = jnp.arange(heads + 1)
  weights = jnp.maximum(0.0, 1.0 - jnp.abs(place - peaks))
  return jnp.where(
    place >= heads, (peaks == heads).astype(jnp.float32), weights
  )


def head_losses(block, heads, task, z, y, smoothing):
  """Cross-entropies of linear heads on the first convolutions: list of f32[].

  Args:
    block: module of one convolution of the CNN.
    heads: list of linear layers.
    task: parameters of the CNN.
    z: f32[Q, H, W, C], queries as the CNN takes them.
    y: i32[Q].
    smoothing: of the labels.
  """
  found = []
  for index, head in enumerate(heads):
    z = block.apply({'params': task[f'block{index}']}, z)
    logits = dense(head, jnp.mean(z, axis=(1, 2)))
    found.append(smoothed_cross_entropy(logits, y, smoothing))
  return found


def variation(learned, task):
  """Sum over convolutions of |written|^2 / |learned|^2.

  Args:
    learned: learned part of the CNN, to which the written one was added.
    task: parameters of the CNN.
  """
  total = 0.0
  for name, layer in task.items():
    if name != 'head' and 'kernel' in learned.get(name, {}):
      own = learned[name]['kernel']
      written = jnp.sum(jnp.square(layer['kernel'] - own))
      total += written / (1e-8 + jnp.sum(jnp.square(own)))
  return total
