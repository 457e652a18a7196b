"""Defines the latent spaces of networks that `hyperclip` and `hyperldm` search.

'hnet' is the latent space of a frozen `hypernet`; 'hvae' is that of a frozen
`hvae` trained on the weights that this hypernet decodes.
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
  """The space, and the hyperparameters of the frozen models behind it."""

  space: Literal['hnet', 'hvae'] = 'hnet'

  @property
  def dimension(self) -> int:
    """Size of a latent of the space."""
    return self.latent if self.space == 'hnet' else self.hvae_latent


def init_frozen(
  config: Config, key: jax.Array, episode: core.Episode
) -> core.PyTree:
  """Return the parameters of the frozen models behind a space."""
  keys = jax.random.split(key)
  frozen = hypernetwork.freeze(hypernetwork.init(config, keys[0], episode))
  if config.space == 'hvae':
    base = frozen['hypernet']['decoder']['base']
    frozen['hvae'] = weight_vae.init(config, keys[1], base)
  return frozen


@dataclasses.dataclass(frozen=True)
class LatentSpace:
  """A latent space with the parameters of a learner that works in it."""

  config: Config
  params: core.PyTree

  @property
  def net(self) -> hypernetwork.Hypernet:
    """The frozen hypernet."""
    return hypernetwork.unfreeze(self.config, self.params)

  def embed_question(self, context: core.PyTree) -> jax.Array:
    """Return the embedded question of a task, a unit vector f32[E]."""
    return losses.unit(self.net.encoder.embed_words(context).question)

  def decode(self, latent: jax.Array) -> hypernetwork.FastWeights:
    """Return the fast weights of a latent."""
    if self.config.space == 'hnet':
      return hypernetwork.FastWeights(latent)
    return weight_vae.decode(self.params['frozen']['hvae'], self.net, latent)

  def encode(self, fast: hypernetwork.FastWeights) -> jax.Array:
    """Return the latent of fast weights adapted by the hypernet."""
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
