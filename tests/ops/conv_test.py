"""Convolutions against independent routes, to second order."""

import functools

import jax
from jax.interpreters import partial_eval
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.ops import conv
from hyperudl.ops import pooling
from tests.testing import convolutions as helper

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


def _derivatives(convolve, x, w, weight):
  """Value, both gradients and both parts of a Hessian-vector product."""

  def loss(x, w):
    return jnp.sum(jnp.tanh(convolve(x, w)) * weight)

  def along(x, w):
    dx, dw = jax.grad(loss, (0, 1))(x, w)
    return jnp.vdot(dx, jnp.cos(x)) + jnp.vdot(dw, jnp.sin(w))

  y = convolve(x, w)
  return y, jax.grad(loss, (0, 1))(x, w), jax.grad(along, (0, 1))(x, w)


@pytest.mark.parametrize('size,kernel,stride,padding', CASES)
def test_formulations_agree_with_lax_up_to_second_order(
  size, kernel, stride, padding
):
  x, w = (
    helper.random(0, 2, *size, 3),
    helper.random(1, *kernel, 3, 4) / 3,
  )
  weight = jnp.asarray(helper.random(2, 4))
  names = ['auto', 'lax', 'slices', 'closed']
  if stride > 1:
    names.remove('closed')

  @jax.jit
  def compute(x, w):
    one = lambda name: functools.partial(
      conv.episode_conv, stride=stride, padding=padding, formulation=name
    )
    native = lambda x, w: helper.native(x, w, stride, padding)
    return _derivatives(native, x, w, weight), [
      _derivatives(one(name), x, w, weight) for name in names
    ]

  expected, results = compute(x, w)
  for result in results:
    helper.assert_close(result, expected, 5e-6)


def test_64_channels_agree_within_the_order_of_summation():
  x, w = (
    helper.random(0, 3, 5, 5, 64),
    helper.random(1, 3, 3, 64, 64) / 24,
  )
  weight = jnp.asarray(helper.random(2, 64))

  @functools.partial(jax.jit, static_argnums=2)
  def compute(x, w, name):
    convolve = functools.partial(conv.episode_conv, formulation=name)
    return _derivatives(convolve, x, w, weight)

  expected = compute(x, w, 'lax')
  for name in ('closed', 'slices'):
    helper.assert_close(compute(x, w, name), expected, 2e-4)


def test_third_derivatives_of_closed_agree_with_lax():
  x, w = helper.random(0, 2, 4, 4, 2), helper.random(1, 3, 3, 2, 3)

  def third(convolve, x, w):
    f = lambda w: jnp.sum(jnp.sin(convolve(x, w)))
    g = lambda w: jnp.vdot(jax.grad(f)(w), jnp.cos(w))
    h = lambda w: jnp.vdot(jax.grad(g)(w), jnp.sin(w))
    return jax.grad(h)(w)

  closed = functools.partial(conv.episode_conv, formulation='closed')
  native = functools.partial(helper.native, stride=1, padding='SAME')
  actual, expected = jax.jit(
    lambda x, w: (third(closed, x, w), third(native, x, w))
  )(x, w)
  helper.assert_close(actual, expected, 5e-6)


def test_the_closed_pair_can_be_vmapped_over_episodes():
  x, w = (
    helper.random(0, 3, 2, 5, 5, 8),
    helper.random(1, 3, 3, 3, 8, 8),
  )
  weight = jnp.asarray(helper.random(2, 8))
  closed = functools.partial(conv.episode_conv, formulation='closed')
  compute = lambda x, w: _derivatives(closed, x, w, weight)
  together = jax.jit(jax.vmap(compute))(x, w)
  one_by_one = jax.jit(lambda x, w: jax.lax.map(lambda a: compute(*a), (x, w)))
  helper.assert_close(together, one_by_one(x, w), 2e-6)


