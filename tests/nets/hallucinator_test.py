"""Generators of features: their widths, their start and their dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.nets import hallucinator


def test_the_source_generator_has_its_published_widths():
  module = hallucinator.Generator('source', 1, 0.5)
  z = jnp.zeros((1, 1600))
  init = lambda key: module.init(key, z, z, False)
  shapes = jax.eval_shape(init, jax.random.key(0))
  kernels = [v['kernel'].shape for v in shapes['params'].values()]
  assert kernels == [(3200, 2400), (2400, 2400), (2400, 1600)]


def test_the_residual_generator_starts_as_the_identity():
  module = hallucinator.Generator('residual', 6, 0.5)
  z, noise = jnp.abs(jnp.sin(jnp.arange(8.0))).reshape(2, 4), jnp.ones((2, 3))
  params = module.init(jax.random.key(0), z, noise, False)
  np.testing.assert_array_equal(module.apply(params, z, noise, True), z)
