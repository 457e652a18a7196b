"""Schedules and sampling against Gaussians, whose denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import denoiser
from hyperudl.nets import samplers
from tests.testing import diffusion


@pytest.mark.parametrize('steps', [1, 20, 1000])
def test_the_cosine_schedule_follows_its_formula(steps):
  schedule = samplers.schedule('cosine', steps)
  f = lambda t: np.cos((t / steps + 0.008) / 1.008 * np.pi / 2) ** 2
  bars = f(np.arange(1, steps + 1)) / f(0)
  # The last beta is 1 by the formula and .999 by the clip.
  np.testing.assert_allclose(schedule.alpha_bars[:-1], bars[:-1], rtol=1e-4)
  before = bars[-2] if steps > 1 else 1.0
  np.testing.assert_allclose(schedule.alpha_bars[-1], 0.001 * before, rtol=1e-3)
  np.testing.assert_allclose(schedule.betas.max(), 0.999, rtol=1e-6)
  assert schedule.alpha_bars.dtype == schedule.betas.dtype == jnp.float32


def test_the_linear_schedule_is_linear_in_beta():
  schedule = samplers.schedule('linear', 1000)
  np.testing.assert_allclose(schedule.betas[0], 1e-4, rtol=1e-5)
  np.testing.assert_allclose(schedule.betas[499:501].mean(), 0.01005, rtol=1e-5)
  np.testing.assert_allclose(schedule.betas[-1], 2e-2, rtol=1e-5)
  np.testing.assert_allclose(np.diff(schedule.betas), 0.0199 / 999, rtol=1e-3)
  short = samplers.schedule('linear', 100)
  np.testing.assert_allclose(
    np.asarray(short.betas)[[0, -1]], [1e-3, 0.2], rtol=1e-5
  )
  tiny = samplers.schedule('linear', 10)
  np.testing.assert_allclose(tiny.betas.max(), 0.999, rtol=1e-6)
  # As much noise is left at the end.
  logs = [np.log(s.alpha_bars[-1]) for s in (schedule, short)]
  np.testing.assert_allclose(logs[0], logs[1], rtol=0.1)


@pytest.mark.parametrize('name', samplers.SCHEDULES)
@pytest.mark.parametrize('steps', [10, 1000])
def test_noise_only_grows(name, steps):
  betas, alphas, bars = samplers.schedule(name, steps)
  assert betas.shape == alphas.shape == bars.shape == (steps,)
  assert (betas > 0).all() and (betas <= 0.999).all()
  assert (np.diff(betas) >= 0).all() and (np.diff(bars) < 0).all()
  assert bars[-1] < 1e-4 and bars[0] > 0.9
  np.testing.assert_allclose(alphas, 1 - betas, atol=1e-7)
  np.testing.assert_allclose(bars, np.cumprod(alphas), rtol=1e-3)


@pytest.mark.parametrize('name', samplers.SCHEDULES)
def test_the_marginal_is_the_product_of_transitions(name):
  schedule = samplers.schedule(name, 12)
  rng = np.random.default_rng(0)
  z, chain, scale, variance = 1.7, np.full(100_000, 1.7), 1.0, 0.0
  for t, beta in enumerate(np.asarray(schedule.betas, np.float64)):
    chain = np.sqrt(1 - beta) * chain
    chain += np.sqrt(beta) * rng.normal(size=chain.shape)
    scale, variance = scale * np.sqrt(1 - beta), (1 - beta) * variance + beta
    mean = diffusion.noised(schedule, jnp.array([z]), t, jnp.zeros(1))
    spread = diffusion.noised(schedule, jnp.zeros(1), t, jnp.ones(1))
    np.testing.assert_allclose(mean, [scale * z], rtol=1e-5)
    np.testing.assert_allclose(spread, [np.sqrt(variance)], rtol=1e-5)
    np.testing.assert_allclose(mean, [chain.mean()], atol=0.015)
    np.testing.assert_allclose(spread, [chain.std()], rtol=0.01)


def test_early_noise_keeps_its_digits():
  schedule = samplers.schedule('cosine', 1000)
  spread = diffusion.noised(schedule, jnp.zeros(1), 0, jnp.ones(1))
  np.testing.assert_allclose(spread, [np.sqrt(schedule.betas[0])], rtol=1e-6)


def test_timesteps_may_differ_between_rows_and_the_estimate_inverts():
  schedule = samplers.schedule('cosine', 9)
  z, noise = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
  t = jnp.array([[0, 8], [3, 1], [7, 7], [2, 5]])
  both = diffusion.noised(schedule, z, t, noise)
  for i, j in np.ndindex(4, 2):
    one = diffusion.noised(schedule, z[i, j], t[i, j], noise[i, j])
    np.testing.assert_allclose(both[i, j], one, rtol=1e-6)
  x0 = diffusion.estimate(schedule, both, t, noise)
  np.testing.assert_allclose(x0, z, atol=1e-4)
  x0 = diffusion.estimate(schedule, both, t, noise, clip=0.5)
  np.testing.assert_allclose(x0, np.clip(z, -0.5, 0.5), atol=1e-4)


def test_the_time_embedding_is_cosines_then_sines():
  t = np.array([[0, 3], [77, 999]])
  ours = denoiser.time_embedding(jnp.asarray(t), 6)
  angles = t[..., None] / 10000.0 ** (np.arange(3) / 3)
  expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
  np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
  'name, total, steps, eta',
  [
    ('cosine', 1000, None, 1.0),
    ('cosine', 1000, 7, 0.0),
    ('linear', 40, 40, 0.5),
    ('linear', 40, 7, 1.0),
    ('linear', 40, 1, 0.0),
  ],
)
def test_a_perfect_denoiser_of_a_point_samples_it(name, total, steps, eta):
  schedule = samplers.schedule(name, total)
  z = diffusion.draw(
    diffusion.exact(schedule, diffusion.MEAN, np.zeros((2, 2))), 5, steps, eta
  )
  np.testing.assert_allclose(z, np.tile(diffusion.MEAN, (5, 1)), atol=2e-3)


def ancestral_moments(schedule, mean, covariance):
  """Moments of Ho's algorithm 2 with the exact denoiser, in f64."""
  bars = diffusion.bars_of(schedule)
  m, s = np.zeros(2), np.eye(2)
  for t in reversed(range(len(bars))):
    bar, before = bars[t], bars[t - 1] if t else 1.0
    beta = 1 - bar / before
    gain = np.linalg.inv(bar * covariance + (1 - bar) * np.eye(2))
    step = (np.eye(2) - beta * gain) / np.sqrt(1 - beta)
    m = step @ m + beta / np.sqrt(1 - beta) * gain @ (np.sqrt(bar) * mean)
    variance = beta * (1 - before) / (1 - bar)
    s = step @ s @ step.T + variance * np.eye(2)
  return m, s


