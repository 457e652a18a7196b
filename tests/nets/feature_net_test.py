"""The embedding of features is centring and, with widths, an MLP."""

import jax
import numpy as np

from hyperudl.nets import feature_net

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def test_without_widths_it_only_centres():
  params = feature_net.init(jax.random.key(0), X, ())
  assert set(params) == {'center'}
  np.testing.assert_allclose(
    feature_net.apply(params, X), X - X.mean(axis=0), atol=1e-6
  )


def test_widths_add_an_mlp():
  params = feature_net.init(jax.random.key(0), X, (6, 3))
  first, last = (jax.tree.map(np.asarray, each) for each in params['layers'])
  hidden = (X - X.mean(axis=0)) @ first['kernel']
  hidden = hidden / (1 + np.exp(-hidden))
  np.testing.assert_allclose(
    feature_net.apply(params, X), hidden @ last['kernel'], atol=1e-5
  )
