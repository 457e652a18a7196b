"""Each operation computes in onnxruntime what it computes in JAX."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from hyperudl.models import onnx_graph
from tests.testing import errors

W = np.random.default_rng(0).normal(size=(3, 2, 2, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(4, 6, 5)).astype(np.float32)


def conv(x):
  return lax.conv_general_dilated(
    *(x, W, (2, 1), ((1, 0), (2, 1))),
    rhs_dilation=(1, 2),
    dimension_numbers=('NHWC', 'HWIO', 'HNWC'),
    feature_group_count=2,
  ).transpose(1, 0, 2, 3)


FUNCTIONS = {
  'convolution': conv,
  'batched product': lambda x: jnp.einsum('nhwc,hwk->nhck', x, Y),
  'product of the last axis': lambda x: x @ Y[0, :3],
  'product of the first axis': lambda x: jnp.einsum(
    'nhwc,hk->nwck', x, Y[:, 0]
  ),
  'strided slice': lambda x: lax.slice(
    x, (0, 1, 0, 0), (x.shape[0], 4, 6, 3), (1, 2, 3, 1)
  ),
  'strided index': lambda x: x[:, 1::2, ::3],
  'one index': lambda x: x[:, 2, :, -1],
  'columns': lambda x: x[:, :, np.array([5, 0, 2])],
  'pad': lambda x: jnp.pad(
    x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=2.0
  ),
  'reductions': lambda x: (
    x.max((1, 2)) - x.min((1, 2)) + x.sum((1, 2)) * x.prod((1, 2))
  ),
  'mean and variance': lambda x: jax.nn.standardize(x, axis=(1, 2, 3)),
  'powers': lambda x: (
    x**3 + jnp.square(x) + lax.rsqrt(1 + x**2) + jnp.abs(x) ** 1.5
  ),
  'curves': lambda x: (
    jnp.tanh(x)
    + lax.erf(x) * jnp.sin(x)
    - jax.nn.sigmoid(x) * jnp.log(2 + jnp.abs(x))
  ),
  'choices': lambda x: jnp.where(
    (x > 0.5) | ~(x != 0.25), jnp.clip(x, -0.3, 0.4), -x
  ),
  'leaky': lambda x: jax.nn.leaky_relu(x - 0.5, 0.1),
  'types': lambda x: jnp.floor(x * 3).astype(jnp.int32).astype(jnp.float32),
  'parts': lambda x: jnp.concatenate(jnp.split(x, 3, axis=2)[::-1], axis=1),
  'broadcast constant': lambda x: x + jnp.broadcast_to(Y[:1, :, :3], x.shape),
  'rows joined': lambda x: (x.reshape(-1, 3) @ W[:, 0, 0]).reshape(
    x.shape[0], -1
  ),
  'stack': lambda x: jnp.stack([x, 2 * x], axis=2),
  'softmax': lambda x: jax.nn.softmax(x.reshape(x.shape[0], -1)),
  'known results': lambda x: x * jnp.sort(jnp.cumsum(Y[0, 0, :3])),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_an_operation_computes_the_same(name):
  function = lambda x: FUNCTIONS[name](x).reshape(x.shape[0], -1)
  shape = 4, 6, 4 if name == 'convolution' else 3
  content = onnx_graph.make(function, shape, {})
  session = onnxruntime.InferenceSession(content)
  x = np.random.default_rng(2).normal(size=(5, *shape)).astype(np.float32)
  expected = jax.jit(function)(x)
  for count in (1, 5):
    (found,) = session.run(None, {'pixels': x[:count]})
    np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  'function, words',
  [
    (lambda x: jnp.sort(x), "'sort'"),
    (lambda x: x + x[:-1].sum(0), 'slice of the batch'),
    (lambda x: x + jnp.ones((x.shape[0] + 1, 3))[:-1], 'n + 1'),
  ],
)
def test_what_is_not_translated_is_refused_by_name(function, words):
  message = errors.refusal(onnx_graph.make, function, (3,), {})
  assert words in message and '.stablehlo' in message
