"""The input transform: identity, effect of each number, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hyperudl.ops import input_transform


def test_zeros_are_the_identity_and_numbers_move_and_scale():
  x = np.zeros((1, 12, 12, 1), np.float32)
  x[0, 5, 4] = 1.0
  v = input_transform.identity()
  np.testing.assert_allclose(input_transform.apply(v, x), x, atol=1e-6)
  # One pixel down and two to the right (tens of pixels; source = target + v).
  v['translation'] = jnp.array([-0.1, -0.2])
  moved = input_transform.apply(v, x)
  assert np.unravel_index(np.argmax(moved), moved.shape)[1:3] == (6, 6)
  v = input_transform.identity()
  v['gain'], v['bias'] = jnp.array([1.0]), jnp.array([0.25])
  np.testing.assert_allclose(
    input_transform.apply(v, x), 2 * x + 0.25, atol=1e-5
  )


@pytest.mark.parametrize('index, sigma, radius', [(0, 0.7, 3), (1, 1.6, 5)])
def test_blurs_are_the_gaussian_filters_of_scipy(index, sigma, radius):
  x = np.random.default_rng(0).random((2, 12, 14, 1), np.float32)
  v = input_transform.identity()
  v['blur'] = v['blur'].at[index].set(1.0)
  expected = x
  for axis in (1, 2):
    expected = ndimage.gaussian_filter1d(
      expected, sigma, axis, mode='mirror', radius=radius
    )
  np.testing.assert_allclose(input_transform.apply(v, x), expected, atol=1e-5)


def test_affine_maps_move_a_polynomial_of_second_degree_exactly():
  # Interpolation by the cubic kernel with a = -1/2 is exact for it.
  size = 24
  polynomial = lambda r, c: 1 + 0.5 * r - 0.3 * c + 0.1 * r * c - 0.2 * c * c
  rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
  log_scale, log_aspect, row_shear, column_shear = 0.2, 0.1, 0.05, -0.03
  v = input_transform.identity()
  v['affine'] = jnp.array([log_scale, log_aspect, row_shear, column_shear])
  v['translation'] = jnp.array([0.07, -0.12])
  x = polynomial(rows, columns)[None, :, :, None]
  moved = input_transform.apply(v, jnp.asarray(x, jnp.float32))[0, :, :, 0]
  # The second pass reads, in the same column, another row of the first.
  row = rows * np.exp(log_aspect - log_scale) + column_shear * columns + 0.7
  column = columns * np.exp(-log_scale - log_aspect) + row_shear * row - 1.2
  middle = (slice(6, -6), slice(6, -6))
  np.testing.assert_allclose(
    moved[middle], polynomial(row, column)[middle], rtol=1e-4, atol=1e-3
  )


def test_there_is_a_gradient_in_every_number_at_the_identity():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(-0.3, 1.3, size=(2, 9, 9, 1)), jnp.float32)
  target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)), jnp.float32)
  loss = lambda v: jnp.sum(jnp.square(input_transform.apply(v, x) - target))
  grads = jax.grad(loss)(input_transform.identity())
  for name, leaf in grads.items():
    assert (jnp.abs(leaf) > 1e-4).all(), name


def test_gradients_agree_with_finite_differences():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    v = {
      name: jnp.asarray(0.03 * rng.normal(size=size))
      for name, size in input_transform.GROUPS.items()
    }
    loss = jax.jit(
      lambda v: jnp.sum(jnp.square(input_transform.apply(v, x) - target))
    )
    grads = jax.jit(jax.grad(loss))(v)
    for name, leaf in v.items():
      for i in range(leaf.size):
        ends = [loss({**v, name: leaf.at[i].add(h)}) for h in (1e-6, -1e-6)]
        numeric = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(
          grads[name][i], numeric, rtol=1e-5, atol=1e-6
        )
