"""Blurs, warps and noise images against scipy and loops."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from hyperudl.ops import image as image_ops


def random_images(n=3, height=28, width=28, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((n, height, width, channels), dtype=np.float32)


@pytest.mark.parametrize('height,width,channels', [(28, 28, 1), (9, 14, 3)])
def test_blur_is_five_taps_twice_in_both_directions(height, width, channels):
  images = random_images(2, height, width, channels)
  expected = images
  for axis in (1, 1, 2, 2):
    taps = np.array([1, 2, 3, 2, 1]) / 9
    expected = ndimage.correlate1d(expected, taps, axis, mode='nearest')
  blurred = jax.jit(image_ops.blur)(images)
  np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize(
  'height,width,blocks', [(28, 28, (9, 9)), (32, 7, (11, 2)), (2, 1, (1, 1))]
)
def test_pixelate_fills_blocks_with_their_mean(height, width, blocks):
  images = random_images(2, height, width, 3)
  expected = np.zeros_like(images)
  for i in range(blocks[0]):
    for j in range(blocks[1]):
      rows = [r for r in range(height) if r * blocks[0] // height == i]
      columns = [c for c in range(width) if c * blocks[1] // width == j]
      at = np.ix_(range(2), rows, columns)
      expected[at] = images[at].mean(axis=(1, 2), keepdims=True)
  coarse = jax.jit(image_ops.pixelate)(images)
  np.testing.assert_allclose(coarse, expected, atol=1e-6)


@pytest.mark.parametrize('height,width', [(28, 28), (9, 14)])
def test_geometry_is_that_of_scipy(height, width):
  images = random_images(2, height, width, 3)
  centre = (np.array([height, width]) - 1) / 2

  def reference(matrix):
    offset = centre - np.array(matrix) @ centre
    arguments = {'offset': offset, 'order': 1, 'mode': 'grid-constant'}
    warped = np.zeros_like(images)
    for i in range(2):
      for c in range(3):
        warped[i, :, :, c] = ndimage.affine_transform(
          images[i, :, :, c], matrix, **arguments
        )
    return warped

  def check(ours, matrix):
    np.testing.assert_allclose(ours, reference(matrix), atol=1e-5)

  scaled = jax.jit(image_ops.scale)(images, 1.5, 0.7)
  check(scaled, [[1.5, 0], [0, 0.7]])
  check(jax.jit(image_ops.shear)(images, -0.6), [[1, 0], [-0.6, 1]])
  cos, sin = np.cos(0.5), np.sin(0.5)
  check(jax.jit(image_ops.rotate)(images, 0.5), [[cos, sin], [-sin, cos]])


def test_a_quarter_turn_is_rot90():
  images = random_images(2, 7, 7)
  turned = jax.jit(image_ops.rotate)(images, np.pi / 2)
  np.testing.assert_allclose(turned, np.rot90(images, 1, (1, 2)), atol=1e-5)


def test_noise_images_are_clipped_normal_numbers():
  key = jax.random.key(3)
  noise = np.asarray(image_ops.noise_images(key, (20, 30, 30, 1)))
  assert noise.shape == (20, 30, 30, 1)
  assert noise.min() == 0 and noise.max() == 1
  assert abs(noise.mean() - 0.5) < 0.01
  # The tail beyond one standard deviation is 15.9%.
  assert abs((noise == 0).mean() - 0.159) < 0.01
  assert abs((noise == 1).mean() - 0.159) < 0.01
  assert image_ops.noise_images(key, (0, 3, 3, 1)).shape == (0, 3, 3, 1)
