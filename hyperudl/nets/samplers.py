"""Implements diffusion over latents: schedules, loss and guided sampling.

HyperLDM (arXiv:2210.08942): denoising diffusion (Ho et al. 2020,
arXiv:2006.11239), implicit sampling (Song et al. 2021, arXiv:2010.02502) and
classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

Used throughout: latents z, x0 and their noise are f32[..., Z]; timesteps t are
i32[] or i32[...] and count from 0, so that t = 0 is the least noise and t = -1
stands for x0 itself; conditions are f32[C] or f32[..., C]; `predict` is a
function (z, t, condition) -> noise; `eps` is a noise, or in `sample_ddim` a
function (z, t) -> noise.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SCHEDULES = ('cosine', 'linear')
OFFSET = 0.008  # s of 'cosine'
# First and last beta of 'linear' at T = 1000; at another T both are multiplied
# by 1000 / T, which keeps the noise at the end (T > 20).
LINEAR_BETAS = (1e-4, 2e-2)
LARGEST_BETA = 0.999


class Schedule(NamedTuple):
  """Noise schedule over T timesteps: f32[T] each."""

  betas: jax.Array
  alphas: jax.Array
  alpha_bars: jax.Array


class Moments(NamedTuple):
  """Mean and standard deviation of each dimension: f32[Z] each."""

  mean: jax.Array
  std: jax.Array


def _check(name, value, low=-math.inf, high=math.inf):
  """Raise ValueError unless finite and in [low, high]; skip traced values."""
  if isinstance(value, jax.core.Tracer):
    return
  if not np.all(np.isfinite(value) & (np.clip(value, low, high) == value)):
    raise ValueError(f'{name} must be finite in [{low}, {high}], not {value}')


def schedule(name: str, steps: int) -> Schedule:
  """Return the noise schedule of the forward process.

  Args:
    name: 'cosine' (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17) or
      'linear' in beta (Ho et al. 2020, section 4).
    steps: T.

  Raises:
    ValueError: unknown name, or steps < 1.
  """
  _check('steps', steps, 1)
  if name == 'cosine':
    fraction = (np.arange(steps + 1) / steps + OFFSET) / (1 + OFFSET)
    bars = np.cos(fraction * np.pi / 2) ** 2
    betas = 1 - bars[1:] / bars[:-1]
  elif name == 'linear':
    betas = np.linspace(*LINEAR_BETAS, steps) * 1000 / steps
  else:
    raise ValueError(f'schedule must be one of {SCHEDULES}, not {name!r}')
  betas = np.minimum(betas, LARGEST_BETA)
  arrays = (betas, 1 - betas, np.cumprod(1 - betas))
  return Schedule(*(jnp.asarray(array, jnp.float32) for array in arrays))


def _log_bars(schedule, t):
  """Return log alpha_bar f32[..., 1] of timesteps; 0 at -1."""
  # From the betas, since 1 - alpha_bar has few digits at early steps.
  bars = jnp.cumsum(jnp.log1p(-schedule.betas))
  return jnp.where(jnp.asarray(t) < 0, 0.0, bars[t])[..., None]


def noised(
  schedule: Schedule, z: jax.Array, t: jax.Array, noise: jax.Array
) -> jax.Array:
  """Return z_t = sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise (Ho, eq. 4)."""
  log_bar = _log_bars(schedule, t)
  return jnp.exp(0.5 * log_bar) * z + jnp.sqrt(-jnp.expm1(log_bar)) * noise


def estimate(
  schedule: Schedule,
  z: jax.Array,
  t: jax.Array,
  eps: jax.Array,
  clip: float | None = None,
) -> jax.Array:
  """Return the x0 that z_t and its noise imply, clipped to +-clip."""
  log_bar = _log_bars(schedule, t)
  x0 = (z - jnp.sqrt(-jnp.expm1(log_bar)) * eps) * jnp.exp(-0.5 * log_bar)
  return x0 if clip is None else jnp.clip(x0, -clip, clip)


def epsilon_loss(
  predict: Callable,
  schedule: Schedule,
  z: jax.Array,
  condition: jax.Array,
  key: jax.Array,
  drop_rate: float,
) -> jax.Array:
  """Return the mean squared error of the predicted noise (Ho, eq. 14): f32[].

  Args:
    predict: see the module.
    schedule: noise schedule.
    z: f32[B, Z], x0.
    condition: f32[B, C].
    key: PRNG key.
    drop_rate: probability in [0, 1] that a row's condition becomes zeros.

  Raises:
    ValueError: drop_rate outside [0, 1].
  """
  _check('drop_rate', drop_rate, 0, 1)
  time_key, noise_key, drop_key = jax.random.split(key, 3)
  t = jax.random.randint(time_key, z.shape[:1], 0, len(schedule.betas))
  noise = jax.random.normal(noise_key, z.shape)
  drop = jax.random.uniform(drop_key, (len(z), 1)) < drop_rate
  condition = jnp.where(drop, 0.0, condition)
  error = noise - predict(noised(schedule, z, t, noise), t, condition)
  return jnp.mean(jnp.square(error))


def guided(
  predict: Callable,
  z: jax.Array,
  t: jax.Array,
  condition: jax.Array,
  gamma: float,
) -> jax.Array:
  """Predict the noise by classifier-free guidance (arXiv:2207.12598, eq. 6).

  It is (1 - gamma) eps(z, 0) + gamma eps(z, c), where gamma = 1 + w: 0 ignores
  the condition, 1 is the conditional model, more extrapolates.

  Raises:
    ValueError: gamma is not finite.
  """
  _check('gamma', gamma)
  free = predict(z, t, jnp.zeros_like(condition))
  return (1 - gamma) * free + gamma * predict(z, t, condition)


def few_shot_push(
  loss: Callable, gamma: float, schedule: Schedule, clip: float | None = None
) -> Callable:
  """Return a hook for `sample_ddim` that guides samples towards a small loss.

  It replaces eps by eps + gamma |eps| g / |g|, where g is the gradient of the
  loss at the x0 that z_t implies; where g is zero, eps is unchanged. This is
  HyperLDM's few-shot guidance, except that the original takes g at z_t.

  Args:
    loss: function of f32[..., Z] that returns f32[...] or their sum.
    gamma: weight of the guidance.
    schedule: noise schedule.
    clip: bound of that x0, or None.

  Returns:
    Function (z, t, eps) -> f32[..., Z].

  Raises:
    ValueError: gamma is not finite.
  """
  _check('gamma', gamma)
  gradient = jax.grad(lambda x: jnp.sum(loss(x)))

  def push(z, t, eps):
    g = gradient(estimate(schedule, z, t, eps, clip))
    length = jnp.linalg.norm(g, axis=-1, keepdims=True)
    size = gamma * jnp.linalg.norm(eps, axis=-1, keepdims=True)
    return eps + jnp.where(length > 0, size * g / jnp.maximum(length, 1e-30), 0)

  return push


def reverse(
  schedule: Schedule,
  z: jax.Array,
  x0: jax.Array,
  t: jax.Array,
  previous: jax.Array,
  eta: float,
) -> tuple[jax.Array, jax.Array]:
  """Return mean and std of the latent at timestep `previous` given z_t and x0.

  By eq. 7 and 16 of Song et al. 2021, as f32[..., Z] and f32[..., 1]. With
  eta = 1 and previous = t - 1 they are those of q(z_{t-1} | z_t, x0) (Ho, eq.
  7).
  """
  now, then = _log_bars(schedule, t), _log_bars(schedule, previous)
  noise, less_noise = -jnp.expm1(now), -jnp.expm1(then)
  variance = eta**2 * less_noise / noise * -jnp.expm1(now - then)
  # The noise implied by x0: if x0 was clipped, it differs from the prediction.
  eps = (z - jnp.exp(0.5 * now) * x0) / jnp.sqrt(noise)
  direction = jnp.sqrt(jnp.maximum(less_noise - variance, 0.0))
  return jnp.exp(0.5 * then) * x0 + direction * eps, jnp.sqrt(variance)


def sample_ddim(
  eps: Callable,
  schedule: Schedule,
  key: jax.Array,
  shape: tuple[int, ...],
  steps: int,
  eta: float = 0.0,
  clip: float | None = None,
  start: tuple[int, jax.Array] | None = None,
  push: Callable | None = None,
) -> jax.Array:
  """Draw samples by DDIM on evenly spaced timesteps (Song, eq. 12).

  Args:
    eps: function (z, t) -> noise; t is i32[].
    schedule: noise schedule.
    key: PRNG key.
    shape: (..., Z) of the samples.
    steps: number of timesteps, including the noisiest; 1 to T.
    eta: in [0, 1]; 0 draws no noise except for the start, and 1 with all
      timesteps is ancestral sampling with the posterior variance (Ho, alg. 2).
    clip: bound of every estimate of x0, or None.
    start: (t, z_t f32[..., Z]) to start from, t an int; None starts from
      standard normal noise at T - 1.
    push: function (z, t, eps) -> eps, such as from `few_shot_push`, or None.

  Raises:
    ValueError: steps, eta, clip or the timestep of `start` out of bounds.
  """
  top = len(schedule.betas) - 1
  first_key, key = jax.random.split(key)
  last, z = start or (top, jax.random.normal(first_key, shape))
  _check('timestep of start', last, 0, top)
  _check('steps', steps, 1, last + 1)
  _check('eta', eta, 0, 1)
  if clip is not None:
    _check('clip', clip, 0)
  times = np.arange(steps + 1) * (last + 1) // steps - 1

  def body(z, step):
    key, t, previous = step
    e = eps(z, t)
    e = e if push is None else push(z, t, e)
    x0 = estimate(schedule, z, t, e, clip)
    mean, std = reverse(schedule, z, x0, t, previous, eta)
    return mean + std * jax.random.normal(key, shape), None

  plan = (jax.random.split(key, steps), times[1:], times[:-1])
  return jax.lax.scan(body, jnp.broadcast_to(z, shape), plan, reverse=True)[0]


def standardise(z: jax.Array, moments: Moments) -> jax.Array:
  """Scale latents f32[..., Z] to zero mean and unit standard deviation."""
  return (z - moments.mean) / moments.std


def unstandardise(z: jax.Array, moments: Moments) -> jax.Array:
  """Invert `standardise`."""
  return z * moments.std + moments.mean
