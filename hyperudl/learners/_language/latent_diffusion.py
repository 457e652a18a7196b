"""Trains and samples a diffusion model of task latents, given a condition.

Nava et al. 2023, arXiv:2210.08942: a denoiser eps minimises
  mean |e - eps(sqrt(a_t) z + sqrt(1 - a_t) e, t, c or 0)|^2
on standardised latents z of training tasks; the moments for the standardisation
are fitted at the same time. New latents are sampled by classifier-free guidance
with a moving average of the weights (`frozen/ema`). Latents are f32[Z],
conditions c f32[C].
"""

from collections.abc import Callable
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core.hyperparameters import field
from hyperudl.nets import denoiser
from hyperudl.nets import samplers


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of the denoiser and the sampler."""

  schedule: Literal['cosine', 'linear'] = 'cosine'
  timesteps: int = field(100, at_least=1)  # T
  denoiser: tuple[int, ...] = field((256, 256), at_least=1)  # widths of blocks
  drop_rate: float = field(0.2, at_least=0, at_most=1)  # of conditions
  # Guidance: 0 ignores the condition, 1 is the conditional model.
  gamma: float = 1.0
  sampler_steps: int = field(50, at_least=1)  # of DDIM, <= timesteps
  eta: float = field(1.0, at_least=0, at_most=1)  # 1 with all timesteps: DDPM
  clip: float = field(4.0, above=0)  # bound of estimates of the latent
  samples: int = field(1, at_least=1)  # latents drawn for each task
  ema: float = field(0.999, at_least=0, at_most=1)  # decay of the average
  few_shot_gamma: float = 0.0  # weight of guidance by the support's loss

  def __post_init__(self):
    if self.sampler_steps > self.timesteps:
      raise core.BadInput(
        f'sampler_steps = {self.sampler_steps} is above timesteps = '
        f'{self.timesteps}'
      )


def init(
  config: Config, key: jax.Array, width: int, condition: jax.Array
) -> core.PyTree:
  """Return 'denoiser', 'moments', and their moving average in 'frozen'.

  Args:
    config: of the diffusion.
    key: PRNG key.
    width: Z.
    condition: f32[C]; only its shape is used.
  """
  net = denoiser.Denoiser(width, config.denoiser).init(
    key, jnp.zeros((1, width)), jnp.zeros((1,), jnp.int32), condition[None]
  )
  moments = {
    'mean': jnp.zeros((width,), jnp.float32),
    'log_std': jnp.zeros((width,), jnp.float32),
  }
  params = {'denoiser': net['params'], 'moments': moments}
  decay = jnp.asarray(config.ema, jnp.float32)
  ema = {**jax.tree.map(jnp.copy, params), 'decay': decay}
  return {**params, 'frozen': {'ema': ema}}


def _parts(config, params):
  """Return (moments, schedule, function that predicts the noise)."""
  mean, log_std = params['moments']['mean'], params['moments']['log_std']
  net = denoiser.Denoiser(mean.shape[-1], config.denoiser)
  predict = lambda z, t, c: net.apply({'params': params['denoiser']}, z, t, c)
  schedule = samplers.schedule(config.schedule, config.timesteps)
  return samplers.Moments(mean, jnp.exp(log_std)), schedule, predict


def loss(
  config: Config,
  params: core.PyTree,
  latent: jax.Array,
  condition: jax.Array,
  key: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Return the denoising loss plus the loss of the moments, and metrics.

  The metric `spread` is the mean square of standardised latents: one once the
  moments fit.

  Args:
    config: of the diffusion.
    params: from `init`.
    latent: f32[Z] of a task, without a gradient.
    condition: f32[C] of the task, without a gradient.
    key: PRNG key.
  """
  latent, condition = jax.lax.stop_gradient((latent, condition))
  moments, schedule, predict = _parts(config, params)
  standardised = samplers.standardise(latent, jax.lax.stop_gradient(moments))
  value = samplers.epsilon_loss(
    predict,
    schedule,
    standardised[None],
    condition[None],
    key,
    config.drop_rate,
  )
  # Fit the moments: the negative log-likelihood of a Gaussian, over many tasks,
  # is smallest at their mean and standard deviation.
  mean, log_std = params['moments']['mean'], params['moments']['log_std']
  squared = jnp.square((latent - mean) * jnp.exp(-log_std))
  fit = jnp.mean(log_std + 0.5 * squared)
  metrics = {'denoising': value, 'fit': fit, 'spread': jnp.mean(squared)}
  return value + fit, metrics


def sample(
  config: Config,
  params: core.PyTree,
  condition: jax.Array,
  key: jax.Array,
  support_loss: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Return one latent f32[Z] for a condition.

  Args:
    config: of the diffusion.
    params: from `init`, trained.
    condition: f32[C] of the task.
    key: PRNG key.
    support_loss: f32[Z] -> f32[]; if `few_shot_gamma` is not 0, sampling is
      guided to lower it.
  """
  moments, schedule, predict = _parts(config, params['frozen']['ema'])
  push = None
  if config.few_shot_gamma:
    push = samplers.few_shot_push(
      lambda z: support_loss(samplers.unstandardise(z, moments)),
      config.few_shot_gamma,
      schedule,
      clip=config.clip,
    )
  z = samplers.sample_ddim(
    lambda z, t: samplers.guided(predict, z, t, condition, config.gamma),
    schedule,
    key,
    moments.mean.shape,
    config.sampler_steps,
    config.eta,
    config.clip,
    push=push,
  )
  return samplers.unstandardise(z, moments)
