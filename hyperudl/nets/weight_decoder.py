"""Decodes a latent to all weights of a target network.

This is HNET of Nava et al. 2023 (arXiv:2210.08942). The output of an MLP of the
latent is added to base weights, which are learned too, so that from the start
every latent decodes to a network of the right scale.
"""

from collections.abc import Sequence

import jax
from jax.flatten_util import ravel_pytree

from hyperudl import core
from hyperudl.nets import mlp


def init(
  key: jax.Array,
  base: core.PyTree,
  latent: int,
  hidden: Sequence[int],
  scale: float = 0.1,
) -> core.PyTree:
  """Return parameters of a decoder to weights like `base`.

  Args:
    key: PRNG key.
    base: pytree of f32, weights of the target network.
    latent: Z.
    hidden: widths of the hidden layers.
    scale: factor of the last layer's initial weights.
  """
  size = ravel_pytree(base)[0].size
  layers = mlp.init(key, (latent, *hidden, size), scale)
  return {'base': base, 'layers': layers}


def apply(params: core.PyTree, latent: jax.Array) -> core.PyTree:
  """Return the weights of a latent f32[Z], a pytree like the base."""
  flat, unravel = ravel_pytree(params['base'])
  return unravel(flat + mlp.apply(params['layers'], latent))
