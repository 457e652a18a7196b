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
  """3x3 'SAME' convolution, its moments, and its 2x2 pooling, in one matmul.

  For few input channels and many output channels, where the map before
  pooling costs more than the convolution: each 4x4 window gives the four
  values of one pooling square, and the moments come from the mean and the
  (centred) covariance of the windows, without a pass over the map.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].

  Returns:
    (pooled f32[n, H / 2, W / 2, Cout], mean f32[Cout], variance f32[Cout]).
  """
  n, height, width, inputs = x.shape
  outputs = w.shape[-1]
  rows, columns = height // 2, width // 2
  pairs = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  pairs = pairs.reshape(n, rows + 1, 2, columns + 1, 2 * inputs)
  shifted = [
    pairs[:, i // 2 : i // 2 + rows, i % 2, j : j + columns]
    for i in range(4)
    for j in range(2)
  ]
  squares = jnp.concatenate(shifted, axis=-1).reshape(-1, 16 * inputs)
  corners = [
    jnp.pad(w, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in range(2)
    for j in range(2)
  ]
  kernel = jnp.stack(corners, axis=3).reshape(16 * inputs, 4 * outputs)

  y = squares @ kernel
  y = first_max(y[:, : 2 * outputs], y[:, 2 * outputs :])
  y = first_max(y[:, :outputs], y[:, outputs:])
  y = y.reshape(n, rows, columns, outputs)

  centre = jnp.mean(squares, axis=0)
  squares = squares - centre
  covariance = (squares.T @ squares) / squares.shape[0]
  means = (centre @ kernel).reshape(4, outputs)
  variances = jnp.sum((covariance @ kernel) * kernel, 0).reshape(4, outputs)
  mean = jnp.mean(means, axis=0)
  variance = jnp.mean(variances + jnp.square(means - mean), axis=0)
  # Rounding may put the variance of constant images below zero.
  return y, mean, jnp.maximum(variance, 0.0)
