"""Convolutions and pooling against independent routes, to second order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import conv
from hyperudl.nets import conv_ops
from hyperudl.nets import pooling

# (rows, columns), (kh, kw), stride, padding
CASES = [
  ((6, 6), (3, 3), 1, 'SAME'),
  ((7, 5), (3, 3), 1, 'SAME'),
  ((7, 5), (3, 3), 2, 'SAME'),
  ((6, 8), (3, 3), 2, 'SAME'),
  ((6, 7), (3, 3), 1, 'VALID'),
  ((8, 7), (3, 3), 2, 'VALID'),
  ((5, 4), (1, 1), 1, 'SAME'),
  ((5, 6), (1, 1), 2, 'VALID'),
  ((6, 5), (2, 2), 1, 'SAME'),
  ((6, 5), (2, 2), 2, 'VALID'),
  ((7, 6), (5, 5), 1, 'SAME'),
  ((5, 9), (5, 3), 1, 'VALID'),
  ((3, 3), (5, 5), 2, 'SAME'),
]


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _native(x, w, stride, padding):
  return jax.lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _derivatives(convolve, x, w, weight):
  """Value, both gradients and both parts of a Hessian-vector product."""

  def loss(x, w):
    return jnp.sum(jnp.tanh(convolve(x, w)) * weight)

  def along(x, w):
    dx, dw = jax.grad(loss, (0, 1))(x, w)
    return jnp.vdot(dx, jnp.cos(x)) + jnp.vdot(dw, jnp.sin(w))

  y = convolve(x, w)
  return y, jax.grad(loss, (0, 1))(x, w), jax.grad(along, (0, 1))(x, w)


def _assert_close(actual, expected, tolerance):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
    scale = np.max(np.abs(b)) + 1e-6
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize('size,kernel,stride,padding', CASES)
def test_formulations_agree_with_lax_up_to_second_order(
  size, kernel, stride, padding
):
  x, w = _random(0, 2, *size, 3), _random(1, *kernel, 3, 4) / 3
  weight = jnp.asarray(_random(2, 4))
  names = ['auto', 'lax', 'slices', 'patches', 'closed']
  if stride > 1:
    names.remove('closed')

  @jax.jit
  def compute(x, w):
    one = lambda name: functools.partial(
      conv.episode_conv, stride=stride, padding=padding, formulation=name
    )
    native = lambda x, w: _native(x, w, stride, padding)
    return _derivatives(native, x, w, weight), [
      _derivatives(one(name), x, w, weight) for name in names
    ]

  expected, results = compute(x, w)
  for result in results:
    _assert_close(result, expected, 5e-6)


def test_64_channels_agree_within_the_order_of_summation():
  x, w = _random(0, 3, 5, 5, 64), _random(1, 3, 3, 64, 64) / 24
  weight = jnp.asarray(_random(2, 64))

  @functools.partial(jax.jit, static_argnums=2)
  def compute(x, w, name):
    convolve = functools.partial(conv.episode_conv, formulation=name)
    return _derivatives(convolve, x, w, weight)

  expected = compute(x, w, 'lax')
  for name in ('closed', 'slices'):
    _assert_close(compute(x, w, name), expected, 2e-4)


def test_third_derivatives_of_closed_agree_with_lax():
  x, w = _random(0, 2, 4, 4, 2), _random(1, 3, 3, 2, 3)

  def third(convolve, x, w):
    f = lambda w: jnp.sum(jnp.sin(convolve(x, w)))
    g = lambda w: jnp.vdot(jax.grad(f)(w), jnp.cos(w))
    h = lambda w: jnp.vdot(jax.grad(g)(w), jnp.sin(w))
    return jax.grad(h)(w)

  closed = functools.partial(conv.episode_conv, formulation='closed')
  native = functools.partial(_native, stride=1, padding='SAME')
  actual, expected = jax.jit(
    lambda x, w: (third(closed, x, w), third(native, x, w))
  )(x, w)
  _assert_close(actual, expected, 5e-6)


def test_the_closed_pair_can_be_vmapped_over_episodes():
  x, w = _random(0, 3, 2, 5, 5, 8), _random(1, 3, 3, 3, 8, 8)
  weight = jnp.asarray(_random(2, 8))
  closed = functools.partial(conv.episode_conv, formulation='closed')
  compute = lambda x, w: _derivatives(closed, x, w, weight)
  together = jax.jit(jax.vmap(compute))(x, w)
  one_by_one = jax.jit(lambda x, w: jax.lax.map(lambda a: compute(*a), (x, w)))
  _assert_close(together, one_by_one(x, w), 2e-6)


def test_auto_takes_the_closed_pair_for_many_channels_on_a_cpu(monkeypatch):
  calls = []
  real = conv_ops.closed_conv
  monkeypatch.setattr(
    conv_ops, 'closed_conv', lambda *args: calls.append(args) or real(*args)
  )
  trace = lambda channels, **kwargs: jax.eval_shape(
    functools.partial(conv.episode_conv, **kwargs),
    jnp.zeros((1, 6, 6, channels)),
    jnp.zeros((3, 3, channels, 8)),
  )
  trace(1), trace(8, stride=2), trace(8, formulation='slices')
  assert not calls
  trace(8)
  assert len(calls) == 1
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  trace(8)
  assert len(calls) == 1


def test_bad_settings_of_a_convolution_are_named():
  x, w = jnp.zeros((1, 4, 2, 1)), jnp.zeros((3, 3, 1, 1))
  with pytest.raises(ValueError, match=r"one of .*'slices'.* not 'fft'"):
    conv.episode_conv(x, w, formulation='fft')
  with pytest.raises(ValueError, match=r"'SAME', 'VALID'.* not 'same'"):
    conv.episode_conv(x, w, padding='same')
  with pytest.raises(ValueError, match=r'3x3 kernel does not fit .* 4x2'):
    conv.episode_conv(x, w, padding='VALID')
  with pytest.raises(ValueError, match='needs stride 1, not 2'):
    conv.episode_conv(x, w, stride=2, formulation='closed')


def _numpy_pool(x):
  n, height, width, channels = x.shape
  out = np.empty((n, height // 2, width // 2, channels), x.dtype)
  for i in range(height // 2):
    for j in range(width // 2):
      out[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
  return out


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (3, 2)])
def test_max_pool_takes_the_largest_and_its_gradient(size):
  x = _random(0, 2, *size, 3)
  weight = _random(1, 2, size[0] // 2, size[1] // 2, 3)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda x: jnp.sum(conv.max_pool(x) * weight))
  )(x)
  pooled = _numpy_pool(x)
  np.testing.assert_allclose(value, np.sum(pooled * weight), rtol=1e-5)
  spread = np.zeros_like(x)
  for n, i, j, c in np.ndindex(pooled.shape):
    square = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
    di, dj = np.unravel_index(square.argmax(), (2, 2))
    spread[n, 2 * i + di, 2 * j + dj, c] = weight[n, i, j, c]
  np.testing.assert_array_equal(gradient, spread)


def test_among_equal_values_one_takes_the_gradient():
  gradient = jax.grad(lambda x: jnp.sum(conv.max_pool(x)))(
    jnp.ones((1, 4, 4, 1))
  )
  assert sorted(np.unique(gradient)) == [0.0, 1.0]
  assert gradient.sum() == 4


def test_a_map_of_one_pixel_cannot_be_pooled():
  with pytest.raises(ValueError, match='1x3 is too small for 2x2 pooling'):
    conv.max_pool(jnp.zeros((1, 1, 3, 2)))


def _to_second_order(function, x, *leaves):
  """The value of `function`, gradients of all inputs, a second derivative."""
  weight = _random(9, *function(x, *leaves).shape)
  loss = lambda x, *leaves: jnp.sum(jnp.sin(function(x, *leaves)) * weight)
  places = tuple(range(1 + len(leaves)))

  def along(*inputs):
    gradients = jax.grad(loss, places)(*inputs)
    return sum(jnp.vdot(g, jnp.cos(i)) for g, i in zip(gradients, inputs))

  inputs = x, *leaves
  gradients = jax.grad(loss, places)(*inputs)
  return function(*inputs), gradients, jax.grad(along, places)(*inputs)


@pytest.mark.parametrize(
  'inputs,size',
  [
    (1, (6, 4)),
    (3, (6, 4)),
    (8, (6, 4)),
    (8, (7, 7)),
    (8, (4, 5)),
    (8, (3, 2)),
  ],
)
@pytest.mark.parametrize('outputs', [5, pooling.FEW + 1])
def test_pooled_conv_norm_is_convolution_batch_norm_and_pooling(
  inputs, size, outputs
):
  x, w = _random(0, 3, *size, inputs), _random(1, 3, 3, inputs, outputs)
  scale, bias = np.abs(_random(2, outputs)), _random(3, outputs)
  act = jnp.tanh  # smooth, so that second derivatives are too

  def plain(x, w, scale, bias):
    y = _native(x, w, 1, 'SAME')
    gaps = y - jnp.mean(y, (0, 1, 2))
    y = gaps * jax.lax.rsqrt(jnp.mean(jnp.square(gaps), (0, 1, 2)) + 1e-5)
    return conv.max_pool(act(y * scale + bias))

  ours = lambda *inputs: pooling.pooled_conv_norm(*inputs, act)
  both = jax.jit(
    lambda *inputs: [_to_second_order(f, *inputs) for f in (ours, plain)]
  )
  _assert_close(*both(x, w, scale, bias), 1e-5)


@pytest.mark.parametrize('outputs', [5, pooling.FEW + 1])
def test_pooled_conv_is_convolution_and_pooling(outputs):
  x, w = _random(0, 3, 6, 4, 3), _random(1, 3, 3, 3, outputs)
  plain = lambda x, w: conv.max_pool(_native(x, w, 1, 'SAME'))
  both = jax.jit(
    lambda *inputs: [
      _to_second_order(f, *inputs) for f in (pooling.pooled_conv, plain)
    ]
  )
  _assert_close(*both(x, w), 5e-6)


def test_rounding_does_not_put_a_variance_below_zero():
  along = 100 * _random(0, 16)
  squares = np.outer(along, _random(1, 50))
  kernel = _random(2, 16, 4 * 9)  # made to see nothing of the squares
  kernel -= np.outer(along, along @ kernel) / np.sum(np.square(along))
  _, variance = pooling._moments_of_windows(squares, kernel)
  assert float(variance.min()) >= 0


@pytest.mark.parametrize('images,expected', [(6, 3), (5, 5), (1, 1)])
def test_a_kernel_gradient_in_parts_agrees_with_lax(
  images, expected, monkeypatch
):
  x, w = _random(0, images, 11, 11, 2), _random(1, 3, 3, 2, 3)
  weight = jnp.asarray(_random(2, 3))
  # Three row shifts of two images of the wider map are 8,712 bytes.
  monkeypatch.setattr(conv_ops, 'CACHED', 9_000)
  assert conv_ops._parts(x, _random(3, images, 11, 11, 3), (3, 3)) == expected
  closed = functools.partial(conv.episode_conv, formulation='closed')
  native = lambda x, w: _native(x, w, 1, 'SAME')
  _assert_close(
    *jax.jit(
      lambda x, w: [_derivatives(f, x, w, weight) for f in (closed, native)]
    )(x, w),
    5e-6,
  )


def test_parts_are_added_up_in_float32(monkeypatch):
  x, dy = (jnp.asarray(_random(i, 64, 8, 8, 8), jnp.bfloat16) for i in (0, 1))
  pads, kernel = ((1, 1), (1, 1)), (3, 3)
  compute = lambda: conv_ops.kernel_gradient(pads, kernel, x, dy)
  whole = compute()
  monkeypatch.setattr(conv_ops, 'CACHED', 2 * 3 * 2 * x[0].size)
  assert conv_ops._parts(x, dy, kernel) == 32
  parts = compute()
  assert parts.dtype == whole.dtype == jnp.bfloat16
  gap = jnp.linalg.norm((parts - whole).astype(jnp.float32))
  # Rounded after each part it would be .01.
  assert gap < 0.004 * jnp.linalg.norm(whole.astype(jnp.float32))


def test_parts_and_rows_can_be_vmapped_over_episodes(monkeypatch):
  monkeypatch.setattr(conv_ops, 'CACHED', 4_000)
  x, w = _random(0, 3, 6, 12, 12, 1), _random(1, 3, 3, 3, 1, 2)
  v = _random(2, 3, 3, 3, 2, 3)
  ones = jnp.ones(2)

  def loss(w, v, x):
    y = pooling.pooled_conv_norm(x, w, ones, ones, jnp.tanh)
    y = conv.episode_conv(y, v, formulation='closed')
    return jnp.sum(jnp.square(y))

  maps = [np.zeros((6, 6, 6, c), np.float32) for c in (2, 3)]
  assert conv_ops._parts(*maps, (3, 3)) == 2
  gradient = jax.grad(loss, (0, 1))
  together = jax.jit(jax.vmap(gradient))(w, v, x)
  _assert_close(together, jax.lax.map(lambda a: gradient(*a), (w, v, x)), 5e-6)


def test_parts_too_small_for_a_product_are_not_made(monkeypatch):
  monkeypatch.setattr(conv_ops, 'CACHED', 9_000)
  x = np.zeros((7, 9, 9, 8), np.float32)  # 81 positions an image
  assert conv_ops._parts(x, x, (3, 3)) == 1
