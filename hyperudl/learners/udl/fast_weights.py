"""Defines the variable v of `udl` that the inner loop adapts.

v is a dict with some of the following parts; at v_0 all are zero, which leaves
the network unchanged:

* film: an increment to scale and bias of every norm of the CNN;
* weights: an increment to every weight of the CNN;
* head: an increment to the prototypes;
* shift: phi of the shift that the unlabelled images share, see `shift`;
* encoder: an increment to the posterior layer of the frozen vae;
* hyper: an increment to every parameter of the hypernetwork.

The last two change the weights or the inputs of the hypernetwork, so the CNN is
generated again at every step.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import target_network
from hyperudl.ops import gradient_descent
from hyperudl.ops import shift_transform

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config

PARTS = ('film', 'weights', 'head', 'shift', 'encoder', 'hyper')
REGENERATING = ('encoder', 'hyper')
DECAY = 0.8  # of the step sizes of 'shift', from step to step
# For each input of a loss, the parts of v that its gradient reaches.
REACH = {
  'images': ('shift', 'encoder'),
  'features': tuple(part for part in PARTS if part not in ('head', 'shift')),
  'views': tuple(part for part in PARTS if part not in ('head', 'shift')),
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
    'shift': shift_transform.identity,
    'encoder': lambda: params['frozen']['vae']['net']['posterior'],
    'hyper': lambda: hypernetwork.base_params(params)['generator'],
  }
  zeros = lambda leaf: jnp.zeros(leaf.shape, jnp.float32)
  parts = parse(config.adapt)
  return jax.tree.map(zeros, {part: like[part]() for part in parts})


def rates(config: 'Config', v: dict[str, core.PyTree]) -> core.PyTree:
  """Return the initial rates of all K steps, a pytree like `without_sign(v)`.

  There is one number per step and element for 'film' and 'shift', and one per
  step and leaf for other parts.
  """
  sizes = {}
  for part, leaves in without_sign(v).items():
    mode = 'element' if part in ('film', 'shift') else 'step'
    sizes[part] = gradient_descent.make_rates(
      leaves, config.inner_steps, config.inner_rate, mode
    )
  return sizes


def step_sizes(rates: core.PyTree) -> core.PyTree:
  """Return the step sizes of rates; they differ for 'shift' only.

  Its numbers have other units than weights, and its steps become smaller. Rates
  are trained without these factors, so that one learning rate suits them all.
  """
  if 'shift' not in rates:
    return rates
  sizes = dict(rates['shift'])
  for name, unit in shift_transform.RATES.items():
    rate = sizes[name]
    decay = DECAY ** jnp.arange(rate.shape[0], dtype=jnp.float32)
    sizes[name] = unit * decay.reshape(-1, *[1] * (rate.ndim - 1)) * rate
  count = len(sizes['gain'])
  return with_sign({**rates, 'shift': sizes}, jnp.zeros((count, 1)))


def without_sign(v: core.PyTree) -> core.PyTree:
  """Return v without `negative` of a shift, which no step changes."""
  if 'shift' not in v:
    return v
  numbers = {k: leaf for k, leaf in v['shift'].items() if k != 'negative'}
  return {**v, 'shift': numbers}


def with_sign(v: core.PyTree, value: jax.Array | float) -> core.PyTree:
  """Return v with a value for `negative`; inverts `without_sign`."""
  if 'shift' not in v:
    return v
  return {**v, 'shift': {**v['shift'], 'negative': value}}


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
      config, _add_to_params(params, v), support
    )
    if config.setting == 'clusters':  # new centroids would lose their names
      generated = generated._replace(prototypes=network.prototypes)
  weights = _add(generated.weights, v.get('weights'))
  if 'film' in v:
    weights = add_film(weights, v['film'])
  prototypes = _add(generated.prototypes, v.get('head'))
  generated = generated._replace(weights=weights, prototypes=prototypes)
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
