"""Runs the unsupervised inner loop of `udl`: K gradient steps, then k-means.

  v <- v - gate * alpha_k * g / (|g| + e),  g = d L_in / d v
  L_in = a ELBO + b SSL + critic, on the unlabelled images.
The support's features under v_0 and under v_K are computed once and passed on,
because XLA merges equal forward passes but not their gradients
(docs/results/speed.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates as gates_lib
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import shift
from hyperudl.learners.udl import steps
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import clustering
from hyperudl.ops import losses


class Trace(NamedTuple):
  """Measurements of one adaptation."""

  metrics: dict[str, jax.Array]  # f32[] each
  v: core.PyTree = None  # after each step, leaves f32[K, ...]; None for K = 0
  auxiliary: jax.Array | float = 0.0  # f32[], auxiliary losses at v_0


def has_unsupervised_adaptation(config: Config) -> bool:
  """Return whether the config adapts to unlabelled images in any way."""
  return bool(
    config.inner_steps
    or config.cluster
    or config.start != 'identity'
    or 'shift' in fast_weights.parse(config.adapt)
  )


def select_images(support: core.Examples) -> inner_losses.Images:
  """Return the images that the inner loop adapts to.

  These are the images of `context['inner']` if there are any (a control), else
  the unlabelled rows of the support, or all its images if none is unlabelled.
  """
  others = (support.context or {}).get('inner')
  if others is not None:
    return _replacing(others, support)
  is_clean = (support.y >= 0).astype(jnp.float32)
  unlabelled = (support.y == -1).astype(jnp.float32)
  mask = jnp.where(unlabelled.any(), unlabelled, is_clean)
  return inner_losses.Images(
    support.x, mask, unlabelled, is_clean, support, True
  )


def _replacing(x, support):
  """Return images f32[n, H, W, C] that replace the unlabelled ones."""
  one = jnp.ones(x.shape[0])
  return inner_losses.Images(x, one, one, 0 * one, support, False)


def select_shifted(images: inner_losses.Images) -> inner_losses.Images:
  """Return the images that phi is inferred from: `context['phi']` if any."""
  others = (images.support.context or {}).get('phi')
  return images if others is None else _replacing(others, images.support)


def adapt(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  support: core.Examples,
  key: jax.Array,
  images: inner_losses.Images | None = None,
) -> tuple[target_network.Network, Trace]:
  """Adapt a generated network to one episode without labels.

  Args:
    config: of the learner.
    params: of the learner.
    network: from `hypernetwork.generate`.
    support: from which the network was generated.
    key: PRNG key.
    images: to adapt to, by default those of `select_images`.

  Returns:
    (the network after K steps and k-means, `Trace`).
  """
  images = images or select_images(support)
  if not has_unsupervised_adaptation(config) or not images.x.shape[0]:
    return network, Trace({})
  v, gates, trace = infer(config, params, network, images, key)
  shifted = select_shifted(images)
  if 'shift' in v and shifted is not images:
    v_others, _, other = infer(config, params, network, shifted, key)
    v = {**v, 'shift': v_others['shift']}
    if trace.v is not None:
      trace = trace._replace(v={**trace.v, 'shift': other.v['shift']})
  if 'shift' in v:
    trace.metrics.update(shift.metrics(config, params, v['shift'], shifted))
  network = steps.network_under(config, params, network, shifted, v)
  if config.cluster:
    trace.metrics.update(
      gate_cluster=gates.unlabelled_weight, gate_scale=gates.cosine_scale
    )
    tau, learned = jnp.exp(network.log_scale), params['inner']['cluster']
    scale = tau * gates.cosine_scale * jnp.exp(learned['log_scale'])
    mass = gates.unlabelled_weight * jnp.exp(learned['log_mass'])
    network = refine_prototypes(
      config, network, images, scale, mass, config.cluster
    )
  return network, trace


def infer(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  images: inner_losses.Images,
  key: jax.Array,
) -> tuple[core.PyTree, gates_lib.Gates, Trace]:
  """Return v after K steps on some images, the gates and the `Trace`."""
  v, inner = fast_weights.identity(config, params, network), params['inner']
  terms = hypernetwork.elbo_terms(config, params, images.x)
  inputs = inner_losses.draw(images, terms['mean'], key)
  inputs_0 = steps.read(config, params, network, inputs, v)
  values = inner_losses.evaluate(config, inner, inputs_0)
  auxiliary = inner_losses.auxiliary(config, values)
  gates = _gates(config, params, network, inputs_0, terms)
  v, trace = inner.get('start', v), Trace({'gate': gates.step_size})
  if 'shift' in v and config.shift_start == 'candidates':
    phi = steps.initial_shift(
      config, params, network, inputs, v, gates.step_size
    )
    v = {**v, 'shift': phi}
  if config.inner_steps:
    v, taken = steps.descend(
      config, params, network, inputs, v, gates.step_size, key
    )
    trace = Trace(_step_metrics(gates, taken), taken.values, auxiliary)
  return v, gates, trace


def _step_metrics(gates, taken):
  return {
    'gate': gates.step_size,
    'inner_loss_first': taken.loss[0],
    'inner_loss_last': taken.loss[-1],
    'inner_grad_norm': taken.grad_norm[0],
    'inner_update_norm': taken.update_norm.sum(),
  }


def _gates(config, params, network, inputs, terms):
  """Compute the gates under v_0; `terms` are the images' ELBO terms."""
  support_terms, images = terms, inputs.images
  if not images.are_support:
    support_terms = hypernetwork.elbo_terms(config, params, images.support.x)
  return gates_lib.compute(
    config, params, network, inputs, terms, support_terms
  )


def network_after(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  support: core.Examples,
  v: core.PyTree,
) -> target_network.Network:
  """Return the network under one v of `Trace.v`, without k-means."""
  images = select_shifted(select_images(support))
  return steps.network_under(config, params, network, images, v)


def refine_prototypes(
  config: Config,
  network: target_network.Network,
  images: inner_losses.Images,
  scale: jax.Array,
  mass: jax.Array | float,
  iterations: int,
) -> target_network.Network:
  """Return the network with prototypes after soft k-means on the images.

  Args:
    config: of the learner.
    network: under v.
    images: images to cluster.
    scale: f32[], factor of the cosines.
    mass: f32[], weight of an unlabelled image.
    iterations: number of k-means iterations, static.
  """
  y = images.support.y
  prior = jnp.sum((y >= 0).astype(jnp.float32)) / config.way
  if config.varies:
    prior = losses.class_counts(y, config.way)[:, None]
  prototypes = clustering.refine_prototypes(
    network.prototypes,
    steps.image_features(config, network, images),
    images.unlabelled,
    prior=jnp.maximum(prior, 1.0),
    mass=mass,
    scale=scale,
    iterations=iterations,
    present=network.present,
  )
  return network._replace(prototypes=prototypes)
