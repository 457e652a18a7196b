"""Blocks and networks against plain numpy and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import conv
from hyperudl.ops import gradient_descent
from tests.testing import convolutions as helper


def _parameters(net, x, seed=0):
  """Random parameters, scales of both signs among them."""
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)['params']
  leaves, structure = jax.tree.flatten(shapes)
  leaves = [
    helper.random(seed + 2 * i, *leaf.shape)
    / max(1, np.prod(leaf.shape[:-1])) ** 0.5
    for i, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, leaves)


def _numpy_norm(x, norm, groups):
  if norm == 'batch':
    axes = (0, 1, 2)
  elif norm == 'layer':
    axes = (1, 2, 3)
  else:
    parts = np.split(x, groups, axis=-1)
    parts = [_numpy_norm(part, 'layer', 1) for part in parts]
    return np.concatenate(parts, axis=-1)
  mean = x.mean(axes, keepdims=True)
  return (x - mean) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def _numpy_block(x, params, norm, activation, order, pool):
  """The block in the order of its name, in float64."""
  p = {k: np.asarray(v, np.float64) for k, v in params.items()}
  x = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows, columns = x.shape[1] - 2, x.shape[2] - 2
  x = sum(
    x[:, i : i + rows, j : j + columns] @ p['kernel'][i, j]
    for i in range(3)
    for j in range(3)
  )
  x = x + p.get('conv_bias', 0.0)
  slope = {'relu': 0.0, 'lrelu': 0.01, 'none': 1.0}[activation]
  steps = {
    'norm': lambda x: (
      x + p['bias']
      if norm == 'none'
      else _numpy_norm(x, norm, 2) * p['scale'] + p['bias']
    ),
    'act': lambda x: np.where(x > 0, x, slope * x),
    'pool': lambda x: helper.max_pool(x) if pool else x,
  }
  names = order.split('_')[1:]
  if norm == 'none':  # the bias belongs to the convolution then
    names = ['norm'] + [name for name in names if name != 'norm']
  for name in names:
    x = steps[name](x)
  return x


@pytest.mark.parametrize('order', conv.ORDERS)
@pytest.mark.parametrize(
  'norm,activation,size,pool',
  [
    ('batch', 'relu', (6, 4, 1), True),
    ('batch', 'relu', (5, 7, 8), True),
    ('batch', 'relu', (6, 4, 8), True),
    ('batch', 'lrelu', (4, 4, 1), False),
    ('group', 'lrelu', (6, 5, 3), True),
    ('layer', 'relu', (4, 6, 2), True),
    ('layer', 'none', (4, 6, 8), False),
    ('none', 'lrelu', (5, 4, 1), True),
  ],
)
def test_a_block_equals_plain_numpy_with_scales_of_both_signs(
  norm, activation, size, order, pool
):
  block = conv.ConvBlock(
    8, norm=norm, groups=2, activation=activation, order=order, pool=pool
  )
  x = helper.random(0, 3, *size)
  params = _parameters(block, x)
  names = {'kernel', 'bias'}
  if norm != 'none':
    names |= {'scale'}
    names |= {'conv_bias'} if order == 'conv_act_pool_norm' else set()
  assert set(params) == names
  actual = jax.jit(block.apply)({'params': params}, x)
  expected = _numpy_block(x, params, norm, activation, order, pool)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
  'settings,image,width',
  [
    ({}, (28, 28, 1), 8),
    ({}, (84, 84, 3), 25 * 8),
    ({'stride': 2, 'pool': False}, (28, 28, 1), 4 * 8),
    ({'stride': 2, 'pool': False, 'features': 'mean'}, (28, 20, 1), 8),
    ({'features': 'mean', 'norm': 'layer'}, (84, 60, 1), 8),
    ({'kernel': 5, 'norm': 'group'}, (28, 28, 1), 8),
    ({'padding': 'VALID', 'pool': False}, (12, 10, 1), 4 * 2 * 8),
  ],
)
def test_networks_have_the_documented_shapes(settings, image, width):
  net = conv.ConvNet((8, 8, 8, 8), head=5, **settings)
  x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
  variables = jax.eval_shape(net.init, jax.random.key(0), x)
  params = variables['params']
  names = ['block0', 'block1', 'block2', 'block3', 'head']
  assert sorted(params) == names
  assert params['head']['kernel'].shape == (width, 5)
  assert set(params['block0']) == {'kernel', 'scale', 'bias'}
  headless = conv.ConvNet((8, 8, 8, 8), **settings)
  features = jax.eval_shape(headless.apply, variables, x)
  logits = jax.eval_shape(net.apply, variables, x)
  assert (features.shape, logits.shape) == ((2, width), (2, 5))


def test_features_and_logits_come_from_the_same_parameters():
  net = conv.ConvNet((3, 4), head=5)
  x = helper.random(0, 2, 8, 8, 1)
  params = _parameters(net, x)
  run = lambda net, params: jax.jit(net.apply)({'params': params}, x)
  logits = run(net, params)
  head = params.pop('head')
  features = run(conv.ConvNet((3, 4)), params)
  expected = features @ head['kernel'] + head['bias']
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'settings,message',
  [
    ({'norm': 'instance'}, "norm must be one of .*'layer'.* not 'instance'"),
    ({'activation': 'gelu'}, "one of .*'lrelu'.* not 'gelu'"),
    ({'order': 'act_conv'}, "one of .*'conv_norm_act_pool'"),
    ({'padding': 'CIRCULAR'}, "one of .*'SAME'"),
    ({'features': 'max'}, "one of .*'flatten'"),
    ({'formulation': 'fft'}, "one of .*'closed'"),
    ({'formulation': 'closed', 'stride': 2}, 'needs stride 1'),
    ({'norm': 'group', 'groups': 3}, 'groups must divide the channels, 8'),
    ({'stride': 0}, 'stride must be >= 1'),
    ({'kernel': 0}, 'kernel and stride must be >= 1'),
    ({'head': 0}, 'head must be None or >= 1'),
    ({'channels': ()}, r'channels=\(\)'),
    ({'channels': (8, 0)}, r'channels=\(8, 0\)'),
  ],
)
def test_bad_settings_of_a_network_are_refused_at_once(settings, message):
  with pytest.raises(ValueError, match=message):
    conv.ConvNet(**{'channels': (8, 8), **settings})


def test_an_image_too_small_for_the_blocks_is_refused():
  net = conv.ConvNet((4, 4, 4))
  with pytest.raises(ValueError, match='1x1 is too small for 2x2 pooling'):
    jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 7, 7, 1)))


def _meta_gradient(net, params, support, query, steps=2):
  """Gradient of the query loss through an inner loop, as in MAML."""

  def loss(params, images):
    logits = net.apply({'params': params}, images)
    labels = jax.nn.one_hot(jnp.arange(len(images)) % 3, 3)
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), -1))

  def outer(params):
    rates = gradient_descent.make_rates(params, steps, 0.05, 'step')
    adapted, _ = gradient_descent.descend(
      lambda value, k: loss(value, support), params, rates
    )
    return loss(adapted, query)

  return jax.value_and_grad(outer)(params)


@pytest.mark.parametrize(
  'channels,other,tolerance',
  [
    (8, 'lax', 2e-5),
    pytest.param(64, 'slices', 1e-3, marks=pytest.mark.slow),
  ],
)
def test_meta_gradients_agree_between_formulations(channels, other, tolerance):
  support, query = helper.random(0, 3, 8, 8, 1), helper.random(1, 6, 8, 8, 1)
  compute = lambda name: jax.jit(
    functools.partial(
      _meta_gradient,
      conv.ConvNet((channels, channels), head=3, formulation=name),
    )
  )(params, support, query)
  params = _parameters(conv.ConvNet((channels, channels), head=3), support)
  helper.assert_close(compute('auto'), compute(other), tolerance)


@pytest.mark.parametrize('order', conv.ORDERS)
def test_meta_gradient_equals_finite_differences_in_float64(order):
  with jax.enable_x64(True):
    double = lambda tree: jax.tree.map(
      lambda leaf: jnp.asarray(leaf, jnp.float64), tree
    )
    support = double(helper.random(0, 3, 8, 8, 1))
    query = double(helper.random(1, 3, 8, 8, 1))
    net = conv.ConvNet((8, 8), head=3, order=order)
    params = double(_parameters(net, support))
    direction = double(_parameters(net, support, seed=1))
    compute = jax.jit(functools.partial(_meta_gradient, net))
    gradient = compute(params, support, query)[1]
    t = 1e-6
    ahead, behind = (
      compute(
        jax.tree.map(lambda p, d: p + sign * t * d, params, direction),
        support,
        query,
      )[0]
      for sign in (1, -1)
    )
    along = sum(
      jnp.vdot(g, d)
      for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction))
    )
    np.testing.assert_allclose((ahead - behind) / (2 * t), along, rtol=1e-5)
