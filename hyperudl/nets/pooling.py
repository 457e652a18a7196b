"""2x2 max-pooling, alone and together with a first convolution.

What has a convolution is differentiable in reverse mode only.
"""

import jax
import jax.numpy as jnp

from hyperudl.nets import conv_ops
from hyperudl.nets import normalising

# Output channels up to which one matmul for all corners is faster than four.
FEW = 16


def first_max(a, b):
  """Elementwise maximum; among equals `a` takes the gradient.

  The gradient of `jnp.maximum` splits ties by two comparisons and a
  division; this one needs one comparison.
  """
  return jnp.where(a >= b, a, b)


def max_pool(x):
  """Largest of each 2x2 square; an odd last row or column is left out.

  Among equal values the first takes the gradient. Pool what a convolution
  returned, not what an activation or a normalisation made of it: ReLU makes
  ties, and XLA may compute a fused value twice with different rounding.

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


def pooled_conv(x, w):
  """3x3 'SAME' convolution and its 2x2 pooling in one matmul.

  For few channels, where copying windows costs more than multiplying them:
  each 4x4 window gives the four values of one pooling square, so a pixel is
  copied four times instead of nine, at 16/9 of the multiplications.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].

  Returns:
    f32[n, H / 2, W / 2, Cout].
  """
  squares, kernel = _squares(x), _square_kernel(w)
  if w.shape[-1] > FEW:
    return _to_map(_largest_of(_corners(squares, kernel)), x.shape)
  return _to_map(_largest(conv_ops.product(squares, kernel), axis=1), x.shape)


def pooled_conv_norm(x, w, scale, bias, activate):
  """`pooled_conv` with batch norm and an activation.

  With up to 3 input channels the moments come from the mean and the (centred)
  covariance of the windows, without a pass over the wider map.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].
    scale, bias: f32[Cout]; scale >= 0, since it comes after the pooling.
    activate: elementwise, monotone.

  Returns:
    f32[n, H / 2, W / 2, Cout].
  """
  kernel = _square_kernel(w)
  if x.shape[-1] <= 3 and w.shape[-1] <= FEW:
    return _to_map(_in_rows(x, kernel, scale, bias, activate), x.shape)
  squares = _squares(x)
  if x.shape[-1] <= 3:
    pooled = _largest_of(_corners(squares, kernel))
    moments = _moments_of_windows(squares.T, kernel)
  else:
    y = conv_ops.product(squares, kernel)
    pooled, moments = _largest(y, axis=1), _moments_of_corners(y)
  y = activate(normalising.affine(pooled, *moments, scale, bias))
  return _to_map(y, x.shape)


def _in_rows(x, kernel, scale, bias, activate):
  """`pooled_conv_norm` as f32[R, Cout], with loops along the windows.

  Loops along few channels are too short for a CPU's vectors.
  """
  squares = _squares_in_rows(x)
  factors = *_moments_of_windows(squares, kernel), scale, bias
  y = normalising.affine(
    _largest(_product_in_rows(kernel, squares), axis=0),
    *[factor[:, None] for factor in factors],
  )
  # A mere transpose would end up, strided, in the loops of the next layer. A
  # value that is not finite makes all channels of its position NaN here.
  return activate(y).T @ jnp.eye(scale.size, dtype=y.dtype)


@jax.custom_vjp
def _product_in_rows(kernel, squares):
  """kernel.T @ squares, with a fast gradient as `conv_ops.product` has."""
  return kernel.T @ squares


def _product_in_rows_backward(inputs, dy):
  kernel, squares = inputs
  return jax.lax.optimization_barrier(dy @ squares.T).T, kernel @ dy


_product_in_rows.defvjp(
  lambda kernel, squares: (kernel.T @ squares, (kernel, squares)),
  _product_in_rows_backward,
)


def _moments_of_corners(y):
  """Mean and variance f32[Cout] of f32[R, 4 Cout]."""
  by_corner = lambda m: m.reshape(4, -1)
  mean = jnp.mean(by_corner(jnp.mean(y, axis=0)), axis=0)
  gaps = jnp.square(y - jnp.tile(mean, 4))
  return mean, jnp.mean(by_corner(jnp.mean(gaps, axis=0)), axis=0)


def _moments_of_windows(squares, kernel):
  """The same for squares f32[16 Cin, R] and their kernel, without y."""
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


def _squares(x):
  """Every second 4x4 window: f32[n, H, W, C] -> f32[n H W / 4, 16 C]."""
  n, height, width, inputs = x.shape
  rows, columns = height // 2, width // 2
  pairs = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  pairs = pairs.reshape(n, rows + 1, 2, columns + 1, 2 * inputs)
  shifted = [
    pairs[:, i // 2 : i // 2 + rows, i % 2, j : j + columns]
    for i in range(4)
    for j in range(2)
  ]
  return jnp.concatenate(shifted, axis=-1).reshape(-1, 16 * inputs)


def _squares_in_rows(x):
  """The transpose of `_squares`, made without one."""
  n, height, width, inputs = x.shape
  rows, columns = height // 2, width // 2
  pairs = jnp.pad(jnp.moveaxis(x, 3, 0), ((0, 0), (0, 0), (1, 1), (1, 1)))
  pairs = pairs.reshape(inputs, n, rows + 1, 2, columns + 1, 2)
  shifted = [
    pairs[:, :, i // 2 : i // 2 + rows, i % 2, j // 2 : j // 2 + columns, j % 2]
    for i in range(4)
    for j in range(4)
  ]
  return jnp.concatenate(shifted).reshape(16 * inputs, -1)


def _square_kernel(w):
  """f32[3, 3, Cin, Cout] in the four corners: f32[16 Cin, 4 Cout]."""
  corners = [
    jnp.pad(w, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in range(2)
    for j in range(2)
  ]
  return jnp.stack(corners, axis=3).reshape(16 * w.shape[2], 4 * w.shape[3])


def _corners(squares, kernel):
  """Four f32[R, Cout], by a matmul each: their loops have no strides."""
  return [
    conv_ops.product(squares, part) for part in jnp.split(kernel, 4, axis=1)
  ]


def _largest_of(corners):
  """Elementwise, of four arrays; the first of equals in `max_pool`'s order."""
  top_left, top_right, low_left, low_right = corners
  left, right = first_max(top_left, low_left), first_max(top_right, low_right)
  return first_max(left, right)


def _largest(y, axis):
  """`_largest_of` four corners that lie one behind the other on an axis."""
  for _ in range(2):
    y = first_max(*jnp.split(y, 2, axis=axis))
  return y


def _to_map(y, shape):
  """f32[n H W / 4, C] -> f32[n, H / 2, W / 2, C]."""
  n, height, width, _ = shape
  return y.reshape(n, height // 2, width // 2, -1)
