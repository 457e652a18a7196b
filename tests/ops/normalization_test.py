"""Statistics of one call of a network can be held fixed in another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import conv
from hyperudl.ops import normalization


@pytest.mark.parametrize('order', conv.ORDERS)
def test_replayed_statistics_are_those_of_the_recorded_images(order):
  net = conv.ConvNet((4, 6), head=2, order=order)
  a, b = jax.random.normal(jax.random.key(0), (2, 5, 8, 8, 1))
  variables = net.init(jax.random.key(1), a)
  apply = jax.jit(net.apply)

  @jax.jit
  def record(x):
    with normalization.recording() as moments:
      net.apply(variables, x)
    return moments

  @jax.jit
  def replay(moments, x):
    with normalization.replaying(moments):
      return net.apply(variables, x)

  moments = record(a)
  assert [mean.shape for mean, _ in moments] == [(1, 1, 1, 4), (1, 1, 1, 6)]
  np.testing.assert_allclose(replay(moments, a), apply(variables, a), atol=1e-5)
  mixed = replay(moments, b)
  assert np.abs(mixed - apply(variables, b)).max() > 1e-3
  for row in range(5):
    alone = replay(moments, b[row : row + 1])
    np.testing.assert_allclose(alone[0], mixed[row], atol=1e-5)


def test_other_norms_are_not_recorded():
  x = jnp.ones((2, 4, 4, 4))
  with normalization.recording() as moments:
    for norm in ('group', 'layer'):
      normalization.moments(x, norm, 2)
    assert moments == [] and not normalization.may_fuse('batch')
  assert normalization.may_fuse('batch')
  assert not normalization.may_fuse('layer')


def test_standardised_features_have_mean_0_and_variance_1():
  x = (
    np.random.default_rng(0).normal(5, [1, 1e-2, 0], (50, 3)).astype(np.float32)
  )
  y = np.asarray(normalization.standardise(jnp.asarray(x)))
  np.testing.assert_allclose(y.mean(0), 0, atol=1e-3)
  np.testing.assert_allclose(y.std(0), [1, 1, 0], atol=1e-2)


def test_rows_that_do_not_count_leave_standardised_features_as_they_are():
  x = jax.random.normal(jax.random.key(0), (6, 3))
  alone = normalization.standardise(x[:4])
  padded = normalization.standardise(
    x.at[4:].set(100.0), jnp.array([1.0, 1, 1, 1, 0, 0])
  )
  np.testing.assert_allclose(padded[:4], alone, rtol=1e-4, atol=1e-5)
