"""The shear of an episode is recovered by a trained autoencoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl.data import datasets
from hyperudl.learners import udl
from hyperudl.learners import vae
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import shift
from hyperudl.ops import gradient_descent
from hyperudl.ops import image
from hyperudl.ops import losses
from hyperudl.ops import shift_transform
from tests.learners.udl.shift_test import SHIFT


@functools.cache
def trained_vae(steps=1200):
  """A small autoencoder of the built-in characters, and its images."""
  data = datasets.load('glyphs', 'train', 'data_numpy_dir')
  pixels = jnp.asarray(data.images[::3], jnp.uint8)
  config = vae.Config(hidden=(128,), latent=16, beta_steps=0)
  net = vae.network(config, pixels.shape[1:])
  variables = net.init(
    jax.random.key(0), jnp.zeros((1, *pixels.shape[1:])), jnp.zeros((1, 16))
  )
  optimizer = optax.adam(2e-3)

  @jax.jit
  def train(variables):
    def step(carry, key):
      variables, state = carry
      rows_key, noise_key = jax.random.split(key)
      rows = jax.random.randint(rows_key, (64,), 0, len(pixels))
      x = pixels[rows].astype(jnp.float32) / 255

      def loss(variables):
        terms = net.apply(variables, x, jax.random.normal(noise_key, (64, 16)))
        return jnp.mean(terms['nll'] + terms['kl']) / 784

      updates, state = optimizer.update(jax.grad(loss)(variables), state)
      return (optax.apply_updates(variables, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.lax.scan(step, (variables, optimizer.init(variables)), keys)[0]

  params = {'frozen': {'vae': {'net': train(variables)[0]['params']}}}
  config = udl.Config(vae_hidden=(128,), vae_latent=16, inner_steps=6, **SHIFT)
  return config, params, pixels


@pytest.mark.slow
def test_the_shear_of_an_episode_is_recovered():
  config, params, pixels = trained_vae()
  rng = np.random.default_rng(0)
  y = jnp.array([0] * 5 + [-1] * 25)

  @jax.jit
  def infer(x):
    support = core.Examples(x, y)
    images = inner_loop.select_images(support)
    energy = lambda phi: losses.masked_mean(
      shift.free_energy(config, params, phi, x, images.mask), images.mask
    )
    v = {'shift': shift.initial_value(images, energy)}
    sizes = fast_weights.step_sizes(fast_weights.rates(config, v))
    phi, _ = gradient_descent.descend(
      lambda phi, k: energy(phi) / x[0].size,
      v['shift'],
      sizes['shift'],
      normalization=gradient_descent.Normalization(
        'unit', epsilon=0.01, per_leaf=True
      ),
    )
    return phi, shift.gain(config, params, phi, images)

  true, got, gains = [], [], []
  for _ in range(20):
    x = jnp.asarray(pixels[rng.integers(len(pixels), size=30)]) / 255.0
    amount = rng.choice([-1, 1]) * rng.uniform(0.5, 0.8)
    x = jnp.concatenate([x[:5], image.shear(x[5:], amount)])
    phi, gain = infer(x)
    true.append(amount)
    got.append(float(shift_transform.exponential(phi['matrix'])[1, 0]))
    gains.append(float(gain))
  assert np.corrcoef(true, got)[0, 1] > 0.9
  assert np.mean(gains) > 2
