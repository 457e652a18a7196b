"""Latent diffusion against Gaussians, whose exact denoiser is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl.nets import diffusion

MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
NET = diffusion.Denoiser(3, (8, 6), time_width=4)

noised = jax.jit(diffusion.noised)
estimate = jax.jit(diffusion.estimate, static_argnames='clip')
reverse = jax.jit(diffusion.reverse)
apply = jax.jit(NET.apply)


def bars_of(schedule):
  """alpha_bars in f64 from the betas."""
  return np.cumprod(1 - np.asarray(schedule.betas, np.float64))


def exact(schedule, mean, covariance):
  """E[noise | z_t] for x0 ~ N(mean, covariance) is (z_t - centre) @ gain."""
  bars = bars_of(schedule)[:, None, None]
  total = bars * covariance + (1 - bars) * np.eye(2)
  # In f64, since every step divides by sqrt(alpha_bar).
  gains = np.sqrt(1 - bars) * np.linalg.inv(total)
  centres = np.sqrt(bars[:, 0]) * mean
  return schedule, gains.astype(np.float32), centres.astype(np.float32)


@functools.partial(
  jax.jit, static_argnums=(1, 2), static_argnames=['t', 'loss']
)
def draw(
  model, n, steps=None, eta=0.0, clip=None, t=None, z=None, loss=None, gamma=0
):
  """Samples [n, 2] of an `exact` model; ancestral ones if steps is None.

  t and z are the start; loss is (function, where its gradient is taken).
  """
  schedule, gains, centres = model
  eps = lambda z, t: (z - centres[t]) @ gains[t]
  push = loss and diffusion.few_shot_push(*loss[:1], gamma, schedule, *loss[1:])
  options = {'clip': clip, 'start': t and (t, z), 'push': push}
  key, shape = jax.random.key(0), (n, 2)
  if steps is None:
    steps, eta = len(schedule.betas) if t is None else t + 1, 1.0
  return diffusion.sample_ddim(eps, schedule, key, shape, steps, eta, **options)


@functools.cache
def random_params():
  """Parameters of NET with no zeros among them."""
  shapes = jax.eval_shape(
    NET.init, jax.random.key(0), jnp.zeros(3), 0, jnp.zeros(2)
  )
  rng = np.random.default_rng(0)
  draw = lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32)
  return jax.tree.map(draw, shapes)


@jax.jit
def predict(z, t, condition):
  return NET.apply(random_params(), z, t, condition)


@pytest.mark.parametrize('steps', [1, 20, 1000])
def test_the_cosine_schedule_follows_its_formula(steps):
  made = diffusion.schedule('cosine', steps)
  f = lambda t: np.cos((t / steps + 0.008) / 1.008 * np.pi / 2) ** 2
  bars = f(np.arange(1, steps + 1)) / f(0)
  # The last beta is 1 by the formula and .999 by the clip.
  np.testing.assert_allclose(made.alpha_bars[:-1], bars[:-1], rtol=1e-4)
  before = bars[-2] if steps > 1 else 1.0
  np.testing.assert_allclose(made.alpha_bars[-1], 0.001 * before, rtol=1e-3)
  np.testing.assert_allclose(made.betas.max(), 0.999, rtol=1e-6)
  assert made.alpha_bars.dtype == made.betas.dtype == jnp.float32


def test_the_linear_schedule_is_linear_in_beta():
  made = diffusion.schedule('linear', 1000)
  np.testing.assert_allclose(made.betas[0], 1e-4, rtol=1e-5)
  np.testing.assert_allclose(made.betas[499:501].mean(), 0.01005, rtol=1e-5)
  np.testing.assert_allclose(made.betas[-1], 2e-2, rtol=1e-5)
  np.testing.assert_allclose(np.diff(made.betas), 0.0199 / 999, rtol=1e-3)
  short = diffusion.schedule('linear', 100)
  np.testing.assert_allclose(
    np.asarray(short.betas)[[0, -1]], [1e-3, 0.2], rtol=1e-5
  )
  tiny = diffusion.schedule('linear', 10)
  np.testing.assert_allclose(tiny.betas.max(), 0.999, rtol=1e-6)
  # As much noise is left at the end.
  logs = [np.log(s.alpha_bars[-1]) for s in (made, short)]
  np.testing.assert_allclose(logs[0], logs[1], rtol=0.1)


@pytest.mark.parametrize('name', diffusion.SCHEDULES)
@pytest.mark.parametrize('steps', [10, 1000])
def test_noise_only_grows(name, steps):
  betas, alphas, bars = diffusion.schedule(name, steps)
  assert betas.shape == alphas.shape == bars.shape == (steps,)
  assert (betas > 0).all() and (betas <= 0.999).all()
  assert (np.diff(betas) >= 0).all() and (np.diff(bars) < 0).all()
  assert bars[-1] < 1e-4 and bars[0] > 0.9
  np.testing.assert_allclose(alphas, 1 - betas, atol=1e-7)
  np.testing.assert_allclose(bars, np.cumprod(alphas), rtol=1e-3)


@pytest.mark.parametrize('name', diffusion.SCHEDULES)
def test_the_marginal_is_the_product_of_transitions(name):
  schedule = diffusion.schedule(name, 12)
  rng = np.random.default_rng(0)
  z, chain, scale, variance = 1.7, np.full(100_000, 1.7), 1.0, 0.0
  for t, beta in enumerate(np.asarray(schedule.betas, np.float64)):
    chain = np.sqrt(1 - beta) * chain
    chain += np.sqrt(beta) * rng.normal(size=chain.shape)
    scale, variance = scale * np.sqrt(1 - beta), (1 - beta) * variance + beta
    mean = noised(schedule, jnp.array([z]), t, jnp.zeros(1))
    spread = noised(schedule, jnp.zeros(1), t, jnp.ones(1))
    np.testing.assert_allclose(mean, [scale * z], rtol=1e-5)
    np.testing.assert_allclose(spread, [np.sqrt(variance)], rtol=1e-5)
    np.testing.assert_allclose(mean, [chain.mean()], atol=0.015)
    np.testing.assert_allclose(spread, [chain.std()], rtol=0.01)


def test_early_noise_keeps_its_digits():
  schedule = diffusion.schedule('cosine', 1000)
  spread = noised(schedule, jnp.zeros(1), 0, jnp.ones(1))
  np.testing.assert_allclose(spread, [np.sqrt(schedule.betas[0])], rtol=1e-6)


def test_timesteps_may_differ_between_rows_and_the_estimate_inverts():
  schedule = diffusion.schedule('cosine', 9)
  z, noise = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
  t = jnp.array([[0, 8], [3, 1], [7, 7], [2, 5]])
  both = noised(schedule, z, t, noise)
  for i, j in np.ndindex(4, 2):
    one = noised(schedule, z[i, j], t[i, j], noise[i, j])
    np.testing.assert_allclose(both[i, j], one, rtol=1e-6)
  x0 = estimate(schedule, both, t, noise)
  np.testing.assert_allclose(x0, z, atol=1e-4)
  x0 = estimate(schedule, both, t, noise, clip=0.5)
  np.testing.assert_allclose(x0, np.clip(z, -0.5, 0.5), atol=1e-4)


def test_the_time_embedding_is_cosines_then_sines():
  t = np.array([[0, 3], [77, 999]])
  ours = diffusion.time_embedding(jnp.asarray(t), 6)
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
def test_a_perfect_denoiser_of_a_point_finds_it(name, total, steps, eta):
  schedule = diffusion.schedule(name, total)
  z = draw(exact(schedule, MEAN, np.zeros((2, 2))), 5, steps, eta)
  np.testing.assert_allclose(z, np.tile(MEAN, (5, 1)), atol=2e-3)


def ancestral_moments(schedule, mean, covariance):
  """Moments of Ho's algorithm 2 with the exact denoiser, in f64."""
  bars = bars_of(schedule)
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


