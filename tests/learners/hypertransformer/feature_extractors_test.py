"""Parts that write a layer, against convolutions and tokens by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners.hypertransformer import layer_generator


def _images(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def _conv(x, kernel, stride, padding):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


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
  x, kernel = _images(2, 5, 6, 3), _images(3, 3, 3, 4, seed=1)
  bias = _images(4, seed=2)
  expected = _conv(x, kernel, 1, 'VALID').mean((1, 2)) + bias
  np.testing.assert_allclose(
    layer_generator.mean_of_conv(x, kernel, bias),
    expected,
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('nonlinear', [False, True])
def test_layer_features_are_means_of_two_convolutions(nonlinear):
  x = _images(2, 9, 9, 3)
  module = layer_generator.LayerFeatures(4, layers=2, nonlinear=nonlinear)
  features, p = _build(module, x)
  one = _conv(x, p['kernel0'], 2, 'VALID') + p['bias0']
  two = _conv(jax.nn.relu(one), p['kernel1'], 1, 'VALID') + p['bias1']
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
  module = layer_generator.LayerFeatures(4, layers=layers)
  features, params = _build(module, _images(2, size, size, 3))
  assert features.shape == (2, 4 * len(kernel_sizes))
  for index, kernel_size in enumerate(kernel_sizes):
    assert params[f'kernel{index}'].shape[:2] == (kernel_size, kernel_size)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('norm', [False, True])
def test_shared_features_have_stride_two_but_for_the_last(padding, norm):
  x = _images(4, 15, 15, 1)
  module = layer_generator.SharedFeatures(3, 4, norm=norm, padding=padding)
  features, p = _build(module, x)
  z = x
  for index, stride in enumerate((2, 2, 1)):
    z = _conv(z, p[f'kernel{index}'], stride, padding) + p[f'bias{index}']
    z = jax.nn.relu(z)
    if norm:
      mean, spread = z.mean((0, 1, 2)), z.std((0, 1, 2))
      z = (z - mean) / jnp.sqrt(spread**2 + 1e-5)
      z = z * p[f'scale{index}'] + p[f'shift{index}']
  np.testing.assert_allclose(features, z.mean((1, 2)), rtol=1e-3, atol=1e-3)


def test_images_too_small_for_valid_padding_are_refused():
  module = layer_generator.SharedFeatures(3, 4, padding='VALID')
  with pytest.raises(core.BadInput, match=r'layer 3 of 3 .* got 2x2 pixels'):
    jax.eval_shape(module.init, jax.random.key(0), _images(4, 12, 12, 1))


def _capture(features, y, tokens, size):
  """The sequence that the encoder gets, and the tables."""
  seen = []

  def encoder(name):
    assert name == 'encoder'

    def encode(sequence, mask, *, train):
      assert train and mask is None
      seen.append(sequence)
      return sequence + 100.0

    return encode

  module = layer_generator.LayerGenerator(3, tokens, size, 2, encoder)
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), features, y, train=True)
  )
  params = _random(shapes['params'])
  seen.clear()
  slices = module.apply({'params': params}, features, y, train=True)
  return np.asarray(seen[0]), np.asarray(slices), params


@pytest.mark.parametrize('size', [3, 7])
def test_weight_tokens_come_first_and_unlabelled_rows_have_their_own_row(size):
  features = _images(4, 5)
  y = np.array([2, -1, 0, -1])
  sequence, slices, params = _capture(features, y, tokens=2, size=size)
  width = max(size, 5)
  expected = np.zeros((6, 2 + width), np.float32)
  expected[:2, :2] = params['weights']
  expected[2:, :2] = params['labels'][[2, 3, 0, 3]]
  expected[2:, 2:7] = features
  np.testing.assert_array_equal(sequence, expected)
  np.testing.assert_array_equal(slices, np.full((2, size), 100.0))
