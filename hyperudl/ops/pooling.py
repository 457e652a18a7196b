"""Computes 2x2 max-pooling, also fused with a preceding convolution.

The functions with a convolution are differentiable in reverse mode only.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.ops import conv
from hyperudl.ops import normalization

# Up to this many output channels, one matmul for all four corners of a pooling
# square is faster than four matmuls.
FEW = 16


def first_max(a: jax.Array, b: jax.Array) -> jax.Array:
  """Return the elementwise maximum; of equal values `a` takes the gradient.

  The gradient of `jnp.maximum` splits ties by two comparisons and a
  division; this one needs one comparison.
  """
  return jnp.where(a >= b, a, b)


def max_pool(x: jax.Array) -> jax.Array:
  """Return the maximum of each 2x2 square, leaving out odd last rows, columns.

  Of equal values the first takes the gradient. Pool the output of a
  convolution, not of an activation or a normalisation: ReLU makes ties, and XLA
  may compute a fused value twice with different rounding.

  Args:
    x: f32[n, H, W, C].

  Returns:
    f32[n, H // 2, W // 2, C].

  Raises:
    ValueError: if H or W is 1.
  """
  n, height, width, channels = x.shape
  if min(height, width) < 2:
    raise ValueError(
      f'a map of {height}x{width} is too small for 2x2 pooling; use fewer '
      'blocks, larger images or pool=False'
    )
  rows, columns = height // 2, width // 2
  x = x[:, : 2 * rows, : 2 * columns]
  x = x.reshape(n, rows, 2, 2 * columns * channels)
  x = first_max(x[:, :, 0], x[:, :, 1])
  x = x.reshape(n, rows, columns, 2, channels)
  return first_max(x[:, :, :, 0], x[:, :, :, 1])


def pooled_conv(x: jax.Array, w: jax.Array) -> jax.Array:
  """Apply a 3x3 'SAME' convolution and 2x2 pooling by matmuls of 4x4 windows.

  It is for few channels, where copying windows costs more than multiplying
  them: each 4x4 window gives the four values of one pooling square, so a pixel
  is copied four times instead of nine, at 16/9 of the multiplications.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].

  Returns:
    f32[n, H / 2, W / 2, Cout].
  """
  squares, kernel = _squares(x), _square_kernel(w)
  if w.shape[-1] > FEW:
    return _to_map(_largest_of(_corners(squares, kernel)), x.shape)
  return _to_map(_largest(conv.product(squares, kernel), axis=1), x.shape)


def pooled_conv_norm(
  x: jax.Array,
  w: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  activate: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Apply a convolution with batch norm, an activation and 2x2 pooling.

  With up to 3 input channels the moments are computed from the mean and the
  (centred) covariance of the windows, without a pass over the wider map.

  Args:
    x: f32[n, H, W, Cin]; H and W even, or at least 2 if Cin > 3. The pooling
      leaves out an odd last row or column, the moments include it.
    w: f32[3, 3, Cin, Cout].
    scale, bias: f32[Cout]; scale >= 0, since it is applied after the pooling.
    activate: elementwise monotone function.

  Returns:
    f32[n, H // 2, W // 2, Cout].
  """
  kernel = _square_kernel(w)
  if x.shape[-1] <= 3 and w.shape[-1] <= FEW:
    return _to_map(_in_rows(x, kernel, scale, bias, activate), x.shape)
  squares = _squares(x)
  if x.shape[-1] <= 3:
    pooled = _largest_of(_corners(squares, kernel))
    moments = moments_of_windows(squares.T, kernel)
  else:
    y = conv.product(squares, kernel)
    pooled, moments = _largest(y, axis=1), _moments_of_corners(y, x.shape)
  pooled = _to_map(pooled, x.shape)
  return activate(normalization.affine(pooled, *moments, scale, bias))


def _in_rows(x, kernel, scale, bias, activate):
  """Compute `pooled_conv_norm` as f32[R, Cout] in loops along the windows.

  Loops along few channels are too short for the vector units of a CPU.
  """
  squares = _squares_in_rows(x)
  factors = *moments_of_windows(squares, kernel), scale, bias
  y = normalization.affine(
    _largest(_product_in_rows(kernel, squares), axis=0),
    *[factor[:, None] for factor in factors],
  )
  # A matmul, since XLA would fuse a mere transpose, strided, into the loops of
  # the next layer. A value that is not finite makes all channels of its
  # position NaN here.
  return activate(y).T @ jnp.eye(scale.size, dtype=y.dtype)


@jax.custom_vjp
def _product_in_rows(kernel, squares):
  """Return kernel.T @ squares, with a fast gradient like `conv.product`."""
  return kernel.T @ squares


def _product_in_rows_backward(inputs, dy):
  kernel, squares = inputs
  return jax.lax.optimization_barrier(dy @ squares.T).T, kernel @ dy


