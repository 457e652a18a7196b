"""2x2 max-pooling, alone and together with a first convolution."""

import jax.numpy as jnp


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
  return _largest(_squares(x) @ _square_kernel(w), x.shape)


def pooled_conv_moments(x, w):
  """`pooled_conv` and the moments of each channel before the pooling.

  With up to 3 input channels the moments come from the mean and the (centred)
  covariance of the windows, without a pass over the wider map.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].

  Returns:
    (pooled f32[n, H / 2, W / 2, Cout], mean f32[Cout], variance f32[Cout]).
  """
  squares, kernel = _squares(x), _square_kernel(w)
  y = squares @ kernel
  pooled = _largest(y, x.shape)
  by_corner = lambda m: m.reshape(4, w.shape[-1])
  if x.shape[-1] > 3:
    mean = jnp.mean(by_corner(jnp.mean(y, axis=0)), axis=0)
    gaps = jnp.square(y - jnp.tile(mean, 4))
    return pooled, mean, jnp.mean(by_corner(jnp.mean(gaps, axis=0)), axis=0)
  centre = jnp.mean(squares, axis=0)
  squares = squares - centre
  covariance = (squares.T @ squares) / squares.shape[0]
  means = by_corner(centre @ kernel)
  variances = by_corner(jnp.sum((covariance @ kernel) * kernel, axis=0))
  mean = jnp.mean(means, axis=0)
  variance = jnp.mean(variances + jnp.square(means - mean), axis=0)
  # Rounding may put the variance of constant images below zero.
  return pooled, mean, jnp.maximum(variance, 0.0)


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


def _square_kernel(w):
  """f32[3, 3, Cin, Cout] in the four corners: f32[16 Cin, 4 Cout]."""
  corners = [
    jnp.pad(w, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in range(2)
    for j in range(2)
  ]
  return jnp.stack(corners, axis=3).reshape(16 * w.shape[2], 4 * w.shape[3])


def _largest(y, shape):
  """Of the four corners: f32[n H W / 4, 4 C] -> f32[n, H / 2, W / 2, C]."""
  n, height, width, _ = shape
  outputs = y.shape[-1] // 4
  y = first_max(y[:, : 2 * outputs], y[:, 2 * outputs :])
  y = first_max(y[:, :outputs], y[:, outputs:])
  return y.reshape(n, height // 2, width // 2, outputs)
