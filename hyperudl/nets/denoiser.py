"""Diffusion over latent vectors, guided by a condition.

HyperLDM (arXiv:2210.08942): denoising diffusion (Ho et al. 2020,
arXiv:2006.11239), implicit sampling (Song et al. 2021, arXiv:2010.02502) and
classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

Used throughout: latents z, x0 and their noise are f32[..., Z]; timesteps t are
i32[] or i32[...] and count from 0, so that t = 0 is the least noise and t = -1
stands for x0 itself; conditions are f32[C] or f32[..., C]; `predict` maps
(z, t, condition) to the noise, `eps` maps (z, t) to it; `schedule` is a
Schedule, `key` a PRNG key.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SCHEDULES = ('cosine', 'linear')


class Schedule(NamedTuple):
  """Noise of the T timesteps: f32[T] each."""

  betas: jax.Array
  alphas: jax.Array
  alpha_bars: jax.Array


class Moments(NamedTuple):
  """Mean and standard deviation of each dimension: f32[Z] each."""

  mean: jax.Array
  std: jax.Array


def _check(name, value, low=-math.inf, high=math.inf):
  """ValueError unless finite and in [low, high]; traced values pass."""
  if isinstance(value, jax.core.Tracer):
    return
  if not np.all(np.isfinite(value) & (np.clip(value, low, high) == value)):
    raise ValueError(f'{name} must be finite in [{low}, {high}], not {value}')


def schedule(name, steps, start=1e-4, end=2e-2, offset=0.008, largest=0.999):
  """Variances of the forward process.

  Args:
    name: 'cosine' (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17) or
      'linear' in beta (Ho et al. 2020, section 4).
    steps: T.
    start, end: first and last beta of 'linear' at T = 1000; at another T both
      are multiplied by 1000 / T, which keeps the noise at the end (T > 20).
    offset: s of 'cosine'.
    largest: bound of every beta.

  Returns:
    Schedule of f32[T].

  Raises:
    ValueError: unknown name, steps < 1.
  """
  _check('steps', steps, 1)
  if name == 'cosine':
    share = (np.arange(steps + 1) / steps + offset) / (1 + offset)
    bars = np.cos(share * np.pi / 2) ** 2
    betas = 1 - bars[1:] / bars[:-1]
  elif name == 'linear':
    betas = np.linspace(start, end, steps) * 1000 / steps
  else:
    raise ValueError(f'schedule must be one of {SCHEDULES}, not {name!r}')
  betas = np.minimum(betas, largest)
  arrays = (betas, 1 - betas, np.cumprod(1 - betas))
  return Schedule(*(jnp.asarray(array, jnp.float32) for array in arrays))


def time_embedding(t, width):
  """f32[..., width], cosines then sines (arXiv:1706.03762, section 3.5)."""
  if width < 2 or width % 2:
    raise ValueError(f'time width must be even and >= 2, not {width}')
  half = width // 2
  rates = jnp.exp(-math.log(10000.0) / half * jnp.arange(half))
  angles = jnp.asarray(t, jnp.float32)[..., None] * rates
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Denoiser(nn.Module):
  """Residual perceptron that predicts the noise in a latent.

  Every block reads the condition and the timestep again. The output layer
  starts at zero: the first loss is 1, that of the best constant, and no step
  is spent on unlearning a random answer.

  Attributes:
    latent: Z.
    hidden: width of each block.
    time_width: features of the timestep.
  """

  latent: int
  hidden: tuple[int, ...] = (128, 128)
  time_width: int = 100

  @nn.compact
  def __call__(self, z, t, condition):
    """Noise f32[..., Z]; ValueError where z has not Z dimensions."""
    if z.shape[-1] != self.latent:
      raise ValueError(
        f'latents must have {self.latent} dimensions, not {z.shape[-1]}'
      )
    time = time_embedding(t, self.time_width)
    spread = lambda x: jnp.broadcast_to(x, (*z.shape[:-1], x.shape[-1]))
    extra = jnp.concatenate([spread(condition), spread(time)], axis=-1)
    h = z
    for i, width in enumerate(self.hidden):
      read = jnp.concatenate([h, extra], axis=-1)
      new = nn.Dense(width, name=f'block_{i}')(read)
      new = nn.silu(nn.LayerNorm(name=f'norm_{i}')(new))
      h = new + nn.Dense(width, use_bias=False, name=f'skip_{i}')(h)
    zeros = nn.initializers.zeros_init()
    return nn.Dense(self.latent, kernel_init=zeros, name='output')(h)


def _log_bars(schedule, t):
  """log alpha_bar f32[..., 1] of timesteps; 0 at -1."""
  # From the betas: 1 - alpha_bar has few digits left at early steps.
  bars = jnp.cumsum(jnp.log1p(-schedule.betas))
  return jnp.where(jnp.asarray(t) < 0, 0.0, bars[t])[..., None]


def noised(schedule, z, t, noise):
  """z_t: sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise (Ho, eq. 4)."""
  log_bar = _log_bars(schedule, t)
  return jnp.exp(0.5 * log_bar) * z + jnp.sqrt(-jnp.expm1(log_bar)) * noise


def estimate(schedule, z, t, eps, clip=None):
  """The x0 that z_t and its noise imply, within +-clip; inverts `noised`."""
  log_bar = _log_bars(schedule, t)
  x0 = (z - jnp.sqrt(-jnp.expm1(log_bar)) * eps) * jnp.exp(-0.5 * log_bar)
  return x0 if clip is None else jnp.clip(x0, -clip, clip)


def epsilon_loss(predict, schedule, z, condition, key, drop_rate):
  """Mean squared error of the predicted noise (Ho, eq. 14): f32[].

  Args:
    predict, schedule, key: see the module.
    z, condition: f32[B, Z], x0, and f32[B, C].
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


