"""Multilayer perceptrons, and the decoder of weights that is made of one."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.nets import mlp
from hyperudl.nets import weight_decoder


def test_initial_weights_have_the_documented_variance_and_no_bias():
  layers = mlp.init(jax.random.key(0), (100, 400, 300), last_scale=0.1)
  for layer, variance in zip(layers, (2 / 100, 0.01 * 2 / 400)):
    np.testing.assert_allclose(layer['kernel'].var(), variance, rtol=0.05)
    assert not layer['bias'].any()
  layer = mlp.init_dense(jax.random.key(1), 100, 400, scale=3.0)
  np.testing.assert_allclose(layer['kernel'].var(), 9 / 100, rtol=0.05)


def test_the_activation_is_between_layers_alone():
  layers = mlp.init(jax.random.key(0), (3, 4, 4, 2))
  layers = jax.tree.map(lambda leaf: leaf + 0.1, layers)
  x = np.random.default_rng(0).normal(size=(5, 3))
  h = x
  for i, layer in enumerate(jax.tree.map(np.asarray, list(layers))):
    h = (np.maximum(h, 0) if i else h) @ layer['kernel'] + layer['bias']
  outputs = mlp.apply(layers, jnp.asarray(x), jax.nn.relu)
  np.testing.assert_allclose(outputs, h, rtol=1e-4, atol=1e-5)


def test_a_decoder_adds_an_mlp_to_its_base():
  weights = {'a': jnp.ones((2, 3)), 'b': jnp.zeros(4)}
  params = weight_decoder.init(jax.random.key(0), weights, 5, (6,))
  z = jnp.arange(5.0)
  first, second = params['layers']
  h = np.asarray(z @ first['kernel'] + first['bias'])
  flat = h / (1 + np.exp(-h)) @ second['kernel'] + second['bias']
  decoded = weight_decoder.apply(params, z)
  np.testing.assert_allclose(decoded['a'].ravel(), 1 + flat[:6], rtol=1e-5)
  np.testing.assert_allclose(decoded['b'], flat[6:], rtol=1e-5, atol=1e-6)
