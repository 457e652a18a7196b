"""Computes controls of the unsupervised adaptation of `udl` in evaluation."""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import image
from hyperudl.ops import losses


def adapt_to_noise(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  support: core.Examples,
  key: jax.Array,
) -> target_network.Network:
  """Return the network after adapting it to noise in place of the images."""
  images = inner_loop.select_images(support)
  noise = image.noise_images(jax.random.fold_in(key, 1), images.x.shape)
  images = images._replace(x=noise, are_support=False)
  return inner_loop.adapt(config, params, network, support, key, images)[0]


def single_image(
  config: Config, params: core.PyTree, episode: core.Episode, key: jax.Array
) -> dict[str, jax.Array]:
  """Compute the accuracy if the network adapts to each query by itself.

  Moved, noisy copies of the query replace all unlabelled images (after MT3).
  The result is {} if there are no unlabelled images or others replace them.
  """
  support, query = episode.support, episode.query
  hidden = (episode.extra or {}).get('unlabelled_y', support.y[:0])
  replaced = 'inner' in (support.context or {})
  if not config.single or not hidden.size or replaced:
    return {}
  if not inner_loop.has_unsupervised_adaptation(config):
    return {}
  unlabelled = (support.y == -1)[:, None, None, None]

  def classify(inputs):
    x, key = inputs
    keys = jax.random.split(key, support.y.shape[0])
    copies = jax.vmap(lambda k: draw_copy(k, x))(keys)
    alone = support._replace(x=jnp.where(unlabelled, copies, support.x))
    network = hypernetwork.generate(config, params, alone)
    network, _ = inner_loop.adapt(config, params, network, alone, key)
    return target_network.classify(config, network, x[None])[0]

  keys = jax.random.split(key, query.y.shape[0])
  logits = jax.lax.map(classify, (query.x, keys))
  return {'accuracy_single': losses.accuracy(logits, query.y)}


def draw_copy(key: jax.Array, x: jax.Array) -> jax.Array:
  """Draw a moved, noisy copy f32[H, W, C] of one image."""
  return inner_losses.draw_view(jax.random.split(key)[0], x[None])[0]
