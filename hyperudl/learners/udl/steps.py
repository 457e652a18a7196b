"""Takes the gradient steps of the inner loop of `udl` on its losses."""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import shift
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config
from hyperudl.ops import gradient_descent
from hyperudl.ops import shift_transform

LOOK_AHEAD = 3  # steps from each candidate for phi before one is chosen


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


def image_features(
  config: Config, network: target_network.Network, images: inner_losses.Images
) -> jax.Array:
  """Return features f32[n, D] of the images, if possible the support's."""
  if images.are_support:
    return network.features
  x = target_network.clean(config, network, images.x)
  is_clean = images.is_clean
  is_counted = is_clean + images.unlabelled if config.varies else None
  weights = network.weights
  return target_network.embed(config, weights, x, is_clean, is_counted)[0]


def read(
  config: Config,
  params: core.PyTree,
  network: target_network.Network | None,
  inputs: inner_losses.Inputs,
  v: core.PyTree,
) -> inner_losses.Inputs:
  """Add to the inputs what the active losses need from a network.

  Args:
    config: of the learner.
    params: of the learner.
    network: under v; None if no loss needs features or predictions.
    inputs: from `inner_losses.draw`.
    v: the adapted variable.
  """
  images, needs = inputs.images, _needs(config)
  if network is not None:
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


def _needs(config):
  return {loss.needs for loss in inner_losses.active(config).values()}


def initial_shift(
  config: Config,
  params: core.PyTree,
  network: target_network.Network,
  inputs: inner_losses.Inputs,
  v: core.PyTree,
  gate: jax.Array,
) -> core.PyTree:
  """Return the phi from which the first steps reach the smallest loss.

  The loss is the sum of all losses but the critic. A candidate itself may be
  better than another one and yet end at a worse place.
  """
  # Of all that the candidates share: else the whole search is differentiated.
  params, network, v, gate = jax.lax.stop_gradient((params, network, v, gate))
  names = [name for name in inner_losses.active(config) if name != 'critic']

  def value(phi):
    after = {**v, 'shift': phi}
    if config.inner_steps:
      sizes = jax.tree.map(
        lambda size: gate * size[:LOOK_AHEAD], _step_sizes(config, params, v)
      )
      loss = _loss(config, params, network, inputs)
      after = _take(config, params, loss, after, sizes, first_order=True)[0]
    values = _values(config, params, network, inputs, after)
    return sum(values[name] for name in names)

  return shift.initial_value(inputs.images, value)


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
  true_loss = _loss(config, params, network, inputs)

  def loss(v, k):
    if config.direction != 'random':
      return true_loss(v, k)
    slope = jax.grad(true_loss)(jax.lax.stop_gradient(v), k)
    slope = gradient_descent.random_like(jax.random.fold_in(key, k), slope)
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slope, v)))

  factor = -gate if config.direction == 'flipped' else gate
  sizes = _step_sizes(config, params, v)
  sizes = jax.tree.map(lambda size: factor * size, sizes)
  first_order = config.meta_grad != 'full'
  v, trace = _take(config, params, loss, v, sizes, first_order)
  if config.meta_grad == 'none':
    v, trace = jax.lax.stop_gradient((v, trace))
  return v, trace


def _step_sizes(config, params, v):
  rates = params['inner'].get('rates') or fast_weights.rates(config, v)
  return fast_weights.step_sizes(rates)


def _values(config, params, network, inputs, v):
  """Return the inner losses under v."""
  under_v = None
  if _needs(config) != {'images'}:
    under_v = network_under(
      config, params, network, inputs.images, v, gated=False
    )
  inputs_v = read(config, params, under_v, inputs, v)
  return inner_losses.evaluate(config, params['inner'], inputs_v)


def _loss(config, params, network, inputs):
  """Return the loss of the steps, a function of v and of the step."""

  def loss(v, k):
    del k
    values = _values(config, params, network, inputs, v)
    return inner_losses.total(config, params['inner'], values)

  return loss


def _take(config, params, loss, v, sizes, first_order):
  """Take steps of the given sizes, a pytree of [steps, ...]."""
  epsilon = 1e-8
  if config.inner_norm == 'unit':
    epsilon = jax.tree.map(jnp.exp, params['inner']['log_epsilon'])
    epsilon = fast_weights.with_sign(epsilon, 1.0)
  return gradient_descent.descend(
    loss,
    v,
    sizes,
    normalization=gradient_descent.Normalization(
      config.inner_norm, epsilon=epsilon, per_leaf=True
    ),
    first_order=first_order,
    keep_values=True,
  )