@pytest.mark.parametrize('name', diffusion.SCHEDULES)
def test_ancestral_samples_have_the_mean_and_covariance_of_the_data(name):
  schedule = diffusion.schedule(name, 100)
  z = np.asarray(draw(exact(schedule, MEAN, COVARIANCE), 40_000))
  mean, covariance = ancestral_moments(schedule, MEAN, COVARIANCE)
  np.testing.assert_allclose(z.mean(0), mean, atol=0.03)
  np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.04)
  # A finite number of steps of the posterior variance falls a little short.
  np.testing.assert_allclose(z.mean(0), MEAN, atol=0.05)
  np.testing.assert_allclose(np.cov(z.T), COVARIANCE, atol=0.15)


@pytest.mark.parametrize('steps', [40, 10, 7])
def test_the_deterministic_map_of_a_gaussian(steps):
  schedule, spread = diffusion.schedule('cosine', 40), np.array([0.3, 2.0])
  z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
  model = exact(schedule, MEAN, np.diag(spread**2))
  ours = draw(model, 5, steps, t=39, z=z)
  # Each step scales the distance to the marginal's mean.
  times = [-1] + [(i + 1) * 40 // steps - 1 for i in range(steps)]
  bars = np.append(bars_of(schedule), 1.0)[times]
  now, then = bars[1:, None], bars[:-1, None]
  factor = np.sqrt(now * then) * spread**2 + np.sqrt((1 - now) * (1 - then))
  factor = np.prod(factor / (now * spread**2 + 1 - now), axis=0)
  expected = MEAN + factor * (z - np.sqrt(bars[-1]) * MEAN)
  np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_with_all_noise_a_step_is_the_posterior():
  schedule = diffusion.schedule('cosine', 15)
  bars, betas = bars_of(schedule), np.asarray(schedule.betas, np.float64)
  z, x0 = np.random.default_rng(0).normal(size=(2, 6, 3))
  for t in range(1, 15):
    # Bayes: N(z_t; sqrt(alpha) z', beta) times N(z'; sqrt(bar) x0, 1 - bar).
    precision = (1 - betas[t]) / betas[t] + 1 / (1 - bars[t - 1])
    mean = np.sqrt(1 - betas[t]) * z / betas[t]
    mean += np.sqrt(bars[t - 1]) * x0 / (1 - bars[t - 1])
    ours, std = reverse(schedule, z, x0, t, t - 1, 1.0)
    np.testing.assert_allclose(ours, mean / precision, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(std, [precision**-0.5], rtol=1e-4)
  ours, std = reverse(schedule, z, x0, 0, -1, 1.0)
  np.testing.assert_allclose(ours, x0, rtol=1e-6)
  assert not std.any()


@pytest.mark.parametrize('eta', [0.0, 0.4, 1.0])
def test_a_step_of_any_length_keeps_the_marginals(eta):
  schedule = diffusion.schedule('linear', 15)
  bars, rng = bars_of(schedule), np.random.default_rng(0)
  for t, before in ((14, 13), (14, 3), (9, 0), (2, 1), (5, -1)):
    x0, noise = rng.normal(size=(2, 3))
    bar = bars[before] if before >= 0 else 1.0
    z = lambda n: np.sqrt(bars[t]) * x0 + np.sqrt(1 - bars[t]) * n
    mean, std = reverse(schedule, z(0.0), x0, t, before, eta)
    moved, _ = reverse(schedule, z(noise), x0, t, before, eta)
    np.testing.assert_allclose(mean, np.sqrt(bar) * x0, atol=1e-5)
    total = ((moved - mean) / noise) ** 2 + std**2
    np.testing.assert_allclose(total, 1 - bar, rtol=1e-3, atol=1e-6)
    _, whole = reverse(schedule, z(0.0), x0, t, before, 1.0)
    np.testing.assert_allclose(std, eta * whole, rtol=1e-5)


def test_only_the_start_of_implicit_sampling_is_drawn():
  model = exact(diffusion.schedule('cosine', 40), MEAN, COVARIANCE)
  still, some, more = (
    np.ptp(draw(model, 300, 40, eta, t=39, z=np.ones(2)), axis=0).max()
    for eta in (0.0, 0.5, 1.0)
  )
  assert still == 0 and 0.5 < some < more
  assert len(np.unique(draw(model, 300, 40, 0.0))) == 600


@pytest.mark.parametrize(
  'steps, expected',
  [(10, range(9, -1, -1)), (5, [9, 7, 5, 3, 1]), (3, [9, 5, 2])],
)
def test_timesteps_are_even_and_begin_at_the_last(steps, expected):
  schedule, seen = diffusion.schedule('linear', 10), []

  def eps(z, t):
    jax.debug.callback(lambda t: seen.append(int(t)), t, ordered=True)
    return z

  diffusion.sample_ddim(eps, schedule, jax.random.key(0), (2,), steps)
  jax.effects_barrier()
  assert seen == list(expected)


def test_guidance_moves_on_the_line_between_two_predictions():
  z, c = np.random.default_rng(0).normal(size=(2, 4, 3))
  z, c = jnp.asarray(z), jnp.asarray(c[:, :2])
  at = lambda gamma: diffusion.guided(predict, z, 3, c, gamma)
  free, bound = predict(z, 3, 0 * c), predict(z, 3, c)
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

  schedule, key = diffusion.schedule('cosine', 10), jax.random.key(2)
  loss = diffusion.epsilon_loss(predict, schedule, z, condition, key, rate)
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
  bars = bars_of(diffusion.schedule('cosine', 10))[t][:, None]
  noise = (noisy - np.sqrt(bars) * z) / np.sqrt(1 - bars)
  np.testing.assert_allclose(loss, np.mean((noise - answer) ** 2), rtol=1e-4)
  np.testing.assert_allclose(np.bincount(t, minlength=10), 300, atol=70)
  np.testing.assert_allclose(noise.mean(0), 0, atol=0.08)
  np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.1)


@pytest.mark.parametrize('eta', [0.0, 1.0])
def test_the_clip_bounds_the_samples(eta):
  model = exact(diffusion.schedule('cosine', 40), MEAN, 4 * COVARIANCE)
  free, wide, bound = (
    draw(model, 300, 40, eta, clip) for clip in (None, 1e6, 1.5)
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
  schedule = diffusion.schedule('cosine', 10)
  z, e = np.random.default_rng(0).normal(size=(2, 4, 3))
  target = np.array([1.0, 2.0, 3.0])
  loss = lambda x: 5 * jnp.sum((x - target) ** 2, -1)
  push = diffusion.few_shot_push(loss, 0.7, schedule, at, clip)
  bar = bars_of(schedule)[6]
  x0 = (z - np.sqrt(1 - bar) * e) / np.sqrt(bar)
  place = z if at == 'latent' else np.clip(x0, -(clip or 99), clip or 99)
  unit = (place - target) / np.linalg.norm(place - target, axis=1)[:, None]
  expected = e + 0.7 * np.linalg.norm(e, axis=1)[:, None] * unit
  ours = jax.jit(push)(z, 6, e)
  np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_push_without_a_gradient_or_a_strength_changes_nothing():
  schedule = diffusion.schedule('cosine', 10)
  z, e = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
  flat = diffusion.few_shot_push(lambda x: jnp.sum(0 * x), 3.0, schedule)
  weak = diffusion.few_shot_push(lambda x: jnp.sum(x**2), 0.0, schedule)
  for push in (flat, weak):
    np.testing.assert_array_equal(push(z, 2, e), e)
  small = diffusion.few_shot_push(lambda x: 1e-12 * jnp.sum(x), 1.0, schedule)
  moved = jnp.linalg.norm(small(z, 2, e) - e, axis=-1)
  np.testing.assert_allclose(moved, jnp.linalg.norm(e, axis=-1), rtol=1e-5)


@pytest.mark.parametrize('at', ['estimate', 'latent'])
def test_pushed_samples_have_a_smaller_loss(at):
  model = exact(diffusion.schedule('cosine', 40), np.zeros(2), np.eye(2))
  loss = lambda x: ((x - 1.5) ** 2).sum(-1)
  pushed = lambda gamma: draw(
    model, 300, 40, 1.0, 4.0, loss=(loss, at), gamma=gamma
  )
  none = loss(draw(model, 300, 40, 1.0, 4.0)).mean()
  zero, some, more = (loss(pushed(gamma)).mean() for gamma in (0.0, 0.3, 1.0))
  np.testing.assert_allclose(none, zero, rtol=1e-5)
  assert zero > some + 0.5 > more + 0.7


def test_the_hook_gets_the_latent_the_timestep_and_the_noise():
  schedule = diffusion.schedule('cosine', 40)
  _, *model = exact(schedule, MEAN, np.zeros((2, 2)))
  gains, centres = map(jnp.asarray, model)
  push = lambda z, t, e: e - 7 + (z - centres[t]) @ gains[t]
  sevens = lambda z, t: jnp.full_like(z, 7.0)
  key, shape = jax.random.key(0), (5, 2)
  z = diffusion.sample_ddim(sevens, schedule, key, shape, 7, push=push)
  np.testing.assert_allclose(z, np.tile(MEAN, (5, 1)), atol=2e-3)


def test_sampling_may_begin_on_the_way():
  schedule = diffusion.schedule('cosine', 40)
  z, noise = np.random.default_rng(0).normal(size=(2, 5, 2))
  model = exact(schedule, np.zeros(2), 4 * np.eye(2))
  near, far = (
    np.abs(draw(model, 5, t=t, z=noised(schedule, z, t, noise)) - z)
    for t in (1, 30)
  )
  assert near.max() < 0.5 < far.max()


def test_tasks_in_one_call_are_those_of_a_loop():
  schedule = diffusion.schedule('cosine', 8)
  conditions = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
  targets = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)))
  keys = jax.random.split(jax.random.key(0), 3)

  def sample(key, condition, target):
    eps = lambda z, t: diffusion.guided(predict, z, t, condition, 1.5)
    loss = lambda x: jnp.sum((x - target) ** 2)
    push = diffusion.few_shot_push(loss, 0.3, schedule, clip=2.0)
    return diffusion.sample_ddim(
      eps, schedule, key, (3,), 4, 0.5, clip=2.0, push=push
    )

  together = jax.jit(jax.vmap(sample))(keys, conditions, targets)
  one = jax.jit(sample)
  alone = [one(*task) for task in zip(keys, conditions, targets)]
  np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)
  assert np.ptp(together, axis=0).min() > 0.01


