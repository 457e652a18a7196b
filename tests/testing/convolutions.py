"""Reference operations and inputs for tests of convolutions and pooling."""

import jax
import numpy as np


def random(seed, *shape):
  """Standard normal values."""
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def native(x, w, stride, padding):
  """The convolution of `lax`."""
  return jax.lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def max_pool(x):
  """Largest values of 2x2 squares, in plain numpy."""
  n, height, width, channels = x.shape
  out = np.empty((n, height // 2, width // 2, channels), x.dtype)
  for i in range(height // 2):
    for j in range(width // 2):
      out[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
  return out


def assert_close(actual, expected, tolerance):
  """Compare leaf by leaf, relative to the largest value."""
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    scale = np.max(np.abs(b)) + 1e-6
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)
