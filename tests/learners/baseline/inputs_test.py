"""Colour histograms by NumPy, and the transforms of features by hand."""

import jax
import numpy as np
import pytest

from hyperudl.learners.baseline import inputs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('channels', [1, 2, 3])
def test_colour_histograms_are_those_of_numpy(channels):
  x = RNG.uniform(size=(3, 5, 6, channels)).astype(np.float32)
  x[0, 0, 0] = 1.0  # falls into the last bin
  histograms = jax.jit(inputs.color_histograms, static_argnums=1)(x, 4)
  for image, histogram in zip(x, histograms):
    pixels = image.reshape(-1, channels)
    expected, _ = np.histogramdd(pixels, 4, [(0, 1)] * channels)
    np.testing.assert_allclose(histogram, expected.ravel() / 30, atol=1e-6)


@pytest.mark.parametrize('shape', [(2, 7), (2, 4, 4, 4)])
def test_what_has_no_colours_is_refused(shape):
  with pytest.raises(ValueError, match="set features='given'"):
    inputs.color_histograms(np.zeros(shape, np.float32), 4)


def test_transforms_by_hand():
  features = np.array([[4.0, -9.0]], np.float32)
  mean = np.array([1.0, -5.0], np.float32)
  for name, expected in (
    ('none', [4, -9]),
    ('l2', np.array([4, -9]) / np.sqrt(97)),
    ('centred', [0.6, -0.8]),  # (3, -4) / 5
    ('power', np.array([2, -3]) / np.sqrt(13)),
  ):
    row = inputs.transform(name, features, mean)[0]
    np.testing.assert_allclose(row, expected, rtol=1e-5)
