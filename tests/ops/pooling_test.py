"""Pooling, alone and with a convolution, against independent routes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.ops import pooling
from tests.testing import convolutions as helper


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (3, 2)])
def test_max_pool_takes_the_largest_and_its_gradient(size):
  x = helper.random(0, 2, *size, 3)
  weight = helper.random(1, 2, size[0] // 2, size[1] // 2, 3)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda x: jnp.sum(pooling.max_pool(x) * weight))
  )(x)
  pooled = helper.max_pool(x)
  np.testing.assert_allclose(value, np.sum(pooled * weight), rtol=1e-5)
  expected = np.zeros_like(x)
  for n, i, j, c in np.ndindex(pooled.shape):
    square = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
    di, dj = np.unravel_index(square.argmax(), (2, 2))
    expected[n, 2 * i + di, 2 * j + dj, c] = weight[n, i, j, c]
  np.testing.assert_array_equal(gradient, expected)


def test_among_equal_values_one_takes_the_gradient():
  gradient = jax.grad(lambda x: jnp.sum(pooling.max_pool(x)))(
    jnp.ones((1, 4, 4, 1))
  )
  assert sorted(np.unique(gradient)) == [0.0, 1.0]
  assert gradient.sum() == 4


def test_a_map_of_one_pixel_cannot_be_pooled():
  with pytest.raises(ValueError, match='1x3 is too small for 2x2 pooling'):
    pooling.max_pool(jnp.zeros((1, 1, 3, 2)))


def _to_second_order(function, x, *leaves):
  """The value of `function`, gradients of all inputs, a second derivative."""
  weight = helper.random(9, *function(x, *leaves).shape)
  loss = lambda x, *leaves: jnp.sum(jnp.sin(function(x, *leaves)) * weight)
  places = tuple(range(1 + len(leaves)))

  def along(*inputs):
    gradients = jax.grad(loss, places)(*inputs)
    return sum(jnp.vdot(g, jnp.cos(i)) for g, i in zip(gradients, inputs))

  inputs = x, *leaves
  gradients = jax.grad(loss, places)(*inputs)
  return function(*inputs), gradients, jax.grad(along, places)(*inputs)


@pytest.mark.parametrize(
  'inputs,size',
  [
    (1, (6, 4)),
    (3, (6, 4)),
    (8, (6, 4)),
    (8, (7, 7)),
    (8, (4, 5)),
    (8, (3, 2)),
  ],
)
@pytest.mark.parametrize('outputs', [5, pooling.FEW + 1])
def test_pooled_conv_norm_is_convolution_batch_norm_and_pooling(
  inputs, size, outputs
):
  x, w = (
    helper.random(0, 3, *size, inputs),
    helper.random(1, 3, 3, inputs, outputs),
  )
  scale, bias = (
    np.abs(helper.random(2, outputs)),
    helper.random(3, outputs),
  )
  act = jnp.tanh  # smooth, so that second derivatives are too

  def plain(x, w, scale, bias):
    y = helper.native(x, w, 1, 'SAME')
    gaps = y - jnp.mean(y, (0, 1, 2))
    y = gaps * jax.lax.rsqrt(jnp.mean(jnp.square(gaps), (0, 1, 2)) + 1e-5)
    return pooling.max_pool(act(y * scale + bias))

  ours = lambda *inputs: pooling.pooled_conv_norm(*inputs, act)
  both = jax.jit(
    lambda *inputs: [_to_second_order(f, *inputs) for f in (ours, plain)]
  )
  helper.assert_close(*both(x, w, scale, bias), 1e-5)


@pytest.mark.parametrize('outputs', [5, pooling.FEW + 1])
def test_pooled_conv_is_convolution_and_pooling(outputs):
  x, w = (
    helper.random(0, 3, 6, 4, 3),
    helper.random(1, 3, 3, 3, outputs),
  )
  plain = lambda x, w: pooling.max_pool(helper.native(x, w, 1, 'SAME'))
  both = jax.jit(
    lambda *inputs: [
      _to_second_order(f, *inputs) for f in (pooling.pooled_conv, plain)
    ]
  )
  helper.assert_close(*both(x, w), 5e-6)


def test_rounding_does_not_put_a_variance_below_zero():
  along = 100 * helper.random(0, 16)
  squares = np.outer(along, helper.random(1, 50))
  kernel = helper.random(2, 16, 4 * 9)  # orthogonal to the squares
  kernel -= np.outer(along, along @ kernel) / np.sum(np.square(along))
  _, variance = pooling.moments_of_windows(squares, kernel)
  assert float(variance.min()) >= 0