def guided(predict, z, t, condition, gamma):
  """Classifier-free guidance: (1 - gamma) eps(z, 0) + gamma eps(z, c).

  Eq. 6 of arXiv:2207.12598 with gamma = 1 + w: 0 ignores the condition, 1 is
  the conditional model, more extrapolates. ValueError if gamma is not finite.
  """
  _check('gamma', gamma)
  free = predict(z, t, jnp.zeros_like(condition))
  return (1 - gamma) * free + gamma * predict(z, t, condition)


def few_shot_push(loss, gamma, schedule=None, at='estimate', clip=None):
  """A hook of the samplers that leads them towards a small loss.

  It turns eps into eps + gamma |eps| g / |g|, g the gradient of the loss
  (HyperLDM's few-shot guidance), and leaves it where the gradient is zero.

  Args:
    loss: function of f32[..., Z], f32[...] or their sum.
    gamma: strength.
    schedule: Schedule; needed by 'estimate'.
    at: 'estimate' takes g at the x0 that z_t implies, 'latent' at z_t itself,
      as the original does.
    clip: bound of that x0, or None.

  Returns:
    Function (z, t, eps) -> f32[..., Z].

  Raises:
    ValueError: gamma not finite, unknown `at`, no schedule for 'estimate'.
  """
  _check('gamma', gamma)
  if at not in ('estimate', 'latent'):
    raise ValueError(f"at must be 'estimate' or 'latent', not {at!r}")
  if at == 'estimate' and schedule is None:
    raise ValueError("at='estimate' needs a schedule, not None")
  gradient = jax.grad(lambda x: jnp.sum(loss(x)))

  def push(z, t, eps):
    where = z if at == 'latent' else estimate(schedule, z, t, eps, clip)
    g = gradient(where)
    length = jnp.linalg.norm(g, axis=-1, keepdims=True)
    size = gamma * jnp.linalg.norm(eps, axis=-1, keepdims=True)
    return eps + jnp.where(length > 0, size * g / jnp.maximum(length, 1e-30), 0)

  return push


def reverse(schedule, z, x0, t, before, eta):
  """Mean and standard deviation of the latent at `before` given z_t and x0.

  Eq. 7 and 16 of Song et al. 2021. With eta = 1 and before = t - 1 they are
  those of q(z_{t-1} | z_t, x0) (Ho, eq. 7). f32[..., Z] and f32[..., 1].
  """
  now, then = _log_bars(schedule, t), _log_bars(schedule, before)
  noise, less = -jnp.expm1(now), -jnp.expm1(then)
  variance = eta**2 * less / noise * -jnp.expm1(now - then)
  # Not the model's answer, which a clipped x0 contradicts.
  eps = (z - jnp.exp(0.5 * now) * x0) / jnp.sqrt(noise)
  along = jnp.sqrt(jnp.maximum(less - variance, 0.0))
  return jnp.exp(0.5 * then) * x0 + along * eps, jnp.sqrt(variance)


def sample_ddim(
  eps, schedule, key, shape, steps, eta=0.0, clip=None, start=None, push=None
):
  """Samples along an even subset of the timesteps (Song, eq. 12).

  Args:
    eps, schedule, key: see the module; t is i32[].
    shape: (..., Z) of the samples.
    steps: how many timesteps, the noisiest among them; 1 to T.
    eta: in [0, 1]; 0 draws no noise but the start, and 1 with all timesteps is
      ancestral sampling with the posterior variance (Ho, algorithm 2).
    clip: bound of every estimate of x0, or None.
    start: (t, z_t f32[..., Z]) to begin with, t an int; None begins with
      standard normal noise at T - 1.
    push: function (z, t, eps) -> eps, such as `few_shot_push`, or None.

  Returns:
    f32[*shape].

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
    key, t, before = step
    e = eps(z, t)
    e = e if push is None else push(z, t, e)
    x0 = estimate(schedule, z, t, e, clip)
    mean, std = reverse(schedule, z, x0, t, before, eta)
    return mean + std * jax.random.normal(key, shape), None

  plan = (jax.random.split(key, steps), times[1:], times[:-1])
  return jax.lax.scan(body, jnp.broadcast_to(z, shape), plan, reverse=True)[0]


def standardise(z, moments):
  """Latents f32[..., Z] in units of `moments`."""
  return (z - moments.mean) / moments.std


def unstandardise(z, moments):
  """Inverse of `standardise`."""
  return z * moments.std + moments.mean
