"""Encodes the weights of adapted networks with a variational autoencoder.

HVAE of Nava et al. 2023 (arXiv:2210.08942). Weights are encoded and decoded as
deviations from the base weights of the frozen hypernet, which all tasks share.
"""

import dataclasses

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import hypernetwork
from hyperudl.nets import mlp
from hyperudl.nets import weight_decoder
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(hypernetwork.Config):
  """Sizes of the VAE, and the hyperparameters of its frozen `hypernet`."""

  hvae_latent: int = field(32, at_least=1)  # L
  hvae_hidden: tuple[int, ...] = field((128, 128), at_least=1)  # of both MLPs

  def __post_init__(self):
    super().__post_init__()
    hypernetwork.check_has_latents(self)


def init(config: Config, key: jax.Array, base: core.PyTree) -> core.PyTree:
  """Return parameters 'encoder', 'decoder' and 'log_spread'.

  Args:
    config: of the VAE.
    key: PRNG key.
    base: base weights of the hypernet, D numbers in all.
  """
  keys = jax.random.split(key)
  size, hidden = ravel_pytree(base)[0].size, config.hvae_hidden
  return {
    'encoder': mlp.init(keys[0], (size, *hidden, 2 * config.hvae_latent)),
    'decoder': mlp.init(keys[1], (config.hvae_latent, *hidden, size), 0.1),
    'log_spread': jnp.zeros((), jnp.float32),
  }


def encode(
  params: core.PyTree,
  net: hypernetwork.Hypernet,
  fast: hypernetwork.FastWeights,
) -> tuple[jax.Array, jax.Array]:
  """Return mean and log-variance f32[L] of the posterior of weights.

  The log-variance is shifted by -1, so that there is little noise at first.

  Args:
    params: from `init`.
    net: the frozen hypernet.
    fast: fast weights of a task.
  """
  scaled = net.deviation(fast) / jnp.exp(params['log_spread'])
  mean, log_variance = jnp.split(mlp.apply(params['encoder'], scaled), 2)
  return mean, log_variance - 1.0


def decode(
  params: core.PyTree, net: hypernetwork.Hypernet, latent: jax.Array
) -> hypernetwork.FastWeights:
  """Return the fast weights of a latent f32[L]."""
  decoder = {'base': net.base, 'layers': params['decoder']}
  weights = weight_decoder.apply(decoder, latent)
  return hypernetwork.FastWeights(weights=weights)


def spread_nll(log_spread: jax.Array, deviation: jax.Array) -> jax.Array:
  """Return the Gaussian NLL of deviations, smallest at their std.

  Args:
    log_spread: f32[], log of the standard deviation.
    deviation: f32[...], from the base weights.
  """
  scaled = deviation * jnp.exp(-log_spread)
  return log_spread + 0.5 * jnp.mean(jnp.square(scaled))


def elbo(
  params: core.PyTree,
  net: hypernetwork.Hypernet,
  fast: hypernetwork.FastWeights,
  beta: float,
  key: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Return the negative ELBO of the weights of a task, and metrics.

  [ |(w' - w) / s|^2 + beta KL(q(z | w) || N(0, 1)) ] / sqrt(D) + spread_nll,
  where s is one standard deviation for all weights, fitted by `spread_nll`; the
  division by s in the error passes no gradient to it.

  Args:
    params: from `init`.
    net: the frozen hypernet.
    fast: fast weights of a task.
    beta: weight of the KL.
    key: PRNG key.
  """
  weights = jax.lax.stop_gradient(net.weights_of(fast))
  fast = hypernetwork.FastWeights(weights=weights)
  mean, log_variance = encode(params, net, fast)
  noise = jax.random.normal(key, mean.shape)
  latent = mean + jnp.exp(0.5 * log_variance) * noise
  decoded = decode(params, net, latent).weights
  error = ravel_pytree(decoded)[0] - ravel_pytree(weights)[0]
  spread = jax.lax.stop_gradient(jnp.exp(params['log_spread']))
  squared = jnp.square(error / spread)
  kl = losses.kl_standard_normal(mean, log_variance)
  value = (jnp.sum(squared) + beta * kl) / jnp.sqrt(error.size)
  value += spread_nll(params['log_spread'], net.deviation(fast))
  return value, {'error': jnp.mean(squared), 'kl': kl}
