"""Evaluates `udl` on one episode."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners.udl import baselines
from hyperudl.learners.udl import controls
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import losses
from hyperudl.ops import shift_transform


def evaluate(
  config: Config, params: core.PyTree, episode: core.Episode, key: jax.Array
) -> dict[str, jax.Array]:
  """Compute metrics before and after adaptation, and of baselines and controls.

  Args:
    config: of the learner.
    params: of the learner.
    episode: one episode.
    key: PRNG key.

  Returns:
    Metrics f32[], and arrays to plot, with names such as 'image/...'.
  """
  support = hypernetwork.visible_support(config, episode.support)
  network = hypernetwork.generate(config, params, support)
  before = target_network.query_metrics(config, network, episode)
  results = {
    **before,
    **_pictures(config, params, network, episode.query.x),
    **baselines.k_means(config, params, network, episode, support),
    **baselines.ensemble_and_finetuned(config, params, episode, key),
    **controls.single_image(config, params, episode, key),
  }
  if not inner_loop.has_unsupervised_adaptation(config):
    return results
  adapted, trace = inner_loop.adapt(config, params, network, support, key)
  after = target_network.query_metrics(config, adapted, episode)
  results |= after
  results |= {f'{k}_unadapted': v for k, v in before.items() if v.ndim == 0}
  results |= trace.metrics
  for name, weight in params['inner'].get('weights', {}).items():
    results[f'weight_{name}'] = weight
  for name, rate in params['inner'].get('rates', {}).items():
    flat = [leaf.ravel() for leaf in jax.tree.leaves(rate)]
    results[f'histogram/rates_{name}'] = jnp.concatenate(flat)
  results |= _inferred_shift(config, params, trace, episode)
  results |= _by_step(config, params, network, support, trace, episode)
  noise = controls.adapt_to_noise(config, params, network, support, key)
  results['accuracy_placebo'] = _accuracy(config, params, noise, episode)
  results['gain_step'] = after['accuracy'] - before['accuracy']
  results['gain_data'] = after['accuracy'] - results['accuracy_placebo']
  return results


def reported_steps(config: Config) -> list[int]:
  """Return the steps whose accuracy is reported: 1, 2, 4 and so on, and K."""
  count = config.inner_steps
  doublings = [2**k for k in range(count.bit_length())]
  return sorted({k for k in (*doublings, count) if 0 < k <= count})


def _by_step(config, params, network, support, trace, episode):
  """Return accuracies after some of the steps, without k-means."""
  if trace.v is None:
    return {}
  steps = reported_steps(config)

  def accuracy(v):
    after = inner_loop.network_after(config, params, network, support, v)
    return _accuracy(config, params, after, episode)

  at_steps = jax.tree.map(lambda leaf: leaf[np.array(steps) - 1], trace.v)
  values = jax.lax.map(accuracy, at_steps)
  return {f'accuracy_step_{k}': value for k, value in zip(steps, values)}


def _accuracy(config, params, network, episode):
  logits = target_network.query_logits(config, network, episode)
  return losses.accuracy(logits, episode.query.y)


def _inferred_shift(config, params, trace, episode):
  """Return phi f32[9], support through T_phi and reconstructed queries."""
  if trace.v is None or 'shift' not in trace.v:
    return {}
  phi = jax.tree.map(lambda leaf: leaf[-1], trace.v['shift'])
  support, query = episode.support.x, episode.query.x
  vae = hypernetwork.frozen_vae(config, params, query.shape[1:])[1]
  decoded = target_network.reconstruct(config, vae, phi, query)[0]
  return {
    'phi': jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(phi)]),
    'image/shifted_support': jnp.stack(
      [support, shift_transform.apply(phi, support)]
    ),
    'image/reconstructed': jnp.stack([query, decoded]),
  }


def _pictures(config, params, network, x):
  """Return first kernels f32[Cout, k, k, 1] in [0, 1], and decoded queries."""
  first = target_network.architecture(config, x.shape[1:]).specs[0].name
  kernel = network.weights[first]['kernel'].mean(axis=2, keepdims=True)
  kernel = jnp.moveaxis(kernel, -1, 0)
  low, high = kernel.min(), kernel.max()
  decoded = hypernetwork.elbo_terms(config, params, x)['image']
  return {
    'image/filters': (kernel - low) / (high - low + 1e-6),
    'image/reconstructed': jnp.stack([x, decoded]),
  }
