"""Diffusion over one point a task, guided by a condition, with running means.

What `hyperldm` and `hyperldm_film` share (Nava et al. 2023, arXiv:2210.08942):
a denoiser learns
  mean |e - eps(sqrt(a_t) z + sqrt(1 - a_t) e, t, c or 0)|^2
on standardised points z of training tasks, whose moments are fitted beside it,
and new points are sampled by classifier-free guidance with the running mean of
its weights (`frozen/ema`). Points are f32[Z], conditions f32[C].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl.nets import denoiser as diffusion


class Settings(NamedTuple):
  """See `make`."""

  schedule: str
  timesteps: int
  denoiser: tuple
  drop_rate: float
  gamma: float
  sampler_steps: int
  eta: float
  clip: float
  samples: int
  ema: float


def make(
  *,
  schedule='cosine',
  timesteps=100,
  denoiser=(256, 256),
  drop_rate=0.2,
  gamma=1.0,
  sampler_steps=50,
  eta=1.0,
  clip=4.0,
  samples=1,
  ema=0.999,
):
  """`Settings`.

  Args:
    schedule: 'cosine' or 'linear'.
    timesteps: T, of the diffusion.
    denoiser: widths of its blocks.
    drop_rate: probability of training without the condition.
    gamma: guidance; 0 ignores the condition, 1 is the conditional model.
    sampler_steps: of the DDIM sampler, <= timesteps.
    eta: its noise; 1 with all timesteps is DDPM.
    clip: bound of the estimate of the standardised point.
    samples: points of a task, whose networks' probabilities are averaged.
    ema: decay of the running mean of the denoiser.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  s = Settings(
    schedule,
    timesteps,
    tuple(denoiser),
    drop_rate,
    gamma,
    sampler_steps,
    eta,
    clip,
    samples,
    ema,
  )
  diffusion.schedule(s.schedule, s.timesteps)
  if not 1 <= s.sampler_steps <= s.timesteps:
    raise ValueError(
      f'sampler_steps must be 1 to timesteps={s.timesteps}, not '
      f'{s.sampler_steps}'
    )
  shares = {'drop_rate': s.drop_rate, 'eta': s.eta, 'ema': s.ema}
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ValueError(f'{name} must be in [0, 1], not {value}')
  if s.samples < 1 or s.clip <= 0:
    raise ValueError(
      f'samples must be >= 1 and clip > 0, not {s.samples} and {s.clip}'
    )
  return s


def init(s, key, width, condition):
  """Parameters: 'denoiser', 'moments' and their running means, 'frozen'.

  Args:
    s: `Settings`.
    key: PRNG key.
    width: Z.
    condition: f32[C], for its shape.
  """
  z = jnp.zeros((1, width))
  net = diffusion.Denoiser(width, s.denoiser).init(
    key, z, jnp.zeros((1,), jnp.int32), condition[None]
  )
  moments = {
    'mean': jnp.zeros((width,), jnp.float32),
    'log_std': jnp.zeros((width,), jnp.float32),
  }
  params = {'denoiser': net['params'], 'moments': moments}
  decay = jnp.asarray(s.ema, jnp.float32)
  ema = {**jax.tree.map(jnp.copy, params), 'decay': decay}
  return {**params, 'frozen': {'ema': ema}}


def _moments(params):
  stored = params['moments']
  return diffusion.Moments(stored['mean'], jnp.exp(stored['log_std']))


def _noise_of(s, params):
  width = params['moments']['mean'].shape[-1]
  net = diffusion.Denoiser(width, s.denoiser)
  return lambda z, t, c: net.apply({'params': params['denoiser']}, z, t, c)


def loss(s, params, z, condition, key):
  """(f32[], metrics): the denoising loss and the fit of the moments.

  The metric `spread`, the mean square of standardised points, ends at one.

  Args:
    s: `Settings`.
    params: from `init`, trained.
    z: the point of a task; no gradient goes into it, nor into the condition.
    condition: of the task.
    key: PRNG key.
  """
  z, condition = jax.lax.stop_gradient((z, condition))
  moments = jax.lax.stop_gradient(_moments(params))
  value = diffusion.epsilon_loss(
    _noise_of(s, params),
    diffusion.schedule(s.schedule, s.timesteps),
    diffusion.standardise(z, moments)[None],
    condition[None],
    key,
    s.drop_rate,
  )
  # Over many tasks the negative log-likelihood of a Gaussian has its minimum
  # at the mean and the standard deviation.
  stored = params['moments']
  spread = jnp.square((z - stored['mean']) * jnp.exp(-stored['log_std']))
  fit = jnp.mean(stored['log_std'] + 0.5 * spread)
  metrics = {'denoising': value, 'fit': fit, 'spread': jnp.mean(spread)}
  return value + fit, metrics


def sample(s, params, condition, key, few_shot=None):
  """One point for a condition: f32[Z].

  Args:
    s: `Settings`.
    params: from `init`, trained.
    condition: of the task.
    key: PRNG key.
    few_shot: (f32[Z] -> f32[], strength), a loss that sampling is led to lower,
      or None.
  """
  averaged = params['frozen']['ema']
  schedule = diffusion.schedule(s.schedule, s.timesteps)
  moments, predict = _moments(averaged), _noise_of(s, averaged)
  push = None
  if few_shot:
    loss, strength = few_shot
    push = diffusion.few_shot_push(
      lambda z: loss(diffusion.unstandardise(z, moments)),
      strength,
      schedule,
      clip=s.clip,
    )
  z = diffusion.sample_ddim(
    lambda z, t: diffusion.guided(predict, z, t, condition, s.gamma),
    schedule,
    key,
    moments.mean.shape,
    s.sampler_steps,
    s.eta,
    s.clip,
    push=push,
  )
  return diffusion.unstandardise(z, moments)


def mean_of(logits):
  """Log of the mean probabilities of samples: f32[M, n, N] -> f32[n, N]."""
  each = jax.nn.log_softmax(logits)
  return jax.nn.logsumexp(each, axis=0) - jnp.log(logits.shape[0])