@pytest.mark.parametrize('block', [0, 1])
def test_the_denoiser_reads_condition_and_time_in_every_block(block):
  z, c = np.random.default_rng(0).normal(size=(2, 6, 3))
  params = jax.tree.map(np.copy, random_params())
  other = 1 - block
  kernel = params['params'][f'block_{other}']['kernel']
  assert len(kernel) == (3, *NET.hidden)[other] + 2 + 4
  kernel[-6:] = 0

  @jax.jit
  @jax.jacobian
  def by_condition(c):
    return NET.apply(params, z, 4, c)

  slopes = np.einsum('izic->izc', by_condition(c[:, :2]))
  assert (np.abs(slopes) > 1e-5).all()
  change = apply(params, z, 5, c[:, :2]) - apply(params, z, 4, c[:, :2])
  assert (np.abs(change) > 1e-5).all()
  kernel = params['params'][f'block_{block}']['kernel']
  kernel[-6:] = 0
  same = apply(params, z, 5, 1 + c[:, :2]) - apply(params, z, 4, c[:, :2])
  assert not same.any()


def test_the_denoiser_adds_every_block():
  """Against the same network in NumPy."""
  z, c = np.random.default_rng(0).normal(size=(2, 6, 3))
  c, t = c[:, :2], np.arange(6) * 100
  params = jax.tree.map(np.asarray, random_params()['params'])
  extra = np.concatenate([c, diffusion.time_embedding(jnp.asarray(t), 4)], 1)
  h = z
  for i in range(2):
    x = np.concatenate([h, extra], 1) @ params[f'block_{i}']['kernel']
    x = x + params[f'block_{i}']['bias']
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * params[f'norm_{i}']['scale'] + params[f'norm_{i}']['bias']
    h = x / (1 + np.exp(-x)) + h @ params[f'skip_{i}']['kernel']
  expected = h @ params['output']['kernel'] + params['output']['bias']
  np.testing.assert_allclose(predict(z, t, c), expected, rtol=1e-3, atol=1e-4)