_product_in_rows.defvjp(
  lambda *inputs: (_product_in_rows(*inputs), inputs), _product_in_rows_backward
)


def _moments_of_corners(y, shape):
  """Return mean and variance f32[Cout] of f32[R, 4 Cout] (image `shape`)."""
  n, height, width, _ = shape
  rows, columns = _halves(shape)
  row = np.arange(2 * rows).reshape(-1, 1, 2, 1) < height
  column = np.arange(2 * columns).reshape(1, -1, 1, 2) < width
  weight = np.float32((row & column).reshape(-1, 1)) / (n * height * width)

  def average(y):  # over images first, in long loops
    return jnp.sum(
      jnp.sum(y.reshape(n, -1), axis=0).reshape(len(weight), -1) * weight,
      axis=0,
    )

  mean = average(y)
  return mean, average(jnp.square(y - jnp.tile(mean, 4)))


def moments_of_windows(
  squares: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return mean and variance f32[Cout] of a convolution without computing it.

  Args:
    squares: f32[16 Cin, R], 4x4 windows.
    kernel: f32[16 Cin, 4 Cout], the kernel in the four corners of a window.
  """
  by_corner = lambda m: m.reshape(4, -1)
  centre = jnp.mean(squares, axis=1)
  gaps = squares - centre[:, None]
  covariance = gaps @ gaps.T / squares.shape[1]
  means = by_corner(centre @ kernel)
  variances = by_corner(jnp.sum((covariance @ kernel) * kernel, axis=0))
  mean = jnp.mean(means, axis=0)
  variance = jnp.mean(variances + jnp.square(means - mean), axis=0)
  # Rounding may put the variance of constant images below zero.
  return mean, jnp.maximum(variance, 0.0)


def _halves(shape):
  """Return the rows and columns of squares that cover images [n, H, W, ...]."""
  return (shape[1] + 1) // 2, (shape[2] + 1) // 2


def _squares(x):
  """Return every second 4x4 window: f32[n, H, W, C] -> f32[R, 16 C].

  R is n times the squares that cover an image. A window is four blocks of 2x2
  pixels side by side, so that four copies of the blocks make all windows.
  """
  n, height, width, inputs = x.shape
  rows, columns = _halves(x.shape)
  pads = (1, 1 + height % 2), (1, 1 + width % 2)
  blocks = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  blocks = blocks.reshape(n, rows + 1, 2, columns + 1, 2 * inputs)
  blocks = jnp.swapaxes(blocks, 2, 3).reshape(n, rows + 1, columns + 1, -1)
  shifted = [
    blocks[:, i : i + rows, j : j + columns] for i in range(2) for j in range(2)
  ]
  return jnp.concatenate(shifted, axis=-1).reshape(-1, 16 * inputs)


def _squares_in_rows(x):
  """Return `_squares(x)` transposed, without a transpose; H and W are even."""
  n, height, width, inputs = x.shape
  rows, columns = height // 2, width // 2
  blocks = jnp.pad(jnp.moveaxis(x, 3, 0), ((0, 0), (0, 0), (1, 1), (1, 1)))
  blocks = blocks.reshape(inputs, n, rows + 1, 2, columns + 1, 2)
  shifted = [
    blocks[:, :, i : i + rows, p, j : j + columns, q]
    for i in range(2)
    for j in range(2)
    for p in range(2)
    for q in range(2)
  ]
  return jnp.concatenate(shifted).reshape(16 * inputs, -1)


def _square_kernel(w):
  """Put f32[3, 3, Cin, Cout] in four corners of 4x4: f32[16 Cin, 4 Cout]."""
  inputs, outputs = w.shape[2:]
  corners = [
    jnp.pad(w, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in range(2)
    for j in range(2)
  ]
  kernel = jnp.stack(corners, axis=3).reshape(2, 2, 2, 2, inputs, -1)
  kernel = jnp.swapaxes(kernel, 1, 2)  # the order of pixels in `_squares`
  return kernel.reshape(16 * inputs, 4 * outputs)


def _corners(squares, kernel):
  """Return four f32[R, Cout], by a matmul each: their loops have no strides."""
  return [conv.product(squares, part) for part in jnp.split(kernel, 4, axis=1)]


def _largest_of(corners):
  """Return the elementwise maximum of four arrays, ties as in `max_pool`."""
  top_left, top_right, low_left, low_right = corners
  left, right = first_max(top_left, low_left), first_max(top_right, low_right)
  return first_max(left, right)


def _largest(y, axis):
  """Return `_largest_of` four corners that are concatenated along an axis."""
  for _ in range(2):
    y = first_max(*jnp.split(y, 2, axis=axis))
  return y


def _to_map(y, shape):
  """Return f32[R, C] as f32[n, H // 2, W // 2, C] without squares beyond it."""
  n, height, width, _ = shape
  y = y.reshape(n, *_halves(shape), -1)
  return y[:, : height // 2, : width // 2]
