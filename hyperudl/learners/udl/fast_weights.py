"""Defines the variable v of `udl` that the inner loop adapts.

v is a dict with some of the following parts; at v_0 all are zero, which leaves
the network unchanged:

* film: an increment to scale and bias of every norm of the CNN;
* weights: an increment to every weight of the CNN;
* head: an increment to the prototypes;
* transform: the `input_transform` of unlabelled images and queries;
* encoder: an increment to the posterior layer of the frozen vae;
* hyper: an increment to every parameter of the hypernetwork.

The last three change the inputs or the weights of the hypernetwork, so the CNN
is generated again at every step.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import target_network
from hyperudl.ops import gradient_descent
from hyperudl.ops import input_transform

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config

PARTS = ('film', 'weights', 'head', 'transform', 'encoder', 'hyper')
REGENERATING = ('transform', 'encoder', 'hyper')
# For each input of a loss, the parts of v that its gradient reaches.
REACH = {
  'images': ('transform', 'encoder'),
  'features': tuple(part for part in PARTS if part != 'head'),
  'views': tuple(part for part in PARTS if part != 'head'),
  'predictions': PARTS,
}


def parse(adapt: str) -> tuple[str, ...]:
  """Return the parts of v: 'film+head' -> ('film', 'head').

  Raises:
    ValueError: for an unknown part or one that is named twice.
  """
  parts = tuple(adapt.split('+'))
  unknown = [part for part in parts if part not in PARTS]
  if unknown or len(set(parts)) < len(parts):
    raise ValueError(
      f'adapt must be one of {PARTS} or several joined by +, not {adapt!r}'
    )
  return parts


def identity(
  config: 'Config', params: core.PyTree, network: target_network.Network
) -> dict[str, core.PyTree]:
  """Return v_0: a dict of float32 zeros.

  Args:
    config: of the learner.
    params: of the learner; only shapes are used.
    network: to be adapted; only shapes are used.
  """
  layers = network.weights.values()
  film = sum(layer['scale'].size + layer['bias'].size for layer in layers)
  like = {
    'film': lambda: jnp.zeros((film,)),
    'weights': lambda: network.weights,
    'head': lambda: network.prototypes,
    'transform': input_transform.identity,
    'encoder': lambda: params['frozen']['vae']['net']['posterior'],
    'hyper': lambda: hypernetwork.base_params(params)['generator'],
  }
  zeros = lambda leaf: jnp.zeros(leaf.shape, jnp.float32)
  parts = parse(config.adapt)
  return jax.tree.map(zeros, {part: like[part]() for part in parts})


def rates(config: 'Config', v: dict[str, core.PyTree]) -> core.PyTree:
  """Return the initial step sizes of all K steps, a pytree like v.

  There is one number per step and element for 'film', and one per step and leaf
  for other parts.
  """
  sizes = {}
  for part, leaves in v.items():
    mode = 'element' if part == 'film' else 'step'
    sizes[part] = gradient_descent.make_rates(
      leaves, config.inner_steps, config.inner_rate, mode
    )
  if 'transform' in v:
    sizes['transform'] = {
      name: sizes['transform'][name] * unit
      for name, unit in input_transform.RATES.items()
    }
  return sizes


@target_network.trace_once
def apply(
  config: 'Config',
  params: core.PyTree,
  network: target_network.Network,
  support: core.Examples,
  v: dict[str, core.PyTree],
) -> target_network.Network:
  """Return the network under v, with its support features.

  Args:
    config: of the learner.
    params: of the learner.
    network: under v_0.
    support: from which the network was generated.
    v: the adapted variable.
  """
  generated = network
  if any(part in REGENERATING for part in v):
    generated = hypernetwork.generate(
      config,
      _add_to_params(params, v),
      transform_unlabelled(v.get('transform'), support),
    )
    if config.setting == 'clusters':  # new centroids would lose their names
      generated = generated._replace(prototypes=network.prototypes)
  weights = _add(generated.weights, v.get('weights'))
  if 'film' in v:
    weights = add_film(weights, v['film'])
  prototypes = _add(generated.prototypes, v.get('head'))
  generated = generated._replace(
    weights=weights, prototypes=prototypes, transform=v.get('transform')
  )
  return target_network.with_features(config, generated, support)


def add_film(weights: core.PyTree, increment: jax.Array) -> core.PyTree:
  """Return CNN weights after adding a flat f32[F] to all scales and biases."""
  new, start = {}, 0
  for name in sorted(weights):
    new[name] = dict(weights[name])
    for leaf in ('scale', 'bias'):
      stop = start + weights[name][leaf].size
      new[name][leaf] = weights[name][leaf] + increment[start:stop]
      start = stop
  return new


def transform_unlabelled(
  transform: core.PyTree, support: core.Examples
) -> core.Examples:
  """Return the support with its unlabelled images transformed.

  Args:
    transform: parameters of `input_transform`, or None.
    support: its rows with y = -1 and its `context['cond']` are transformed.
  """
  if transform is None:
    return support
  unlabelled = (support.y < 0)[:, None, None, None]
  changed = input_transform.apply(transform, support.x)
  context = dict(support.context or {})
  if 'cond' in context:
    context['cond'] = input_transform.apply(transform, context['cond'])
  x = jnp.where(unlabelled, changed, support.x)
  return support._replace(x=x, context=context or None)


def with_encoder(params: core.PyTree, v: dict[str, core.PyTree]) -> core.PyTree:
  """Return the learner's parameters with v added to the vae's encoder."""
  frozen = params['frozen']
  net = dict(frozen['vae']['net'])
  net['posterior'] = _add(net['posterior'], v.get('encoder'))
  return {**params, 'frozen': {**frozen, 'vae': {**frozen['vae'], 'net': net}}}


def _add_to_params(params, v):
  base = hypernetwork.base_params(params)
  generator = _add(base['generator'], v.get('hyper'))
  frozen = {'vae': with_encoder(params, v)['frozen']['vae']}
  return {**base, 'generator': generator, 'frozen': frozen}


def _add(tree, increment):
  """Add an increment to a pytree; None leaves it unchanged."""
  return tree if increment is None else jax.tree.map(jnp.add, tree, increment)
