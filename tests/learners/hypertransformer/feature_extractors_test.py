"""Features of images and of layers, against convolutions by `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import feature_extractors
from tests.testing import convolutions


def _random(params):
  """Like `params`, with no entry zero."""
  rng = np.random.default_rng(3)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params
  )


def _build(module, x):
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  params = _random(shapes)
  return jax.jit(module.apply)({'params': params}, x), params


def test_the_mean_of_a_convolution_needs_no_convolution():
  x = convolutions.random(0, 2, 5, 6, 3)
  kernel = convolutions.random(1, 3, 3, 3, 4)
  bias = convolutions.random(2, 4)
  expected = convolutions.native(x, kernel, 1, 'VALID').mean((1, 2)) + bias
  np.testing.assert_allclose(
    feature_extractors.mean_of_conv(x, kernel, bias),
    expected,
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('nonlinear', [False, True])
def test_layer_features_are_means_of_two_convolutions(nonlinear):
  x = convolutions.random(0, 2, 9, 9, 3)
  module = feature_extractors.LayerFeatures(4, layers=2, nonlinear=nonlinear)
  features, p = _build(module, x)
  one = convolutions.native(x, p['kernel0'], 2, 'VALID') + p['bias0']
  two = (
    convolutions.native(jax.nn.relu(one), p['kernel1'], 1, 'VALID') + p['bias1']
  )
  if nonlinear:
    one, two = jax.nn.relu(one), jax.nn.relu(two)
  expected = np.concatenate([one.mean((1, 2)), two.mean((1, 2))], axis=-1)
  np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  'size, layers, kernel_sizes',
  [(3, 2, (3,)), (2, 1, (2,)), (1, 2, (1, 1)), (7, 2, (3, 3))],
)
def test_small_maps_shrink_the_kernel_or_end_the_stack(
  size, layers, kernel_sizes
):
  module = feature_extractors.LayerFeatures(4, layers=layers)
  features, params = _build(module, convolutions.random(0, 2, size, size, 3))
  assert features.shape == (2, 4 * len(kernel_sizes))
  for index, kernel_size in enumerate(kernel_sizes):
    assert params[f'kernel{index}'].shape[:2] == (kernel_size, kernel_size)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('norm', [False, True])
def test_shared_features_have_stride_two_but_for_the_last(padding, norm):
  x = convolutions.random(0, 4, 15, 15, 1)
  module = feature_extractors.SharedFeatures(3, 4, norm=norm, padding=padding)
  features, p = _build(module, x)
  z = x
  for index, stride in enumerate((2, 2, 1)):
    z = (
      convolutions.native(z, p[f'kernel{index}'], stride, padding)
      + p[f'bias{index}']
    )
    z = jax.nn.relu(z)
    if norm:
      mean, variance = z.mean((0, 1, 2)), z.var((0, 1, 2))
      z = (z - mean) / jnp.sqrt(variance + 1e-5)
      z = z * p[f'scale{index}'] + p[f'shift{index}']
  np.testing.assert_allclose(features, z.mean((1, 2)), rtol=1e-3, atol=1e-3)


def test_images_too_small_for_valid_padding_are_refused():
  module = feature_extractors.SharedFeatures(3, 4, padding='VALID')
  with pytest.raises(core.BadInput, match=r'layer 3 of 3 .* got 2x2 pixels'):
    jax.eval_shape(
      module.init, jax.random.key(0), convolutions.random(0, 4, 12, 12, 1)
    )


def test_he_kernels_keep_the_differences_between_images():
  def spread(init):
    config = hypertransformer.Config(shared_init=init, shared_dim=32)
    network = feature_extractors.make_shared(config)
    x = jax.random.normal(jax.random.key(1), (8, 28, 28, 1))
    features, variables = network.init_with_output(jax.random.key(0), x)
    kernel = variables['params']['kernel1']
    return float(jnp.std(features, axis=0).mean()), float(jnp.std(kernel))

  (glorot, glorot_std), (he, he_std) = spread('glorot'), spread('he')
  # N(0, 2 / fan_in), against 2 / (fan_in + fan_out).
  assert he_std == pytest.approx((2 / 288) ** 0.5, rel=0.05)
  assert he_std == pytest.approx(glorot_std * 2**0.5, rel=0.05)
  assert he > 2 * glorot
