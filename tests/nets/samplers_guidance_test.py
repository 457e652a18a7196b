"""Guidance, pushes, clips and the loss of noise, on exact denoisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import denoiser
from tests.testing import diffusion as helper


def test_guidance_moves_on_the_line_between_two_predictions():
  z, c = np.random.default_rng(0).normal(size=(2, 4, 3))
  z, c = jnp.asarray(z), jnp.asarray(c[:, :2])
  at = lambda gamma: denoiser.guided(helper.predict, z, 3, c, gamma)
  free, bound = helper.predict(z, 3, 0 * c), helper.predict(z, 3, c)
  assert float(jnp.abs(free - bound).min()) > 0.01
  np.testing.assert_allclose(at(0.0), free, rtol=1e-6)
  np.testing.assert_allclose(at(1.0), bound, rtol=1e-6)
  for gamma in (-1.0, 0.3, 1.5, 15.0):
    line = free + gamma * (bound - free)
    np.testing.assert_allclose(at(gamma), line, rtol=1e-3, atol=1e-4)
  both = jax.vmap(at)(jnp.array([0.0, 1.5]))
  np.testing.assert_allclose(both[1], at(1.5), rtol=1e-4, atol=1e-5)


@functools.partial(jax.jit, static_argnums=3)
def watched_loss(answer, z, condition, rate):
  """The loss of a fixed answer, and what `predict` was asked for."""
  seen = []

  def predict(*asked):
    seen.extend(asked)
    return answer

  schedule, key = denoiser.schedule('cosine', 10), jax.random.key(2)
  loss = denoiser.epsilon_loss(predict, schedule, z, condition, key, rate)
  return loss, *seen


def rows_of_normals(count, n=3000):
  draws = np.random.default_rng(0).normal(size=(count, n, 2))
  return draws.astype(np.float32)


@pytest.mark.parametrize(
  'rate, low, high', [(0, 0, 0), (1, 1, 1), (0.2, 0.18, 0.22)]
)
def test_conditions_are_dropped_at_the_rate(rate, low, high):
  answer, z, condition = rows_of_normals(3)
  used = watched_loss(answer, z, condition, rate)[-1]
  dropped = (np.asarray(used) == 0).all(1)
  assert low <= dropped.mean() <= high
  np.testing.assert_array_equal(used[~dropped], condition[~dropped])


def test_the_loss_is_the_error_of_the_noise_at_even_timesteps():
  answer, z, condition = rows_of_normals(3)
  loss, noisy, t, _ = watched_loss(answer, z, condition, 0.2)
  bars = helper.bars_of(denoiser.schedule('cosine', 10))[t][:, None]
  noise = (noisy - np.sqrt(bars) * z) / np.sqrt(1 - bars)
  np.testing.assert_allclose(loss, np.mean((noise - answer) ** 2), rtol=1e-4)
  np.testing.assert_allclose(np.bincount(t, minlength=10), 300, atol=70)
  np.testing.assert_allclose(noise.mean(0), 0, atol=0.08)
  np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.1)


@pytest.mark.parametrize('eta', [0.0, 1.0])
def test_the_clip_bounds_the_samples(eta):
  model = helper.exact(
    denoiser.schedule('cosine', 40), helper.MEAN, 4 * helper.COVARIANCE
  )
  free, wide, bound = (
    helper.draw(model, 300, 40, eta, clip) for clip in (None, 1e6, 1.5)
  )
  assert np.abs(free).max() > 4
  np.testing.assert_allclose(wide, free, atol=1e-4)
  assert np.abs(bound).max() <= 1.5
  # Some lie on the bound, some within.
  assert 0.05 < (np.abs(bound) == 1.5).mean() < 0.95


@pytest.mark.parametrize(
  'at, clip', [('latent', None), ('estimate', None), ('estimate', 0.1)]
)
def test_a_push_follows_the_gradient_where_it_is_asked_to(at, clip):
  schedule = denoiser.schedule('cosine', 10)
  z, e = np.random.default_rng(0).normal(size=(2, 4, 3))
  target = np.array([1.0, 2.0, 3.0])
  loss = lambda x: 5 * jnp.sum((x - target) ** 2, -1)
  push = denoiser.few_shot_push(loss, 0.7, schedule, at, clip)
  bar = helper.bars_of(schedule)[6]
  x0 = (z - np.sqrt(1 - bar) * e) / np.sqrt(bar)
  place = z if at == 'latent' else np.clip(x0, -(clip or 99), clip or 99)
  unit = (place - target) / np.linalg.norm(place - target, axis=1)[:, None]
  expected = e + 0.7 * np.linalg.norm(e, axis=1)[:, None] * unit
  ours = jax.jit(push)(z, 6, e)
  np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_push_without_a_gradient_or_a_strength_changes_nothing():
  schedule = denoiser.schedule('cosine', 10)
  z, e = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
  flat = denoiser.few_shot_push(lambda x: jnp.sum(0 * x), 3.0, schedule)
  weak = denoiser.few_shot_push(lambda x: jnp.sum(x**2), 0.0, schedule)
  for push in (flat, weak):
    np.testing.assert_array_equal(push(z, 2, e), e)
  small = denoiser.few_shot_push(lambda x: 1e-12 * jnp.sum(x), 1.0, schedule)
  moved = jnp.linalg.norm(small(z, 2, e) - e, axis=-1)
  np.testing.assert_allclose(moved, jnp.linalg.norm(e, axis=-1), rtol=1e-5)


@pytest.mark.parametrize('at', ['estimate', 'latent'])
def test_pushed_samples_have_a_smaller_loss(at):
  model = helper.exact(denoiser.schedule('cosine', 40), np.zeros(2), np.eye(2))
  loss = lambda x: ((x - 1.5) ** 2).sum(-1)
  pushed = lambda gamma: helper.draw(
    model, 300, 40, 1.0, 4.0, loss=(loss, at), gamma=gamma
  )
  none = loss(helper.draw(model, 300, 40, 1.0, 4.0)).mean()
  zero, some, more = (loss(pushed(gamma)).mean() for gamma in (0.0, 0.3, 1.0))
  np.testing.assert_allclose(none, zero, rtol=1e-5)
  assert zero > some + 0.5 > more + 0.7


def test_the_hook_gets_the_latent_the_timestep_and_the_noise():
  schedule = denoiser.schedule('cosine', 40)
  _, *model = helper.exact(schedule, helper.MEAN, np.zeros((2, 2)))
  gains, centres = map(jnp.asarray, model)
  push = lambda z, t, e: e - 7 + (z - centres[t]) @ gains[t]
  sevens = lambda z, t: jnp.full_like(z, 7.0)
  key, shape = jax.random.key(0), (5, 2)
  z = denoiser.sample_ddim(sevens, schedule, key, shape, 7, push=push)
  np.testing.assert_allclose(z, np.tile(helper.MEAN, (5, 1)), atol=2e-3)


def test_tasks_in_one_call_are_those_of_a_loop():
  schedule = denoiser.schedule('cosine', 8)
  conditions = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
  targets = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
  keys = jax.random.split(jax.random.key(0), 3)

  def sample(key, condition, target):
    eps = lambda z, t: denoiser.guided(helper.predict, z, t, condition, 1.5)
    loss = lambda x: jnp.sum((x - target) ** 2)
    push = denoiser.few_shot_push(loss, 0.3, schedule, clip=2.0)
    return denoiser.sample_ddim(
      eps, schedule, key, (3,), 4, 0.5, clip=2.0, push=push
    )

  together = jax.jit(jax.vmap(sample))(keys, conditions, targets)
  one = jax.jit(sample)
  alone = [one(*task) for task in zip(keys, conditions, targets)]
  np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)
  assert np.ptp(together, axis=0).min() > 0.01
