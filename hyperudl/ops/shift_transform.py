"""Transforms images by an invertible shift: a linear map, gain and bias.

T_phi(x)(p) = a x(A p + t) + b for positions p in pixels from the centre, with A
the matrix exponential of a 2x2 matrix, zeros outside the image and a = exp(g),
or -exp(g) where dark and bright are exchanged. At phi = 0 it is the identity,
and for every phi it has the inverse
T_phi^-1(y)(p) = (y - b)(A^-1 (p - t)) / a, another such transform of y - b.

A linear map is applied in two separable passes, first along rows and then along
columns (Catmull and Smith 1980), as products with interpolation matrices.
Interpolation uses the cubic kernel of Keys (1981): unlike that of linear
interpolation, its derivative at the identity is the central difference of the
image, not zero.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

PIXELS = 10.0  # translations are in units of so many pixels
# Initial step sizes in units of `rate`, about equally visible in each part.
RATES = {'matrix': 0.33, 'translation': 0.1, 'gain': 0.2, 'bias': 0.1}
_TERMS = 10
# Coefficients of s^k in cosh(sqrt(s)) and in sinh(sqrt(s)) / sqrt(s).
_COSH = np.array([1 / math.factorial(2 * k) for k in range(_TERMS)], 'f4')
_SINH = _COSH / (2 * np.arange(_TERMS, dtype='f4') + 1)


def identity() -> dict[str, jax.Array]:
  """Return phi of the identity, zeros: matrix f32[2, 2] (rows, columns),

  translation f32[2], gain f32[1] (g, a logarithm), bias f32[1] and negative
  f32[1], 1 where dark and bright are exchanged.
  """
  shapes = {'matrix': (2, 2), 'translation': (2,)}
  shapes |= dict.fromkeys(('gain', 'bias', 'negative'), (1,))
  return {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}


def exponential(matrix: jax.Array) -> jax.Array:
  """Return the exponential of f32[2, 2].

  With m half the trace and N = M - m I, N^2 = s I, so that exp(M) = exp(m)
  (cosh(sqrt(s)) I + sinh(sqrt(s)) / sqrt(s) N), both power series in s.
  """
  half_trace = (matrix[0, 0] + matrix[1, 1]) / 2
  rest = matrix - half_trace * jnp.eye(2)
  s = rest[0, 0] ** 2 + rest[0, 1] * rest[1, 0]
  powers = s ** np.arange(_TERMS)
  cosh, sinh = powers @ _COSH, powers @ _SINH
  return jnp.exp(half_trace) * (cosh * jnp.eye(2) + sinh * rest)


def apply(phi: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """Return T_phi of images f32[n, H, W, C]."""
  shift = PIXELS * phi['translation']
  warped = warp(x, exponential(phi['matrix']), shift)
  return contrast(phi) * warped + phi['bias'][0]


def contrast(phi: dict[str, jax.Array]) -> jax.Array:
  """Return the factor a of pixels, f32[]."""
  sign = 1 - 2 * jax.lax.stop_gradient(phi['negative'][0])
  return sign * jnp.exp(phi['gain'][0])


def invert(phi: dict[str, jax.Array], y: jax.Array) -> jax.Array:
  """Return T_phi^-1 of images f32[n, H, W, C]."""
  inverse = exponential(-phi['matrix'])
  shift = -inverse @ (PIXELS * phi['translation'])
  pixels = (y - phi['bias'][0]) / contrast(phi)
  return warp(pixels, inverse, shift)


def warp(x: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
  """Return x(A p + t), with zeros outside of the images.

  Args:
    x: f32[n, H, W, C].
    matrix: A f32[2, 2], positions (row, column) in pixels from the centre to
      positions of the source; A[0, 0] is not 0.
    shift: t f32[2], in pixels.
  """
  height, width = x.shape[1:3]
  rows = jnp.arange(height) - (height - 1) / 2
  columns = jnp.arange(width) - (width - 1) / 2
  (a, b), (c, d) = matrix
  # Along rows, at each row of the source, r = a row + b column + t_0:
  # source column = c row + d column + t_1 = (c / a) (r - t_0) + (d - b c / a)
  # column + t_1.
  slope = c / a
  along_width = (
    slope * (rows[:, None] - shift[0])
    + (d - b * slope) * columns[None, :]
    + shift[1]
  )
  along_height = a * rows[None, :] + b * columns[:, None] + shift[0]
  to_width = _interpolation(along_width + (width - 1) / 2, width)
  to_height = _interpolation(along_height + (height - 1) / 2, height)
  x = jnp.einsum('hoi,nhic->nhoc', to_width, x)
  return jnp.einsum('woi,niwc->nowc', to_height, x)


def _interpolation(source, size):
  """Return interpolation weights f32[..., size] for positions f32[...]."""
  distance = jnp.abs(source[..., None] - jnp.arange(size))
  near = (1.5 * distance - 2.5) * distance * distance + 1
  far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
  return jnp.where(distance < 1, near, jnp.where(distance < 2, far, 0.0))
