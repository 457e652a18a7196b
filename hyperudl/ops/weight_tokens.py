"""Cuts kernels into weight slices, one per token, and joins slices to kernels.

A transformer generates one vector per token; this module maps the entries of
the tokens to those of a kernel. There are two allocations (HyperTransformer,
arXiv 2201.04182):

  'output'   one token per output channel; its entries run over all other
             axes of the kernel in row-major order, so (kh, kw, cin) for a
             convolution and (features,) for a linear layer. They may be
             followed by extra entries of the channel: bias, or scale and bias.
  'spatial'  one token per position (kh, kw) of a convolution kernel; its
             entries run over (cin, cout). No extra entries.

Slices may be wider than needed, because all tokens are as wide as the widest;
further entries are ignored.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

from hyperudl import core

ALLOCATIONS = ('output', 'spatial')

Layer = dict[str, jax.Array]  # 'kernel', and parameters f32[cout]


def check_allocation(allocation: str, extra: int = 0) -> None:
  """Check that an allocation is known and can hold extra entries.

  Args:
    allocation: name to check.
    extra: number of entries per output channel after the kernel's.

  Raises:
    core.BadInput: unknown allocation, or one that cannot hold extra entries.
  """
  if allocation not in ALLOCATIONS:
    raise core.BadInput(
      f'allocation={allocation!r} is unknown; choose one of '
      f'{", ".join(ALLOCATIONS)}'
    )
  if allocation == 'spatial' and extra:
    raise core.BadInput(
      "allocation='spatial' has one token per kernel position and no place "
      "for a channel's bias or scale; use allocation='output' to generate them"
    )


def slices_shape(
  shape: Sequence[int], allocation: str, extra: int = 0
) -> tuple[int, int]:
  """Return (number of tokens of a kernel, number of entries per token).

  Args:
    shape: kernel shape, (kh, kw, cin, cout) or (features, outputs).
    allocation: 'output' or 'spatial'.
    extra: number of entries per output channel after the kernel's (bias,
      scale).

  Raises:
    core.BadInput: unknown allocation, or one that does not fit.
  """
  check_allocation(allocation, extra)
  if allocation == 'output':
    return shape[-1], math.prod(shape[:-1]) + extra
  if len(shape) != 4:
    raise core.BadInput(
      f"allocation='spatial' got a kernel of shape {tuple(shape)}; it needs a "
      "convolution kernel [kh, kw, cin, cout]: use 'output' for this layer"
    )
  return shape[0] * shape[1], shape[2] * shape[3]


def assemble(
  slices: jax.Array,
  shape: Sequence[int],
  allocation: str,
  extras: Sequence[str] = (),
) -> Layer:
  """Join weight slices to a kernel and its extra entries.

  Args:
    slices: f32[tokens, >= size], see `slices_shape`.
    shape: shape of the kernel.
    allocation: 'output' or 'spatial'.
    extras: names of the extra entries in order, only with 'output'.

  Returns:
    {'kernel': f32[*shape], name: f32[cout] for each name of `extras`}.

  Raises:
    core.BadInput: too few tokens, tokens too narrow, or a bad allocation.
  """
  tokens, size = slices_shape(shape, allocation, len(extras))
  if slices.shape[0] != tokens or slices.shape[1] < size:
    raise core.BadInput(
      f'slices of shape {slices.shape} cannot make a kernel {tuple(shape)} and '
      f'{len(extras)} extra entries by {allocation!r}: that needs {tokens} '
      f'tokens of at least {size} entries'
    )
  first = size - len(extras)
  kernel = slices[:, :first]
  if allocation == 'output':
    kernel = kernel.T
  rows = slices[:, first:size].T
  return {'kernel': jnp.reshape(kernel, shape), **dict(zip(extras, rows))}


def disassemble(
  layer: Layer, allocation: str, extras: Sequence[str] = ()
) -> jax.Array:
  """Return the slices f32[tokens, size] of a layer; inverts `assemble`.

  Args:
    layer: has 'kernel' f32[kh, kw, cin, cout] or f32[features, outputs].
    allocation: 'output' or 'spatial'.
    extras: names of f32[cout] whose values follow each channel's entries.

  Raises:
    core.BadInput: an allocation that does not fit this kernel.
  """
  kernel = layer['kernel']
  tokens, size = slices_shape(kernel.shape, allocation, len(extras))
  if allocation == 'spatial':
    return jnp.reshape(kernel, (tokens, size))
  slices = jnp.reshape(kernel, (-1, tokens)).T
  rows = [layer[name][:, None] for name in extras]
  return jnp.concatenate([slices, *rows], axis=-1)
