"""The network that predicts noise, alone and with the sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl.nets import denoiser
from hyperudl.nets import samplers
from tests.testing import diffusion


@pytest.mark.parametrize('block', [0, 1])
def test_the_denoiser_reads_condition_and_time_in_every_block(block):
  z, c = np.random.default_rng(0).normal(size=(2, 6, 3))
  params = jax.tree.map(np.copy, diffusion.random_params())
  other = 1 - block
  kernel = params['params'][f'block_{other}']['kernel']
  assert len(kernel) == (3, *diffusion.NET.hidden)[other] + 2 + 4
  kernel[-6:] = 0

  @jax.jit
  @jax.jacobian
  def by_condition(c):
    return diffusion.NET.apply(params, z, 4, c)

  slopes = np.einsum('izic->izc', by_condition(c[:, :2]))
  assert (np.abs(slopes) > 1e-5).all()
  change = diffusion.apply(params, z, 5, c[:, :2]) - diffusion.apply(
    params, z, 4, c[:, :2]
  )
  assert (np.abs(change) > 1e-5).all()
  kernel = params['params'][f'block_{block}']['kernel']
  kernel[-6:] = 0
  same = diffusion.apply(params, z, 5, 1 + c[:, :2]) - diffusion.apply(
    params, z, 4, c[:, :2]
  )
  assert not same.any()


def test_the_denoiser_adds_every_block():
  """Against the same network in NumPy."""
  z, c = np.random.default_rng(0).normal(size=(2, 6, 3))
  c, t = c[:, :2], np.arange(6) * 100
  params = jax.tree.map(np.asarray, diffusion.random_params()['params'])
  extra = np.concatenate([c, denoiser.time_embedding(jnp.asarray(t), 4)], 1)
  h = z
  for i in range(2):
    x = np.concatenate([h, extra], 1) @ params[f'block_{i}']['kernel']
    x = x + params[f'block_{i}']['bias']
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * params[f'norm_{i}']['scale'] + params[f'norm_{i}']['bias']
    h = x / (1 + np.exp(-x)) + h @ params[f'skip_{i}']['kernel']
  expected = h @ params['output']['kernel'] + params['output']['bias']
  np.testing.assert_allclose(
    diffusion.predict(z, t, c), expected, rtol=1e-3, atol=1e-4
  )


def test_the_denoiser_begins_with_no_noise_and_broadcasts():
  key = jax.random.key(0)
  z = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)))
  params = jax.jit(diffusion.NET.init)(key, z, 2, jnp.ones(2))
  assert not diffusion.apply(params, z, 2, jnp.ones(2)).any()
  c = np.random.default_rng(1).normal(size=(4, 5, 2))
  t = np.arange(20).reshape(4, 5)
  together = diffusion.predict(z, t, c)
  for i in range(4):
    alone = diffusion.predict(z[i, 2], t[i, 2], c[i, 2])
    np.testing.assert_allclose(together[i, 2], alone, rtol=1e-4, atol=1e-5)


def test_a_trained_denoiser_samples_the_centre_that_its_condition_names():
  schedule = samplers.schedule('cosine', 20)
  net = denoiser.Denoiser(2, (32, 32), time_width=8)
  centres = jnp.array([[2.0, 0.0], [-2.0, 1.0]])
  optimiser = optax.adam(3e-3)
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(2), 0, jnp.zeros(2))

  def loss(params, key):
    keys = jax.random.split(key, 3)
    side = jax.random.bernoulli(keys[0], 0.5, (128,)).astype(int)
    z = centres[side] + 0.1 * jax.random.normal(keys[1], (128, 2))
    apply = functools.partial(net.apply, params)
    c = jax.nn.one_hot(side, 2)
    return samplers.epsilon_loss(apply, schedule, z, c, keys[2], 0.2)

  def step(carry, key):
    value, grads = jax.value_and_grad(loss)(carry[0], key)
    updates, state = optimiser.update(grads, carry[1])
    return (optax.apply_updates(carry[0], updates), state), value

  carry = (params, optimiser.init(params))
  keys = jax.random.split(jax.random.key(1), 1500)
  (params, _), values = jax.jit(lambda c: jax.lax.scan(step, c, keys))(carry)
  np.testing.assert_allclose(values[0], 1.0, atol=0.2)
  assert float(values[-50:].mean()) < 0.25

  @jax.jit
  def sample(condition, gamma):
    apply = functools.partial(net.apply, params)
    eps = lambda z, t: samplers.guided(apply, z, t, condition, gamma)
    key = jax.random.key(2)
    return samplers.sample_ddim(eps, schedule, key, (200, 2), 10, clip=4.0)

  for side in range(2):
    z = sample(jax.nn.one_hot(side, 2), 1.0)
    np.testing.assert_allclose(z.mean(0), centres[side], atol=0.2)
    assert float(z.std(0).max()) < 0.4
  free = sample(jnp.array([1.0, 0.0]), 0.0)
  assert 0.3 < float((free[:, 0] > 0).mean()) < 0.7


def test_standardised_latents_have_unit_moments_and_come_back():
  z = np.random.default_rng(0).normal(3.0, [0.1, 5.0, 1.0], (4, 50, 3))
  z[..., 2] = 7.0
  std = np.maximum(z.std((0, 1)), 1e-6)
  moments = samplers.Moments(z.mean((0, 1)), std)
  unit = samplers.standardise(z, moments)
  np.testing.assert_allclose(unit.std((0, 1))[:2], 1.0, rtol=1e-4)
  assert not unit[..., 2].any()
  back = samplers.unstandardise(unit, moments)
  np.testing.assert_allclose(back, z, rtol=1e-5)