def test_auto_takes_the_closed_pair_for_many_channels_on_a_cpu(monkeypatch):
  calls = []
  real = conv.closed_conv
  monkeypatch.setattr(
    conv, 'closed_conv', lambda *args: calls.append(args) or real(*args)
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


@pytest.mark.parametrize('images,expected', [(6, 3), (5, 5), (1, 1)])
def test_a_kernel_gradient_in_parts_agrees_with_lax(
  images, expected, monkeypatch
):
  x, w = (
    helper.random(0, images, 11, 11, 2),
    helper.random(1, 3, 3, 2, 3),
  )
  weight = jnp.asarray(helper.random(2, 3))
  # Three row shifts of two images of the wider map are 8,712 bytes.
  monkeypatch.setattr(conv, 'CACHED', 9_000)
  assert (
    conv.gradient_parts(x, helper.random(3, images, 11, 11, 3), (3, 3))
    == expected
  )
  closed = functools.partial(conv.episode_conv, formulation='closed')
  native = lambda x, w: helper.native(x, w, 1, 'SAME')
  helper.assert_close(
    *jax.jit(
      lambda x, w: [_derivatives(f, x, w, weight) for f in (closed, native)]
    )(x, w),
    5e-6,
  )


def test_parts_are_added_up_in_float32(monkeypatch):
  x, dy = (
    jnp.asarray(helper.random(i, 64, 8, 8, 8), jnp.bfloat16) for i in (0, 1)
  )
  pads, kernel = ((1, 1), (1, 1)), (3, 3)
  compute = lambda: conv.kernel_gradient(pads, kernel, x, dy)
  whole = compute()
  monkeypatch.setattr(conv, 'CACHED', 2 * 3 * 2 * x[0].size)
  assert conv.gradient_parts(x, dy, kernel) == 32
  parts = compute()
  assert parts.dtype == whole.dtype == jnp.bfloat16
  gap = jnp.linalg.norm((parts - whole).astype(jnp.float32))
  # Rounded after each part it would be .01.
  assert gap < 0.004 * jnp.linalg.norm(whole.astype(jnp.float32))


def test_parts_and_rows_can_be_vmapped_over_episodes(monkeypatch):
  monkeypatch.setattr(conv, 'CACHED', 4_000)
  x, w = (
    helper.random(0, 3, 6, 12, 12, 1),
    helper.random(1, 3, 3, 3, 1, 2),
  )
  v = helper.random(2, 3, 3, 3, 2, 3)
  ones = jnp.ones(2)

  def loss(w, v, x):
    y = pooling.pooled_conv_norm(x, w, ones, ones, jnp.tanh)
    y = conv.episode_conv(y, v, formulation='closed')
    return jnp.sum(jnp.square(y))

  maps = [np.zeros((6, 6, 6, c), np.float32) for c in (2, 3)]
  assert conv.gradient_parts(*maps, (3, 3)) == 2
  gradient = jax.grad(loss, (0, 1))
  together = jax.jit(jax.vmap(gradient))(w, v, x)
  helper.assert_close(
    together, jax.lax.map(lambda a: gradient(*a), (w, v, x)), 5e-6
  )


def test_images_are_not_cut_into_parts_too_small_for_a_product(monkeypatch):
  monkeypatch.setattr(conv, 'CACHED', 9_000)
  x = np.zeros((7, 9, 9, 8), np.float32)  # 81 positions an image
  assert conv.gradient_parts(x, x, (3, 3)) == 1


def test_an_outer_loop_gets_the_rule_for_the_gradient_of_a_kernel_too():
  """It differentiates the inner gradient of `product`."""
  x, w = helper.random(0, 40, 6), helper.random(1, 6, 3)
  v = jnp.asarray(helper.random(2, 6))

  def meta_gradient(product):
    inner = lambda v, w: jnp.sum(jnp.tanh(product(x * v, w)))
    return jax.grad(lambda w: jnp.sum(jax.grad(inner)(v, w) ** 2))

  ours, plain = meta_gradient(conv.product), meta_gradient(jnp.matmul)
  np.testing.assert_allclose(ours(w), plain(w), rtol=1e-4, atol=1e-4)
  # Both, behind a barrier: of the forward pass and of the inner gradient's.
  needed = partial_eval.dce_jaxpr(jax.make_jaxpr(ours)(w).jaxpr, [True])[0]
  assert str(needed).count('optimization_barrier') == 2