@pytest.mark.parametrize('name', samplers.SCHEDULES)
def test_ancestral_samples_have_the_mean_and_covariance_of_the_data(name):
  schedule = samplers.schedule(name, 100)
  z = np.asarray(
    diffusion.draw(
      diffusion.exact(schedule, diffusion.MEAN, diffusion.COVARIANCE), 40_000
    )
  )
  mean, covariance = ancestral_moments(
    schedule, diffusion.MEAN, diffusion.COVARIANCE
  )
  np.testing.assert_allclose(z.mean(0), mean, atol=0.03)
  np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.04)
  # A finite number of steps of the posterior variance falls a little short.
  np.testing.assert_allclose(z.mean(0), diffusion.MEAN, atol=0.05)
  np.testing.assert_allclose(np.cov(z.T), diffusion.COVARIANCE, atol=0.15)


@pytest.mark.parametrize('steps', [40, 10, 7])
def test_the_deterministic_map_of_a_gaussian(steps):
  schedule, spread = samplers.schedule('cosine', 40), np.array([0.3, 2.0])
  z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
  model = diffusion.exact(schedule, diffusion.MEAN, np.diag(spread**2))
  ours = diffusion.draw(model, 5, steps, t=39, z=z)
  # Each step scales the distance to the marginal's mean.
  times = [-1] + [(i + 1) * 40 // steps - 1 for i in range(steps)]
  bars = np.append(diffusion.bars_of(schedule), 1.0)[times]
  now, then = bars[1:, None], bars[:-1, None]
  factor = np.sqrt(now * then) * spread**2 + np.sqrt((1 - now) * (1 - then))
  factor = np.prod(factor / (now * spread**2 + 1 - now), axis=0)
  expected = diffusion.MEAN + factor * (z - np.sqrt(bars[-1]) * diffusion.MEAN)
  np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_with_all_noise_a_step_is_the_posterior():
  schedule = samplers.schedule('cosine', 15)
  bars, betas = (
    diffusion.bars_of(schedule),
    np.asarray(schedule.betas, np.float64),
  )
  z, x0 = np.random.default_rng(0).normal(size=(2, 6, 3))
  for t in range(1, 15):
    # Bayes: N(z_t; sqrt(alpha) z', beta) times N(z'; sqrt(bar) x0, 1 - bar).
    precision = (1 - betas[t]) / betas[t] + 1 / (1 - bars[t - 1])
    mean = np.sqrt(1 - betas[t]) * z / betas[t]
    mean += np.sqrt(bars[t - 1]) * x0 / (1 - bars[t - 1])
    ours, std = diffusion.reverse(schedule, z, x0, t, t - 1, 1.0)
    np.testing.assert_allclose(ours, mean / precision, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(std, [precision**-0.5], rtol=1e-4)
  ours, std = diffusion.reverse(schedule, z, x0, 0, -1, 1.0)
  np.testing.assert_allclose(ours, x0, rtol=1e-6)
  assert not std.any()


@pytest.mark.parametrize('eta', [0.0, 0.4, 1.0])
def test_a_step_of_any_length_keeps_the_marginals(eta):
  schedule = samplers.schedule('linear', 15)
  bars, rng = diffusion.bars_of(schedule), np.random.default_rng(0)
  for t, before in ((14, 13), (14, 3), (9, 0), (2, 1), (5, -1)):
    x0, noise = rng.normal(size=(2, 3))
    bar = bars[before] if before >= 0 else 1.0
    z = lambda n: np.sqrt(bars[t]) * x0 + np.sqrt(1 - bars[t]) * n
    mean, std = diffusion.reverse(schedule, z(0.0), x0, t, before, eta)
    moved, _ = diffusion.reverse(schedule, z(noise), x0, t, before, eta)
    np.testing.assert_allclose(mean, np.sqrt(bar) * x0, atol=1e-5)
    total = ((moved - mean) / noise) ** 2 + std**2
    np.testing.assert_allclose(total, 1 - bar, rtol=1e-3, atol=1e-6)
    _, whole = diffusion.reverse(schedule, z(0.0), x0, t, before, 1.0)
    np.testing.assert_allclose(std, eta * whole, rtol=1e-5)


def test_only_the_start_of_implicit_sampling_is_drawn():
  model = diffusion.exact(
    samplers.schedule('cosine', 40), diffusion.MEAN, diffusion.COVARIANCE
  )
  still, some, more = (
    np.ptp(
      diffusion.draw(model, 300, 40, eta, t=39, z=np.ones(2)), axis=0
    ).max()
    for eta in (0.0, 0.5, 1.0)
  )
  assert still == 0 and 0.5 < some < more
  assert len(np.unique(diffusion.draw(model, 300, 40, 0.0))) == 600


@pytest.mark.parametrize(
  'steps, expected',
  [(10, range(9, -1, -1)), (5, [9, 7, 5, 3, 1]), (3, [9, 5, 2])],
)
def test_timesteps_are_even_and_begin_at_the_last(steps, expected):
  schedule, timesteps = samplers.schedule('linear', 10), []

  def eps(z, t):
    jax.debug.callback(lambda t: timesteps.append(int(t)), t, ordered=True)
    return z

  samplers.sample_ddim(eps, schedule, jax.random.key(0), (2,), steps)
  jax.effects_barrier()
  assert timesteps == list(expected)


def test_sampling_may_begin_at_any_timestep():
  schedule = samplers.schedule('cosine', 40)
  z, noise = np.random.default_rng(0).normal(size=(2, 5, 2))
  model = diffusion.exact(schedule, np.zeros(2), 4 * np.eye(2))
  near, far = (
    np.abs(
      diffusion.draw(model, 5, t=t, z=diffusion.noised(schedule, z, t, noise))
      - z
    )
    for t in (1, 30)
  )
  assert near.max() < 0.5 < far.max()


def sample_with(steps=4, total=5, **options):
  schedule = samplers.schedule('linear', total)
  eps = lambda z, t: z
  samplers.sample_ddim(eps, schedule, jax.random.key(0), (2,), steps, **options)


def push_with(gamma):
  schedule = samplers.schedule('cosine', 3)
  return samplers.few_shot_push(jnp.sum, gamma, schedule)


def guide_with(gamma):
  z = jnp.zeros(3)
  return samplers.guided(diffusion.predict, z, 0, jnp.zeros(2), gamma)


def drop_at(rate):
  schedule, zeros = samplers.schedule('cosine', 3), jnp.zeros((2, 3))
  key = jax.random.key(0)
  samplers.epsilon_loss(
    diffusion.predict, schedule, zeros, zeros[:, :2], key, rate
  )


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: samplers.schedule('sqrt', 5), "one of .*, not 'sqrt'"),
    (lambda: samplers.schedule('cosine', 0), 'steps must be .*, not 0'),
    (lambda: sample_with(0), 'steps .*5.*not 0'),
    (lambda: sample_with(6), 'steps .*5.*not 6'),
    (lambda: sample_with(3, start=(1, 0.0)), 'steps .*2.*not 3'),
    (lambda: sample_with(3, start=(5, 0.0)), 'start .*4.*not 5'),
    (lambda: sample_with(eta=-0.1), r'eta .*\[0, 1\].*not -0.1'),
    (lambda: sample_with(eta=1.1), r'eta .*\[0, 1\].*not 1.1'),
    (lambda: sample_with(clip=-1.0), 'clip .*not -1.0'),
    (lambda: guide_with(float('nan')), 'gamma .*finite.*not nan'),
    (lambda: guide_with(float('inf')), 'gamma .*finite.*not inf'),
    (lambda: push_with(float('-inf')), 'gamma .*finite.*not -inf'),
    (lambda: drop_at(1.5), r'drop_rate .*\[0, 1\].*not 1.5'),
    (lambda: denoiser.time_embedding(jnp.zeros(1), 7), 'even.*not 7'),
    (
      lambda: diffusion.predict(jnp.zeros(2), 0, jnp.zeros(2)),
      '3 dimensions, not 2',
    ),
  ],
)
def test_arguments_out_of_bounds_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
