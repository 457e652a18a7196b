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
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import clustering
from hyperudl.ops import gradient_descent
from hyperudl.ops import shift_transform

# As v is small, steps are unrolled: the first then shares its forward pass with
# the gates and the auxiliary loss (docs/results/speed.md).
UNROLL = 4


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
  the unlabelled rows of the support, or all its rows if none is unlabelled.
  """
  others = (support.context or {}).get('inner')
  if others is not None:
    return _replacing(others, support)
  is_clean = (support.y >= 0).astype(jnp.float32)
  unlabelled = (support.y < 0).astype(jnp.float32)
  mask = jnp.where(unlabelled.any(), unlabelled, 1.0)
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
  network = network_under(config, params, network, shifted, v)
  if config.cluster:
    trace.metrics.update(gate_cluster=gates.mass, gate_scale=gates.scale)
    tau, learned = jnp.exp(network.log_scale), params['inner']['cluster']
    scale = tau * gates.scale * jnp.exp(learned['log_scale'])
    mass = gates.mass * jnp.exp(learned['log_mass'])
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
  inputs_0 = read(config, params, network, inputs, v)
  values = inner_losses.evaluate(config, inner, inputs_0)
  auxiliary = inner_losses.auxiliary(config, values)
  gates = _gates(config, params, network, inputs_0, terms)
  v, trace = inner.get('start', v), Trace({'gate': gates.step})
  if 'shift' in v and config.shift_start == 'candidates':
    phi = _initial_shift(config, params, network, inputs, v)
    v = {**v, 'shift': phi}
  if config.inner_steps:
    v, steps = descend(config, params, network, inputs, v, gates.step, key)
    trace = Trace(_step_metrics(gates, steps), steps.values, auxiliary)
  return v, gates, trace


def _initial_shift(config, params, network, inputs, v):
  """Return the phi with the smallest sum of all losses but the critic."""
  names = [name for name in inner_losses.active(config) if name != 'critic']

  def value(phi):
    v_phi = jax.lax.stop_gradient({**v, 'shift': phi})
    under_v = network_under(
      config, params, network, inputs.images, v_phi, gated=False
    )
    inputs_v = read(config, params, under_v, inputs, v_phi)
    values = inner_losses.evaluate(config, params['inner'], inputs_v)
    return sum(values[name] for name in names)

  return shift.initial_value(inputs.images, value)


def network_under(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  images: inner_losses.Images,
  v: core.PyTree,
  gated: bool = True,
) -> target_network.Network:
  """Return the network under v; `gated` is for the prototypes of a shift."""
  if config.blend and gated:
    blend = shift.blend(config, params, v['shift'], images)
    network = network._replace(blend=blend)
  network = fast_weights.apply(config, params, network, images.support, v)
  if 'shift' not in v:
    return network
  return shift.move(config, params, network, images, v['shift'], gated)


def _step_metrics(gates, steps):
  return {
    'gate': gates.step,
    'inner_loss_first': steps.loss[0],
    'inner_loss_last': steps.loss[-1],
    'inner_grad_norm': steps.grad_norm[0],
    'inner_update_norm': steps.update_norm.sum(),
  }


def _gates(config, params, network, inputs, terms):
  """Compute the gates under v_0; `terms` are the images' ELBO terms."""
  support_terms, images = terms, inputs.images
  if not images.are_support:
    support_terms = hypernetwork.elbo_terms(config, params, images.support.x)
  return gates_lib.compute(
    config, params, network, inputs, terms, support_terms
  )


def networks_after(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  support: core.Examples,
  trace: Trace,
) -> list[target_network.Network]:
  """Return the networks after each of the K steps, without k-means."""
  if trace.v is None:
    return []
  values = [
    jax.tree.map(lambda leaf: leaf[k], trace.v)
    for k in range(config.inner_steps)
  ]
  images = select_shifted(select_images(support))
  return [network_under(config, params, network, images, v) for v in values]


def image_features(
  config: Config, network: target_network.Network, images: inner_losses.Images
) -> jax.Array:
  """Return features f32[n, D] of the images, if possible the support's."""
  if images.are_support:
    return network.features
  x = target_network.clean(config, network, images.x)
  is_clean = images.is_clean
  return target_network.embed(config, network.weights, x, is_clean)[0]


def read(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  inputs: inner_losses.Inputs,
  v: core.PyTree,
) -> inner_losses.Inputs:
  """Add to the inputs what the active losses need from a network.

  Args:
    config: of the learner.
    params: of the learner.
    network: under v.
    inputs: from `inner_losses.draw`.
    v: the adapted variable.
  """
  images = inputs.images
  needs = [loss.needs for loss in inner_losses.active(config).values()]
  features = image_features(config, network, images)
  logits = target_network.similarity_logits(network, features)
  inputs = inputs._replace(features=features, logits=logits)
  if 'views' in needs:
    first, second = [
      image_features(config, network, images._replace(x=x, are_support=False))
      for x in (inputs.first_view, inputs.second_view)
    ]
    inputs = inputs._replace(first_features=first, second_features=second)
  if 'images' in needs:
    params = fast_weights.with_encoder(params, v)
    phi = v.get('shift', shift_transform.identity())
    x, mask = shift.select(config, images)
    terms = shift.elbo_terms(config, params, phi, x, mask)
    inputs = inputs._replace(elbo_terms={**terms, 'mask': mask})
  return inputs


def descend(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  inputs: inner_losses.Inputs,
  v: core.PyTree,
  gate: jax.Array,
  key: jax.Array,
) -> tuple[core.PyTree, gradient_descent.Trace]:
  """Take K >= 1 gradient steps on v, with step sizes multiplied by `gate`.

  `network` is under v_0, `inputs` are from `inner_losses.draw`; `key` is used
  only for random directions (a control).
  """
  inner, context = params['inner'], (config, params, network, inputs.images)

  def true_loss(v):
    under_v = network_under(*context, v, gated=False)
    inputs_v = read(config, params, under_v, inputs, v)
    values = inner_losses.evaluate(config, inner, inputs_v)
    return inner_losses.total(config, inner, values)

  def loss(v, k):
    if config.direction != 'random':
      return true_loss(v)
    slope = jax.grad(true_loss)(jax.lax.stop_gradient(v))
    slope = gradient_descent.random_like(jax.random.fold_in(key, k), slope)
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slope, v)))

  epsilon = 1e-8
  if config.inner_norm == 'unit':
    epsilon = jax.tree.map(jnp.exp, inner['log_epsilon'])
  rates = inner.get('rates') or fast_weights.rates(config, v)
  factor = -gate if config.direction == 'flipped' else gate
  v, trace = gradient_descent.descend(
    loss,
    v,
    jax.tree.map(lambda rate: factor * rate, fast_weights.step_sizes(rates)),
    normalization=gradient_descent.Normalization(
      config.inner_norm, epsilon=epsilon, per_leaf=True
    ),
    first_order=config.meta_grad != 'full',
    remat=False,
    unroll=UNROLL,
    keep_values=True,
  )
  if config.meta_grad == 'none':
    v, trace = jax.lax.stop_gradient((v, trace))
  return v, trace


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
  labelled = jnp.sum((images.support.y >= 0).astype(jnp.float32))
  prototypes = clustering.refine_prototypes(
    network.prototypes,
    image_features(config, network, images),
    images.unlabelled,
    prior=jnp.maximum(labelled / config.way, 1.0),
    mass=mass,
    scale=scale,
    iterations=iterations,
  )
  return network._replace(prototypes=prototypes)
