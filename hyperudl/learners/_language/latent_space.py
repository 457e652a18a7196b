"""The latent spaces of networks that guidance works in.

'hnet': the latent of a frozen `hypernet`. 'hvae': the latent of a frozen `hvae`
on the weights that the hypernet decodes.
"""

import dataclasses
from typing import Literal

import jax

from hyperudl import core
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import weight_vae
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(weight_vae.Config):
  """The space, and the hyperparameters of its frozen upstreams."""

  space: Literal['hnet', 'hvae'] = 'hnet'

  @property
  def dimension(self) -> int:
    """How many numbers a latent of the space has."""
    return self.latent if self.space == 'hnet' else self.hvae_latent


def init_frozen(
  config: Config, key: jax.Array, episode: core.Episode
) -> core.PyTree:
  """Return the frozen upstreams of a learner on a space."""
  keys = jax.random.split(key)
  frozen = hypernetwork.freeze(hypernetwork.init(config, keys[0], episode))
  if config.space == 'hvae':
    base = frozen['hypernet']['decoder']['base']
    frozen['hvae'] = weight_vae.init(config, keys[1], base)
  return frozen


@dataclasses.dataclass(frozen=True)
class LatentSpace:
  """A space with the parameters of a learner on it."""

  config: Config
  params: core.PyTree

  @property
  def net(self) -> hypernetwork.Hypernet:
    """The frozen hypernet."""
    return hypernetwork.unfreeze(self.config, self.params)

  def embed_question(self, context: core.PyTree) -> jax.Array:
    """Return the question of a task, of length 1: f32[E]."""
    return losses.unit(self.net.encoder.embed_words(context).question)

  def decode(self, latent: jax.Array) -> hypernetwork.FastWeights:
    """Return the fast weights of a latent."""
    if self.config.space == 'hnet':
      return hypernetwork.FastWeights(latent)
    return weight_vae.decode(self.params['frozen']['hvae'], self.net, latent)

  def encode(self, fast: hypernetwork.FastWeights) -> jax.Array:
    """Return the latent of fast weights that the hypernet has adapted."""
    if self.config.space == 'hnet':
      return fast.latent
    return weight_vae.encode(self.params['frozen']['hvae'], self.net, fast)[0]

  def initial_latent(self, context: core.PyTree) -> jax.Array:
    """Return the latent of the unadapted network."""
    return self.encode(self.net.initial_weights(context))

  def task_latent(self, episode: core.Episode) -> jax.Array:
    """Return the latent of a training task, see `Hypernet.task_latent`."""
    latent = self.net.task_latent(episode)
    fast = hypernetwork.FastWeights(latent)
    return jax.lax.stop_gradient(self.encode(fast))
