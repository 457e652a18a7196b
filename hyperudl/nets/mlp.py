"""A perceptron from a latent vector to the weights of a target network.

HNET of Nava et al. 2023 (arXiv:2210.08942): one vector z holds a network. The
output is added to base weights that are learned too, so that z = 0 at first
decodes to a network of the right scale.
"""

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp


def init_perceptron(key, sizes, last=1.0):
  """Layers of sizes[0] -> ... -> sizes[-1]: a tuple of kernels and biases.

  Args:
    key: PRNG key.
    sizes: ints, two or more.
    last: factor of the last layer's initial weights.
  """
  keys = jax.random.split(key, len(sizes) - 1)
  layers = []
  for i, fan_in in enumerate(sizes[:-1]):
    fan_out = sizes[i + 1]
    spread = jnp.sqrt(2 / fan_in) * (last if i == len(sizes) - 2 else 1.0)
    layers.append(
      {
        'kernel': spread * jax.random.normal(keys[i], (fan_in, fan_out)),
        'bias': jnp.zeros((fan_out,), jnp.float32),
      }
    )
  return tuple(layers)


def perceptron(layers, x):
  """f32[..., sizes[0]] -> f32[..., sizes[-1]], SiLU between the layers."""
  for i, layer in enumerate(layers):
    x = (jax.nn.silu(x) if i else x) @ layer['kernel'] + layer['bias']
  return x


def init(key, weights, latent, hidden, strength=0.1):
  """Parameters of a decoder to weights like the pytree `weights`.

  Args:
    key: PRNG key.
    weights: the base, a pytree of f32.
    latent: Z.
    hidden: widths between.
    strength: initial size of what is added to the base.
  """
  size = ravel_pytree(weights)[0].size
  layers = init_perceptron(key, (latent, *hidden, size), strength)
  return {'base': weights, 'layers': layers}


def decode(params, z):
  """The weights of f32[Z] `z`: a pytree like the base."""
  flat, unravel = ravel_pytree(params['base'])
  return unravel(flat + perceptron(params['layers'], z))
