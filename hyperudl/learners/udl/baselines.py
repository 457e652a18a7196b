"""Computes the baselines of `udl`: k-means, ensembles and fine-tuning."""

import jax
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl.learners.udl import cluster_setting
from hyperudl.learners.udl import controls
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

KMEANS = (0.5, 1.0, 2.0)  # scales of soft k-means, as multiples of tau
KMEANS_STEPS = 3


def k_means(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  episode: core.Episode,
  support: core.Examples,
) -> dict[str, jax.Array]:
  """Compute accuracies of k-means on the unadapted network's features.

  In the setting 'clusters', also on the frozen vae's latents and on pixels.

  Args:
    config: of the learner.
    params: of the learner.
    network: from `hypernetwork.generate`.
    episode: one episode.
    support: its support with only the labels that the learner may use.
  """
  x, y = episode.query.x, episode.query.y
  if config.setting == 'clusters':
    net, variables = hypernetwork.frozen_vae(config, params, x.shape[1:])
    sets = episode.support.x, x
    points = {
      'posterior': [net.apply(variables, s, method='encode')[0] for s in sets],
      'features': [
        losses.unit(target_network.query_features(config, network, s))
        for s in sets
      ],
    }
    return cluster_setting.baselines(episode, config.way, points)
  images = inner_loop.select_images(support)
  if not images.x.shape[0]:
    return {}
  tau = jnp.exp(network.log_scale)
  accuracies = {}
  for scale in KMEANS:
    refined = inner_loop.refine_prototypes(
      config, network, images, scale * tau, 1.0, KMEANS_STEPS
    )
    logits = target_network.classify(config, refined, x)
    accuracies[f'accuracy_kmeans_{scale:g}'] = losses.accuracy(logits, y)
  return accuracies


def ensemble_and_finetuned(
  config: Config, params: core.PyTree, episode: core.Episode, key: jax.Array
) -> dict[str, jax.Array]:
  """Compute accuracy and nll of the ensemble and fine-tuning, if configured."""
  logits = {}
  if config.ensemble:
    logits['ensemble'] = _ensemble(config, params, episode, key)
  if config.finetune_steps:
    logits['finetuned'] = _finetuned(config, params, episode)
  results = {}
  for name, each in logits.items():
    results[f'accuracy_{name}'] = losses.accuracy(each, episode.query.y)
    results[f'nll_{name}'] = losses.cross_entropy(each, episode.query.y)
  return results


def bootstrap(support: core.Examples, key: jax.Array) -> core.Examples:
  """Draw labelled rows with replacement within each class, slightly moved.

  Args:
    support: rows with y = -1 are not changed.
    key: PRNG key.
  """
  x, y = support.x, support.y
  row_key, move_key = jax.random.split(key)
  same = (y[:, None] == y[None, :]).astype(x.dtype)
  rows = jax.random.categorical(row_key, jnp.log(same))
  keys = jax.random.split(move_key, y.shape[0])
  moved = jax.vmap(controls.draw_copy)(keys, x[rows])
  return support._replace(x=jnp.where((y < 0)[:, None, None, None], x, moved))


def _ensemble(config, params, episode, key):
  """Return log mean probabilities f32[m, N] over bootstrapped supports."""

  def log_probabilities(key):
    support = bootstrap(episode.support, key)
    network = hypernetwork.generate(config, params, support)
    network, _ = inner_loop.adapt(config, params, network, support, key)
    logits = target_network.classify(config, network, episode.query.x)
    return jax.nn.log_softmax(logits)

  keys = jax.random.split(key, config.ensemble)
  return losses.log_mean_probability(jax.lax.map(log_probabilities, keys))


def _finetuned(config, params, episode):
  """Return logits f32[m, N] after fine-tuning the network on labelled rows."""
  support = episode.support
  network = hypernetwork.generate(config, params, support)
  is_clean = (support.y >= 0).astype(jnp.float32)
  is_counted = target_network.counted(config, support)

  def loss(trained, step):
    del step
    weights, prototypes = trained
    features, _ = target_network.embed(
      config, weights, support.x, is_clean, is_counted
    )
    logits = target_network.similarity_logits(
      network._replace(prototypes=prototypes), features
    )
    return losses.cross_entropy(logits, support.y)

  (weights, prototypes), _ = gradient_descent.optimise(
    loss,
    (network.weights, network.prototypes),
    optax.adam(config.finetune_rate),
    config.finetune_steps,
  )
  network = network._replace(weights=weights, prototypes=prototypes)
  network = target_network.with_features(config, network, support)
  return target_network.classify(config, network, episode.query.x)
