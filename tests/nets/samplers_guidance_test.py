"""Guidance, clipping and the denoising loss, on exact denoisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import samplers
from tests.testing import diffusion


def test_guidance_lies_on_the_line_through_two_predictions():
  z, c = np.random.default_rng(0).normal(size=(2, 4, 3))
  z, c = jnp.asarray(z), jnp.asarray(c[:, :2])
  at = lambda gamma: samplers.guided(diffusion.predict, z, 3, c, gamma)
  free, bound = diffusion.predict(z, 3, 0 * c), diffusion.predict(z, 3, c)
  assert float(jnp.abs(free - bound).min()) > 0.01
  np.testing.assert_allclose(at(0.0), free, rtol=1e-6)
  np.testing.assert_allclose(at(1.0), bound, rtol=1e-6)
  for gamma in (-1.0, 0.3, 1.5, 15.0):
    line = free + gamma * (bound - free)
    np.testing.assert_allclose(at(gamma), line, rtol=1e-3, atol=1e-4)
  both = jax.vmap(at)(jnp.array([0.0, 1.5]))
  np.testing.assert_allclose(both[1], at(1.5), rtol=1e-4, atol=1e-5)


@functools.partial(jax.jit, static_argnums=3)
def recorded_loss(prediction, z, condition, rate):
  """The loss of a fixed prediction, and the arguments of `predict`."""
  arguments = []

  def predict(*given):
    arguments.extend(given)
    return prediction

  schedule, key = samplers.schedule('cosine', 10), jax.random.key(2)
  loss = samplers.epsilon_loss(predict, schedule, z, condition, key, rate)
  return loss, *arguments


def rows_of_normals(count, n=3000):
  draws = np.random.default_rng(0).normal(size=(count, n, 2))
  return draws.astype(np.float32)


@pytest.mark.parametrize(
  'rate, low, high', [(0, 0, 0), (1, 1, 1), (0.2, 0.18, 0.22)]
)
def test_conditions_are_dropped_at_the_rate(rate, low, high):
  prediction, z, condition = rows_of_normals(3)
  used = recorded_loss(prediction, z, condition, rate)[-1]
  dropped = (np.asarray(used) == 0).all(1)
  assert low <= dropped.mean() <= high
  np.testing.assert_array_equal(used[~dropped], condition[~dropped])


def test_the_loss_is_the_error_of_the_noise_at_even_timesteps():
  prediction, z, condition = rows_of_normals(3)
  loss, noisy, t, _ = recorded_loss(prediction, z, condition, 0.2)
  bars = diffusion.bars_of(samplers.schedule('cosine', 10))[t][:, None]
  noise = (noisy - np.sqrt(bars) * z) / np.sqrt(1 - bars)
  np.testing.assert_allclose(
    loss, np.mean((noise - prediction) ** 2), rtol=1e-4
  )
  np.testing.assert_allclose(np.bincount(t, minlength=10), 300, atol=70)
  np.testing.assert_allclose(noise.mean(0), 0, atol=0.08)
  np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.1)


@pytest.mark.parametrize('eta', [0.0, 1.0])
def test_the_clip_bounds_the_samples(eta):
  model = diffusion.exact(
    samplers.schedule('cosine', 40), diffusion.MEAN, 4 * diffusion.COVARIANCE
  )
  free, wide, bound = (
    diffusion.draw(model, 300, 40, eta, clip) for clip in (None, 1e6, 1.5)
  )
  assert np.abs(free).max() > 4
  np.testing.assert_allclose(wide, free, atol=1e-4)
  assert np.abs(bound).max() <= 1.5
  # Some lie on the bound, some within.
  assert 0.05 < (np.abs(bound) == 1.5).mean() < 0.95


@pytest.mark.parametrize('clip', [None, 0.1])
def test_a_push_follows_the_gradient_at_the_estimate(clip):
  schedule = samplers.schedule('cosine', 10)
  z, e = np.random.default_rng(0).normal(size=(2, 4, 3))
  target = np.array([1.0, 2.0, 3.0])
  loss = lambda x: 5 * jnp.sum((x - target) ** 2, -1)
  push = samplers.few_shot_push(loss, 0.7, schedule, clip)
  bar = diffusion.bars_of(schedule)[6]
  x0 = (z - np.sqrt(1 - bar) * e) / np.sqrt(bar)
  place = np.clip(x0, -(clip or 99), clip or 99)
  unit = (place - target) / np.linalg.norm(place - target, axis=1)[:, None]
  expected = e + 0.7 * np.linalg.norm(e, axis=1)[:, None] * unit
  ours = jax.jit(push)(z, 6, e)
  np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_push_without_a_gradient_or_a_strength_changes_nothing():
  schedule = samplers.schedule('cosine', 10)
  z, e = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
  flat = samplers.few_shot_push(lambda x: jnp.sum(0 * x), 3.0, schedule)
  weak = samplers.few_shot_push(lambda x: jnp.sum(x**2), 0.0, schedule)
  for push in (flat, weak):
    np.testing.assert_array_equal(push(z, 2, e), e)
  small = samplers.few_shot_push(lambda x: 1e-12 * jnp.sum(x), 1.0, schedule)
  moved = jnp.linalg.norm(small(z, 2, e) - e, axis=-1)
  np.testing.assert_allclose(moved, jnp.linalg.norm(e, axis=-1), rtol=1e-5)


def test_pushed_samples_have_a_smaller_loss():
  model = diffusion.exact(
    samplers.schedule('cosine', 40), np.zeros(2), np.eye(2)
  )
  loss = lambda x: ((x - 1.5) ** 2).sum(-1)
  pushed = lambda gamma: diffusion.draw(
    model, 300, 40, 1.0, 4.0, loss=loss, gamma=gamma
  )
  none = loss(diffusion.draw(model, 300, 40, 1.0, 4.0)).mean()
  zero, some, more = (loss(pushed(gamma)).mean() for gamma in (0.0, 0.3, 1.0))
  np.testing.assert_allclose(none, zero, rtol=1e-5)
  assert zero > some + 0.5 > more + 0.7


def test_the_hook_gets_the_latent_the_timestep_and_the_noise():
  schedule = samplers.schedule('cosine', 40)
  _, *model = diffusion.exact(schedule, diffusion.MEAN, np.zeros((2, 2)))
  gains, centres = map(jnp.asarray, model)
  push = lambda z, t, e: e - 7 + (z - centres[t]) @ gains[t]
  sevens = lambda z, t: jnp.full_like(z, 7.0)
  key, shape = jax.random.key(0), (5, 2)
  z = samplers.sample_ddim(sevens, schedule, key, shape, 7, push=push)
  np.testing.assert_allclose(z, np.tile(diffusion.MEAN, (5, 1)), atol=2e-3)


def test_vmapped_sampling_equals_a_loop_over_tasks():
  schedule = samplers.schedule('cosine', 8)
  conditions = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
  targets = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
  keys = jax.random.split(jax.random.key(0), 3)

  def sample(key, condition, target):
    eps = lambda z, t: samplers.guided(diffusion.predict, z, t, condition, 1.5)
    loss = lambda x: jnp.sum((x - target) ** 2)
    push = samplers.few_shot_push(loss, 0.3, schedule, clip=2.0)
    return samplers.sample_ddim(
      eps, schedule, key, (3,), 4, 0.5, clip=2.0, push=push
    )

  batched = jax.jit(jax.vmap(sample))(keys, conditions, targets)
  one = jax.jit(sample)
  alone = [one(*task) for task in zip(keys, conditions, targets)]
  np.testing.assert_allclose(batched, np.stack(alone), atol=1e-4)
  assert np.ptp(batched, axis=0).min() > 0.01
