"""Exact denoisers of Gaussians, and a small network with random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.nets import denoiser
from hyperudl.nets import samplers

MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
NET = denoiser.Denoiser(3, (8, 6), time_width=4)

noised = jax.jit(samplers.noised)
estimate = jax.jit(samplers.estimate, static_argnames='clip')
reverse = jax.jit(samplers.reverse)
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

  t and z are the start, loss and gamma the few-shot guidance.
  """
  schedule, gains, centres = model
  eps = lambda z, t: (z - centres[t]) @ gains[t]
  push = loss and samplers.few_shot_push(loss, gamma, schedule)
  options = {'clip': clip, 'start': t and (t, z), 'push': push}
  key, shape = jax.random.key(0), (n, 2)
  if steps is None:
    steps, eta = len(schedule.betas) if t is None else t + 1, 1.0
  return samplers.sample_ddim(eps, schedule, key, shape, steps, eta, **options)


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
