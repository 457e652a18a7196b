"""The label-free inner loop of `udl`: what adapts, on what loss, how far.

The adapted variable v is 'film' (an increment to scale and bias of every
norm of the CNN), 'transform' (the input canonicaliser), or both. Every loss
is computed through v, or `check` refuses the pair: an ELBO of a network that
v does not touch would be an exact no-op.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import inner
from hyperudl import losses
from hyperudl import unsupervised
from hyperudl.core import PyTree
from hyperudl.nets import canonical

CHOICES = {
  'adapt': ('film', 'transform', 'film+transform'),
  'elbo': ('none', 'features', 'images'),
  'ssl': ('none', 'geometry', 'byol'),
  'critic': ('none', 'predictions', 'predictions+elbo'),
  'gate': ('none', 'elbo'),
}
BETA = 0.25  # KL weight of the ELBO on features
LATENT = 16  # of the ELBO on features


class Options(NamedTuple):
  """Static choices; see `udl.make` for their meaning."""

  adapt: str
  steps: int
  elbo: str
  ssl: str
  critic: str
  gate: str
  rate: float
  first_order: bool


class View(NamedTuple):
  """What the loop sees of one episode."""

  weights: PyTree  # of the generated CNN: block -> kernel, scale, bias
  embed: Callable  # (weights, x) -> features f32[n, D]
  classify: Callable  # features -> logits f32[n, N]
  reconstruct: Callable  # x -> ELBO terms under the frozen vae
  moments: dict  # of ELBO terms over clean training images
  population: tuple  # (mean, log-variance) f32[L] of posterior means
  support: dict  # ELBO terms of the support and 'mask' of its labelled rows
  x: jax.Array  # f32[n, H, W, C], images of the inner loss
  mask: jax.Array  # f32[n], rows that count


def check(options):
  """Refuses unknown choices and losses that do not reach the variable.

  Raises:
    ValueError: saying what to choose instead.
  """
  for field, choices in CHOICES.items():
    value = getattr(options, field)
    if value not in choices:
      raise ValueError(f'{field} must be one of {choices}, not {value!r}')
  if options.steps < 0:
    raise ValueError(f'inner_steps must be >= 0, not {options.steps}')
  if not options.steps:
    return
  if options.elbo == 'images' and 'transform' not in options.adapt:
    raise ValueError(
      "elbo='images' has no gradient with respect to adapt='film': the "
      "frozen vae never sees the adapted network. Use elbo='features', or "
      "adapt='transform'"
    )
  on_features = (
    options.elbo == 'features'
    or options.ssl != 'none'
    or options.critic != 'none'
  )
  if not on_features and ('film' in options.adapt or options.elbo == 'none'):
    raise ValueError(
      f'no inner loss reaches adapt={options.adapt!r}: elbo='
      f"{options.elbo!r}, ssl='none', critic='none'; choose "
      "elbo='features', an ssl or a critic, or inner_steps=0"
    )


def identity(options, weights):
  """v_0, under which nothing changes: a dict of float32 zeros."""
  value = {}
  if 'film' in options.adapt:
    sizes = [b['scale'].size + b['bias'].size for b in weights.values()]
    value['film'] = jnp.zeros((sum(sizes),), jnp.float32)
  if 'transform' in options.adapt:
    value['transform'] = canonical.identity()
  return value


def film(weights, increment):
  """`weights` with the flat f32[F] added to every scale and bias."""
  new, start = {}, 0
  for name in sorted(weights):
    new[name] = dict(weights[name])
    for leaf in ('scale', 'bias'):
      stop = start + weights[name][leaf].size
      new[name][leaf] = weights[name][leaf] + increment[start:stop]
      start = stop
  return new


def through(embed, weights, value, x):
  """(features f32[n, D], images f32[n, H, W, C]) as seen through v."""
  if 'transform' in value:
    x = canonical.apply(value['transform'], x)
  if 'film' in value:
    weights = film(weights, value['film'])
  return embed(weights, x), x


def init(options, key, weights, way, features, x):
  """Parameters that the inner loop owns.

  Args:
    options: `Options`.
    key: PRNG key.
    weights: of the CNN, for shapes.
    way: N.
    features: D.
    x: f32[n, H, W, C], for shapes.
  """
  keys = jax.random.split(key, 4)
  scalar = lambda value: jnp.asarray(value, jnp.float32)
  value = identity(options, weights)
  rates = {}
  if 'film' in value:
    rates['film'] = inner.make_rates(
      value['film'], options.steps, options.rate, 'element'
    )
  if 'transform' in value:
    rates['transform'] = {
      name: jnp.full((options.steps,), options.rate * rate, jnp.float32)
      for name, rate in canonical.RATES.items()
    }
  params = {
    'rates': rates,
    'log_epsilon': jax.tree.map(lambda _: scalar(-3.0), value),
    'weights': {},
  }
  for name in ('elbo', 'ssl'):
    if getattr(options, name) != 'none':
      params['weights'][name] = scalar(0.1)
  if options.elbo == 'features':
    pixels = unsupervised.small_images(x[:1]).shape[1]
    params['elbo'] = unsupervised.init_feature_elbo(
      keys[0], features, pixels, LATENT
    )
  if options.ssl == 'byol':
    params['byol'] = unsupervised.init_byol(keys[1], features)
  if options.critic != 'none':
    inputs = way + 2 + (6 if options.critic == 'predictions+elbo' else 0)
    params['critic'] = unsupervised.init_critic(keys[2], inputs)
  if options.gate == 'elbo':
    params['gate'] = unsupervised.init_gate(keys[3])
  return params


def make_losses(options, params, view, key):
  """The inner losses of one episode, unweighted.

  Args:
    options: `Options`.
    params: from `init`.
    view: `View`.
    key: PRNG key of the ELBO's noise and of the views; fixed over the steps.

  Returns:
    v -> {name: f32[]} with the configured ones of 'elbo', 'ssl', 'critic'.
    All share one pass through the network.
  """
  noise_key, views_key = jax.random.split(key)
  noise = jax.random.normal(noise_key, (view.x.shape[0], LATENT))
  see = lambda value, x: through(view.embed, view.weights, value, x)
  # The image before v is the target: a v that blanks its output cannot cheat.
  targets = unsupervised.small_images(view.x)
  reference = view.reconstruct(view.x)['mean']
  first, second = unsupervised.views(views_key, view.x)

  def elbo(features, seen):
    if options.elbo == 'features':
      return unsupervised.feature_elbo(
        params['elbo'], features, targets, noise, BETA, view.mask
      )
    terms = view.reconstruct(seen)
    total = terms['nll'] + terms['kl']
    return losses.masked_mean(total, view.mask) / view.x[0].size

  def ssl(value, features):
    if options.ssl == 'geometry':
      return losses.geometry(features, reference, view.mask)
    pair = see(value, first)[0], see(value, second)[0]
    return unsupervised.byol(params['byol'], *pair, view.mask)

  def critic(features, seen):
    inputs = unsupervised.critic_inputs(view.classify(features), view.mask)
    if options.critic == 'predictions+elbo':
      terms = view.reconstruct(seen)
      extra = unsupervised.elbo_inputs(terms, view.support, view.moments)
      inputs = jnp.concatenate([inputs, extra], axis=-1)
    return unsupervised.critic(params['critic'], inputs, view.mask)

  def evaluate(value):
    features, seen = see(value, view.x)
    terms = {}
    if options.elbo != 'none':
      terms['elbo'] = elbo(features, seen)
    if options.ssl != 'none':
      terms['ssl'] = ssl(value, features)
    if options.critic != 'none':
      terms['critic'] = critic(features, seen)
    return terms

  return evaluate


def refine(options, params, view, key):
  """K label-free steps from the identity.

  Args:
    options: `Options` with steps >= 1.
    params: from `init`.
    view: `View`.
    key: PRNG key.

  Returns:
    (v_K, gate f32[], inner.Trace).
  """
  terms = make_losses(options, params, view, key)
  weights = params['weights']

  def loss(value, k):
    del k
    return sum(
      term * weights.get(name, 1.0) for name, term in terms(value).items()
    )

  opening = jnp.ones(())
  if options.gate == 'elbo':
    statistics = unsupervised.gate_inputs(
      view.reconstruct(view.x),
      view.support,
      view.moments,
      view.population,
      view.mask,
    )
    opening = unsupervised.gate(params['gate'], statistics)
  value, trace = inner.descend(
    loss,
    identity(options, view.weights),
    jax.tree.map(lambda rate: opening * rate, params['rates']),
    norm='unit',
    epsilon=jax.tree.map(jnp.exp, params['log_epsilon']),
    per_leaf=True,
    first_order=options.first_order,
  )
  return value, opening, trace
