"""Convolutions in the forms that XLA's CPU backend runs fast.

Used by `conv.py`, which explains when.
"""

import functools

import jax
import jax.numpy as jnp

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def pad(x, rows=(0, 0), columns=(0, 0)):
  """Zeros around the images f32[n, H, W, C]."""
  return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def windows(x, kernel, stride=1):
  """The windows of every position side by side.

  Args:
    x: f32[n, H, W, C], padded.
    kernel: (kh, kw).
    stride: of rows and columns.

  Returns:
    f32[n, H', W', kh * kw * C].
  """
  kh, kw = kernel
  rows, columns = x.shape[1] - kh + 1, x.shape[2] - kw + 1
  shifted = [
    x[:, i : i + rows : stride, j : j + columns : stride]
    for i in range(kh)
    for j in range(kw)
  ]
  return jnp.concatenate(shifted, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def closed_conv(pads, x, w):
  """Convolution of stride 1 whose derivatives are convolutions like it.

  XLA brings convolutions of other layouts into NHWC x HWIO -> NHWC, for
  which it has a fast kernel on CPUs, but only outside of loops. Inside a
  `scan` the native gradients, which use other layouts, are up to a hundred
  times slower. This function and `kernel_gradient` are each the derivative
  of the other, so derivatives of every order stay in the fast layout.
  Reverse mode only.

  Args:
    pads: ((low, high), (low, high)) for rows and columns; static.
    x: f32[n, H, W, Cin].
    w: f32[kh, kw, Cin, Cout].
  """
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), pads, dimension_numbers=LAYOUT
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def kernel_gradient(pads, kernel, x, dy):
  """Gradient of <dy, closed_conv(pads, x, w)> with respect to w.

  The kw column shifts of x and the kh row shifts of dy meet in one matmul:
  copies of kw + kh maps instead of kh * kw.

  Args:
    pads: of the convolution; static.
    kernel: (kh, kw); static.
    x: f32[n, H, W, Cin].
    dy: f32[n, H', W', Cout].

  Returns:
    f32[kh, kw, Cin, Cout].
  """
  kh, kw = kernel
  rows, columns = x.shape[1], dy.shape[2]
  x = pad(x, columns=pads[1])
  dy = pad(dy, rows=_opposite(pads, kernel)[0])
  right = [x[:, :, j : j + columns] for j in range(kw)]
  left = [dy[:, i : i + rows] for i in reversed(range(kh))]
  right = jnp.concatenate(right, axis=-1).reshape(-1, kw * x.shape[-1])
  left = jnp.concatenate(left, axis=-1).reshape(-1, kh * dy.shape[-1])
  products = (left.T @ right).reshape(kh, dy.shape[-1], kw, x.shape[-1])
  return products.transpose(0, 2, 3, 1)


def _opposite(pads, kernel):
  """The pads of the convolution that leads back."""
  return tuple((k - 1 - a, k - 1 - b) for (a, b), k in zip(pads, kernel))


def _transpose(w):
  return jnp.swapaxes(w[::-1, ::-1], 2, 3)


def _conv_forward(pads, x, w):
  return closed_conv(pads, x, w), (x, w)


def _conv_backward(pads, inputs, dy):
  x, w = inputs
  kernel = w.shape[:2]
  dx = closed_conv(_opposite(pads, kernel), dy, _transpose(w))
  return dx, kernel_gradient(pads, kernel, x, dy)


def _kernel_forward(pads, kernel, x, dy):
  return kernel_gradient(pads, kernel, x, dy), (x, dy)


def _kernel_backward(pads, kernel, inputs, dw):
  x, dy = inputs
  dx = closed_conv(_opposite(pads, kernel), dy, _transpose(dw))
  return dx, closed_conv(pads, x, dw)


closed_conv.defvjp(_conv_forward, _conv_backward)
kernel_gradient.defvjp(_kernel_forward, _kernel_backward)


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


def pooled_conv(x, w, sign):
  """3x3 'SAME' convolution, its moments, and its 2x2 pooling, in one matmul.

  For few input channels and many output channels, where the map before
  pooling costs more than the convolution: each 4x4 window gives the four
  values of one pooling square, and the moments come from the mean and the
  (centred) covariance of the windows, without a pass over the map.

  Args:
    x: f32[n, H, W, Cin]; H and W even.
    w: f32[3, 3, Cin, Cout].
    sign: f32[Cout] of 1 and -1; -1: pool the smallest.

  Returns:
    (pooled f32[n, H / 2, W / 2, Cout], mean f32[Cout], variance f32[Cout]).
  """
  n, height, width, inputs = x.shape
  outputs = w.shape[-1]
  rows, columns = height // 2, width // 2
  pairs = pad(x, (1, 1), (1, 1))
  pairs = pairs.reshape(n, rows + 1, 2, columns + 1, 2 * inputs)
  shifted = [
    pairs[:, i // 2 : i // 2 + rows, i % 2, j : j + columns]
    for i in range(4)
    for j in range(2)
  ]
  squares = jnp.concatenate(shifted, axis=-1).reshape(-1, 16 * inputs)
  corners = [
    jnp.pad(w * sign, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
    for i in range(2)
    for j in range(2)
  ]
  kernel = jnp.stack(corners, axis=3).reshape(16 * inputs, 4 * outputs)

  y = squares @ kernel
  y = first_max(y[:, : 2 * outputs], y[:, 2 * outputs :])
  y = first_max(y[:, :outputs], y[:, outputs:])
  y = (sign * y).reshape(n, rows, columns, outputs)

  centre = jnp.mean(squares, axis=0)
  squares = squares - centre
  covariance = (squares.T @ squares) / squares.shape[0]
  means = (centre @ kernel).reshape(4, outputs)
  variances = jnp.sum((covariance @ kernel) * kernel, 0).reshape(4, outputs)
  mean = jnp.mean(means, axis=0)
  variance = jnp.mean(variances + jnp.square(means - mean), axis=0)
  # Rounding may put the variance of constant images below zero.
  return y, sign * mean, jnp.maximum(variance, 0.0)
