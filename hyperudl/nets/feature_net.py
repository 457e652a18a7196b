"""Embeds features of another encoder: centring, and an MLP if it has widths.

The parameters are 'center' f32[D] and, with widths, 'layers' (see `mlp`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.nets import mlp


def init(key: jax.Array, x: jax.Array, widths: Sequence[int]) -> core.PyTree:
  """Return initial parameters.

  Args:
    key: PRNG key of the MLP.
    x: f32[n, D], whose mean is the initial center.
    widths: of the layers; () for centring alone.
  """
  params: dict[str, core.PyTree] = {'center': jnp.mean(x, axis=0)}
  if widths:
    params['layers'] = mlp.init(key, (x.shape[1], *widths))
  return params


def apply(params: core.PyTree, x: jax.Array) -> jax.Array:
  """Return the embedding f32[n, E] of features f32[n, D]; E = D without MLP."""
  x = x - params['center']
  return mlp.apply(params['layers'], x) if 'layers' in params else x
