"""What tests of convolutions and of pooling share."""

import jax
import numpy as np


def random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def native(x, w, stride, padding):
  return jax.lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def assert_close(actual, expected, tolerance):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    scale = np.max(np.abs(b)) + 1e-6
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)
