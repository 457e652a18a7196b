"""Defines multilayer perceptrons as functions of a parameter pytree.

A layer is {'kernel': f32[fan_in, fan_out], 'bias': f32[fan_out]}; an MLP is a
tuple of layers.
"""

from collections.abc import Callable
from collections.abc import Sequence
import itertools
from typing import Any

import jax
import jax.numpy as jnp

Layer = dict[str, jax.Array]


def init_dense(
  key: jax.Array, fan_in: int, fan_out: int, scale: float = 1.0
) -> Layer:
  """Return a linear layer with weights N(0, scale^2 / fan_in), zero bias."""
  std = scale / jnp.sqrt(jnp.asarray(fan_in, jnp.float32))
  return _layer(key, fan_in, fan_out, std)


def dense(layer: Layer, x: jax.Array) -> jax.Array:
  """Apply a linear layer: f32[..., fan_in] -> f32[..., fan_out]."""
  return x @ layer['kernel'] + layer['bias']


def init(
  key: jax.Array, sizes: Sequence[int], last_scale: float = 1.0
) -> tuple[Layer, ...]:
  """Return layers sizes[0] -> ... -> sizes[-1] with weights N(0, 2 / fan_in).

  Args:
    key: PRNG key.
    sizes: two or more widths.
    last_scale: factor of the last layer's initial weights.
  """
  keys = jax.random.split(key, len(sizes) - 1)
  layers = []
  for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
    last = i == len(sizes) - 2
    std = jnp.sqrt(2 / fan_in) * (last_scale if last else 1.0)
    layers.append(_layer(keys[i], fan_in, fan_out, std))
  return tuple(layers)


def apply(
  layers: Sequence[Layer],
  x: jax.Array,
  activation: Callable[[Any], jax.Array] = jax.nn.silu,
) -> jax.Array:
  """Apply an MLP with an activation between its layers.

  Args:
    layers: from `init`.
    x: f32[..., sizes[0]].
    activation: function of an array.

  Returns:
    f32[..., sizes[-1]].
  """
  for i, layer in enumerate(layers):
    x = dense(layer, activation(x) if i else x)
  return x


def _layer(key, fan_in, fan_out, std):
  return {
    'kernel': std * jax.random.normal(key, (fan_in, fan_out)),
    'bias': jnp.zeros((fan_out,), jnp.float32),
  }