def test_the_denoiser_begins_with_no_noise_and_broadcasts():
  key = jax.random.key(0)
  z = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)))
  params = jax.jit(NET.init)(key, z, 2, jnp.ones(2))
  assert not apply(params, z, 2, jnp.ones(2)).any()
  c = np.random.default_rng(1).normal(size=(4, 5, 2))
  t = np.arange(20).reshape(4, 5)
  together = predict(z, t, c)
  for i in range(4):
    alone = predict(z[i, 2], t[i, 2], c[i, 2])
    np.testing.assert_allclose(together[i, 2], alone, rtol=1e-4, atol=1e-5)


def test_a_trained_denoiser_samples_what_its_condition_names():
  schedule = diffusion.schedule('cosine', 20)
  net = diffusion.Denoiser(2, (32, 32), time_width=8)
  centres = jnp.array([[2.0, 0.0], [-2.0, 1.0]])
  optimiser = optax.adam(3e-3)
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros(2), 0, jnp.zeros(2))

  def loss(params, key):
    keys = jax.random.split(key, 3)
    side = jax.random.bernoulli(keys[0], 0.5, (128,)).astype(int)
    z = centres[side] + 0.1 * jax.random.normal(keys[1], (128, 2))
    apply = functools.partial(net.apply, params)
    c = jax.nn.one_hot(side, 2)
    return diffusion.epsilon_loss(apply, schedule, z, c, keys[2], 0.2)

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
    eps = lambda z, t: diffusion.guided(apply, z, t, condition, gamma)
    key = jax.random.key(2)
    return diffusion.sample_ddim(eps, schedule, key, (200, 2), 10, clip=4.0)

  for side in range(2):
    z = sample(jax.nn.one_hot(side, 2), 1.0)
    np.testing.assert_allclose(z.mean(0), centres[side], atol=0.2)
    assert float(z.std(0).max()) < 0.4
  free = sample(jnp.array([1.0, 0.0]), 0.0)
  assert 0.3 < float((free[:, 0] > 0).mean()) < 0.7


