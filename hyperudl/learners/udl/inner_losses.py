"""The label-free inner loop of `udl`: on what loss v moves, and how far.

Every loss is computed through the adapted variable v (`variables.py`), or
`check` refuses the pair: an ELBO of a network that v does not touch would be
an exact no-op.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates
from hyperudl.learners.udl import unsupervised
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

CHOICES = {
  'elbo': ('none', 'features', 'images'),
  'critic': ('none', 'predictions', 'predictions+elbo'),
  'gate': ('none', 'elbo', 'predictions', 'predictions+elbo'),
  'rates': ('learned', 'positive', 'fixed'),
  'norm': gradient_descent.NORMS,
  'meta_grad': ('full', 'first_order', 'none'),
  'direction': ('learned', 'flipped', 'random'),
}
# What a self-supervised loss is computed on.
SSL = {
  'geometry': 'features',
  'byol': 'features',
  'infonce': 'features',
  'displacement': 'features',
  'entropy': 'predictions',
  'certainty': 'predictions',
}
BETA = 0.25  # KL weight of the ELBO on features
LATENT = 16  # of the ELBO on features
GATES = 3  # of the steps, of the clustering and of its sharpness


class Options(NamedTuple):
  """Static choices; see `udl.make` for their meaning."""

  adapt: str
  steps: int
  elbo: str
  ssl: str
  critic: str
  gate: str
  rate: float
  rates: str
  weight: float
  norm: str
  meta_grad: str
  direction: str


class View(NamedTuple):
  """What the loop sees of one episode."""

  start: dict  # v_0
  write: Callable  # v -> (CNN weights, head f32[N, D])
  embed: Callable  # (weights, x) -> features f32[n, D], rows as in `x`
  embed_support: Callable  # weights -> features f32[m, D] of `support`
  classify: Callable  # (features, head) -> logits f32[n, N]
  reconstruct: Callable  # (v, x) -> ELBO terms under the frozen vae
  moments: dict  # of ELBO terms over clean training images
  population: tuple  # (mean, log-variance) f32[L] of posterior means
  support: jax.Array  # f32[m, H, W, C], rows of the support
  labelled: jax.Array  # f32[m], which of them are labelled
  x: jax.Array  # f32[n, H, W, C], images of the inner loss
  mask: jax.Array  # f32[n], rows of x that count in the losses
  unlabelled: jax.Array  # f32[n], rows of x that are in no prototype


class Look(NamedTuple):
  """The network of one v, and what it makes of the images of a `View`."""

  weights: dict  # of the CNN
  head: jax.Array  # f32[N, D]
  images: jax.Array  # f32[n, H, W, C], as v shows them
  features: jax.Array  # f32[n, D]


def look(view, value):
  """`Look` under v, by a pass through the network."""
  weights, head = view.write(value)
  images = fast_weights.see(value, view.x)
  return Look(weights, head, images, view.embed(weights, images))


def ssl_names(options):
  """'geometry+byol' -> ('geometry', 'byol'); 'none' -> ()."""
  return () if options.ssl == 'none' else tuple(options.ssl.split('+'))


def weighted(options):
  """Names of the inner losses that have a weight: all but the critic."""
  return (*ssl_names(options), *(('elbo',) if options.elbo != 'none' else ()))


def check(options):
  """Refuses unknown choices and losses that do not reach the variable.

  Raises:
    ValueError: saying what to choose instead.
  """
  parts = fast_weights.parse(options.adapt)
  for field, choices in CHOICES.items():
    value = getattr(options, field)
    if value not in choices:
      raise ValueError(f'{field} must be one of {choices}, not {value!r}')
  names = ssl_names(options)
  if any(n not in SSL for n in names) or len(set(names)) < len(names):
    raise ValueError(
      f"ssl must be 'none', one of {tuple(SSL)} or several joined by +, not "
      f'{options.ssl!r}'
    )
  if options.steps < 0:
    raise ValueError(f'inner_steps must be >= 0, not {options.steps}')
  if options.steps:
    _check_reach(options, parts)


def _check_reach(options, parts):
  losses_on = {SSL[name] for name in ssl_names(options)}
  losses_on |= {options.elbo} - {'none'}
  losses_on |= {'predictions'} if options.critic != 'none' else set()
  if options.elbo == 'images' and not set(parts) & set(
    fast_weights.REACH['images']
  ):
    raise ValueError(
      f"elbo='images' has no gradient with respect to adapt="
      f'{options.adapt!r}: the frozen vae never sees the adapted network. Use '
      "elbo='features', or adapt='transform' or 'encoder'"
    )
  for part in parts:
    if not any(part in fast_weights.REACH[on] for on in losses_on):
      raise ValueError(
        f'no inner loss reaches adapt={part!r}: elbo={options.elbo!r}, '
        f'ssl={options.ssl!r}, critic={options.critic!r}; choose '
        "elbo='features', another ssl or a critic, or inner_steps=0"
      )


def init(options, key, start, way, features, x):
  """Parameters that the inner loop owns.

  Args:
    options: `Options`.
    key: PRNG key.
    start: v_0.
    way: N.
    features: D.
    x: f32[n, H, W, C], for shapes.
  """
  names = ('elbo', 'critic', 'gate', *SSL)
  keys = dict(zip(names, jax.random.split(key, len(names))))
  scalar = lambda value: jnp.asarray(value, jnp.float32)
  params = {}
  if options.steps:
    params.update(_init_steps(options, start, scalar))
  if options.elbo == 'features':
    pixels = unsupervised.small_images(x[:1]).shape[1]
    params['elbo'] = unsupervised.init_feature_elbo(
      keys['elbo'], features, pixels, LATENT
    )
  for name, make in (
    ('byol', unsupervised.init_byol),
    ('infonce', unsupervised.init_projector),
    ('displacement', unsupervised.init_displacement),
  ):
    if name in ssl_names(options):
      params[name] = make(keys[name], features)
  if options.critic != 'none':
    inputs = way + 2 + (6 if options.critic == 'predictions+elbo' else 0)
    params['critic'] = gates.init_critic(keys['critic'], inputs)
  if options.gate != 'none':
    inputs = gates.PREDICTION_INPUTS * ('predictions' in options.gate)
    inputs += gates.ELBO_INPUTS * ('elbo' in options.gate)
    params['gate'] = gates.init_gate(keys['gate'], inputs, GATES)
  return params


def _init_steps(options, start, scalar):
  params = {}
  if options.norm == 'unit':
    params['log_epsilon'] = jax.tree.map(lambda _: scalar(-3.0), start)
  if options.rates != 'fixed':
    rates = fast_weights.rates(start, options.steps, options.rate)
    if options.rates == 'positive':
      rates = jax.tree.map(jnp.log, rates)
    params['rates'] = rates
    params['weights'] = {
      name: scalar(options.weight) for name in weighted(options)
    }
  return params


def known_terms(view):
  """ELBO terms of the rows of the support; 'mask' says which are labelled."""
  terms = view.reconstruct(view.start, view.support)
  return {**terms, 'mask': view.labelled}


def make_losses(options, params, view, key):
  """The inner losses of one episode, unweighted.

  Args:
    options: `Options`.
    params: from `init`.
    view: `View`.
    key: PRNG key of the ELBO's noise and of the views; fixed over the steps.

  Returns:
    (v, `Look` under this v or None) -> {name: f32[]} with the configured ones
    of 'elbo', the names in `SSL`, and 'critic'. All share one pass through the
    network.
  """
  noise_key, views_key = jax.random.split(key)
  elbo = _make_elbo(options, params, view, noise_key)
  of_views = _make_of_views(options, params, view, views_key)
  names = ssl_names(options)
  reference = view.reconstruct(view.start, view.x)['mean']

  def evaluate(value, seen=None):
    weights, head, images, features = seen or look(view, value)
    logits = view.classify(features, head)
    terms = of_views(value, weights)
    if options.elbo != 'none':
      terms['elbo'] = elbo(value, features, images)
    if 'geometry' in names:
      terms['geometry'] = losses.geometry(features, reference, view.mask)
    if 'entropy' in names:
      terms['entropy'] = unsupervised.balanced_entropy(logits, view.mask)
    if 'certainty' in names:
      terms['certainty'] = unsupervised.mean_entropy(logits, view.mask)
    if options.critic != 'none':
      terms['critic'] = _critic(options, params, view, value, logits, images)
    return terms

  return evaluate


def _make_elbo(options, params, view, key):
  """(v, features, images that v shows) -> f32[], nats a pixel."""
  noise = jax.random.normal(key, (view.x.shape[0], LATENT))
  # The image before v is the target: a v that blanks its output cannot cheat.
  targets = unsupervised.small_images(view.x)

  def elbo(value, features, seen):
    if options.elbo == 'features':
      return unsupervised.feature_elbo(
        params['elbo'], features, targets, noise, BETA, view.mask
      )
    terms = view.reconstruct(value, seen)
    total = terms['nll'] + terms['kl']
    return losses.masked_mean(total, view.mask) / math.prod(view.x.shape[1:])

  return elbo


def _make_of_views(options, params, view, key):
  """(v, CNN weights) -> the losses on two views of every image."""
  names = ssl_names(options)
  if not {'byol', 'infonce', 'displacement'} & set(names):
    return lambda value, weights: {}
  first, second, moved = unsupervised.views(key, view.x)

  def of_views(value, weights):
    see = lambda x: view.embed(weights, fast_weights.see(value, x))
    pair = see(first), see(second)
    terms = {}
    for name in {'byol', 'infonce'} & set(names):
      terms[name] = getattr(unsupervised, name)(params[name], *pair, view.mask)
    if 'displacement' in names:
      terms['displacement'] = unsupervised.displacement(
        params['displacement'], *pair, moved, view.mask
      )
    return terms

  return of_views


def _critic(options, params, view, value, logits, seen):
  inputs = gates.critic_inputs(logits, view.mask)
  if options.critic == 'predictions+elbo':
    terms = view.reconstruct(value, seen)
    extra = gates.elbo_inputs(terms, known_terms(view), view.moments)
    inputs = jnp.concatenate([inputs, extra], axis=-1)
  return gates.critic(params['critic'], inputs, view.mask)
