"""Weights as tokens: cut a kernel into slices, and put slices together.

A transformer emits one vector per token; this module says which entry of
which token is which entry of a kernel. Two allocations (HyperTransformer,
arXiv 2201.04182):

  'output'   one token per output channel; its entries run over all other
             axes of the kernel in row-major order, so (kh, kw, cin) for a
             convolution and (features,) for a linear layer. After them may
             come extra entries of that channel: bias, or scale and bias.
  'spatial'  one token per position (kh, kw) of a convolution kernel; its
             entries run over (cin, cout). No extra entries.

Slices may be wider than needed: entries after those described are ignored,
because a transformer is as wide as its widest token.
"""

import math

import jax.numpy as jnp

from hyperudl import core

ALLOCATIONS = ('output', 'spatial')


def check_allocation(allocation, extra=0):
  """Raises `core.BadInput` unless `allocation` exists and can hold `extra`."""
  if allocation not in ALLOCATIONS:
    raise core.BadInput(
      f'allocation={allocation!r} is unknown; choose one of '
      f'{", ".join(ALLOCATIONS)}'
    )
  if allocation == 'spatial' and extra:
    raise core.BadInput(
      "allocation='spatial' has one token per kernel position and no place "
      "for a channel's bias or scale; use allocation='output' to emit them"
    )


def _check_spatial(shape):
  if len(shape) != 4:
    raise core.BadInput(
      f"allocation='spatial' got a kernel of shape {shape}; it needs a "
      "convolution kernel [kh, kw, cin, cout]: use 'output' for this layer"
    )


def slices_shape(shape, allocation, extra=0):
  """How many tokens a kernel needs, and how many entries each.

  Args:
    shape: kernel shape, (kh, kw, cin, cout) or (features, outputs).
    allocation: 'output' or 'spatial'.
    extra: entries per output channel after the kernel's (bias, scale).

  Returns:
    (tokens, size).

  Raises:
    core.BadInput: unknown allocation, or one that cannot hold this.
  """
  check_allocation(allocation, extra)
  if allocation == 'output':
    return shape[-1], math.prod(shape[:-1]) + extra
  _check_spatial(shape)
  return shape[0] * shape[1], shape[2] * shape[3]


def assemble(slices, shape, allocation):
  """The kernel that `slices` spell.

  Args:
    slices: f32[tokens, >= size], see `slices_shape`.
    shape: shape of the kernel.
    allocation: 'output' or 'spatial'.

  Returns:
    f32[*shape].

  Raises:
    core.BadInput: too few tokens, tokens too narrow, or a bad allocation.
  """
  tokens, size = slices_shape(shape, allocation)
  if slices.shape[0] != tokens or slices.shape[1] < size:
    raise core.BadInput(
      f'slices of shape {slices.shape} cannot make a kernel {tuple(shape)} by '
      f'{allocation!r}: that needs {tokens} tokens of at least {size} entries'
    )
  used = slices[:, :size]
  return jnp.reshape(used.T if allocation == 'output' else used, shape)


def extras(slices, shape, count):
  """The entries after the kernel's, by 'output' allocation.

  Args:
    slices: f32[cout, >= size + count].
    shape: shape of the kernel.
    count: how many extra entries per output channel.

  Returns:
    f32[count, cout], in the order in which they were laid out.

  Raises:
    core.BadInput: the slices are too narrow.
  """
  tokens, size = slices_shape(shape, 'output')
  if slices.shape[0] != tokens or slices.shape[1] < size + count:
    raise core.BadInput(
      f'slices of shape {slices.shape} hold no {count} extra entries behind a '
      f'kernel {tuple(shape)}: that needs {tokens} tokens of at least '
      f'{size + count} entries'
    )
  return slices[:, size : size + count].T


def disassemble(kernel, allocation, extra=None):
  """The slices that spell `kernel`; the inverse of `assemble`.

  Args:
    kernel: f32[kh, kw, cin, cout] or f32[features, outputs].
    allocation: 'output' or 'spatial'.
    extra: None or f32[count, cout], appended to each channel's entries.

  Returns:
    f32[tokens, size].

  Raises:
    core.BadInput: a bad allocation for this kernel.
  """
  count = 0 if extra is None else extra.shape[0]
  tokens, size = slices_shape(kernel.shape, allocation, count)
  if allocation == 'spatial':
    return jnp.reshape(kernel, (tokens, size))
  slices = jnp.reshape(kernel, (size - count, tokens)).T
  if extra is None:
    return slices
  return jnp.concatenate([slices, extra.T], axis=-1)


def assemble_head(slices, features):
  """A linear layer from one token per class, bias last.

  Args:
    slices: f32[way, >= features + 1].
    features: width of the layer's input.

  Returns:
    {'kernel': f32[features, way], 'bias': f32[way]}.

  Raises:
    core.BadInput: the slices are too narrow.
  """
  shape = (features, slices.shape[0])
  return {
    'kernel': assemble(slices, shape, 'output'),
    'bias': extras(slices, shape, 1)[0],
  }


def disassemble_head(head):
  """The slices f32[way, features + 1] of a linear layer; see above."""
  return disassemble(head['kernel'], 'output', head['bias'][None])