def test_standardised_latents_have_unit_moments_and_come_back():
  z = np.random.default_rng(0).normal(3.0, [0.1, 5.0, 1.0], (4, 50, 3))
  z[..., 2] = 7.0
  spread = np.maximum(z.std((0, 1)), 1e-6)
  made = diffusion.Moments(z.mean((0, 1)), spread)
  unit = diffusion.standardise(z, made)
  np.testing.assert_allclose(unit.std((0, 1))[:2], 1.0, rtol=1e-4)
  assert not unit[..., 2].any()
  back = diffusion.unstandardise(unit, made)
  np.testing.assert_allclose(back, z, rtol=1e-5)


def sample_with(steps=4, total=5, **options):
  schedule = diffusion.schedule('linear', total)
  eps = lambda z, t: z
  diffusion.sample_ddim(
    eps, schedule, jax.random.key(0), (2,), steps, **options
  )


def push_with(gamma=1.0, schedule=None, at='latent'):
  return diffusion.few_shot_push(jnp.sum, gamma, schedule, at)


def guide_with(gamma):
  z = jnp.zeros(3)
  return diffusion.guided(predict, z, 0, jnp.zeros(2), gamma)


def drop_at(rate):
  schedule, zeros = diffusion.schedule('cosine', 3), jnp.zeros((2, 3))
  key = jax.random.key(0)
  diffusion.epsilon_loss(predict, schedule, zeros, zeros[:, :2], key, rate)


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: diffusion.schedule('sqrt', 5), "one of .*, not 'sqrt'"),
    (lambda: diffusion.schedule('cosine', 0), 'steps must be .*, not 0'),
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
    (lambda: push_with(at='noise'), "at .*not 'noise'"),
    (lambda: push_with(at='estimate'), 'needs a schedule'),
    (lambda: drop_at(1.5), r'drop_rate .*\[0, 1\].*not 1.5'),
    (lambda: diffusion.time_embedding(jnp.zeros(1), 7), 'even.*not 7'),
    (lambda: predict(jnp.zeros(2), 0, jnp.zeros(2)), '3 dimensions, not 2'),
  ],
)
def test_what_makes_no_sense_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
