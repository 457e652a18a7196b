"""How far and where to the label-free steps of `udl` go: gates and descent."""

import jax
from jax import flatten_util
import jax.numpy as jnp

from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates as gating
from hyperudl.learners.udl import generator
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import unsupervised
from hyperudl.ops import gradient_descent

OPEN = 0.7310586  # of a fresh gate, sigmoid(1)
STARTS = ('identity', 'learned', 'amortised', 'chosen')
POINTS = 4  # of 'chosen'
# The first of the steps sees what the gates and the auxiliary loss see too, and
# few numbers are adapted: see docs/results/speed.md.
UNROLL = 4


def step_sizes(options, params, start):
  """alpha for `inner.descend`: learned with its sign, positive, or fixed."""
  if options.rates == 'fixed':
    return fast_weights.rates(start, options.steps, options.rate)
  if options.rates == 'positive':
    return jax.tree.map(jnp.exp, params['rates'])
  return params['rates']


def gates(options, params, view, first, known):
  """Factors of the steps, of the clustering's mass, of its scale: f32[3].

  The first two are in (0, 1]; the third is 1 at first, between 0.2 and 1.7.

  Args:
    options: `Options`.
    params: from `label_free.init`.
    view: `View`.
    first: `Look` under v_0.
    known: f32[m, D], features of the support under v_0.
  """
  if options.gate == 'none':
    return jnp.ones(inner_losses.GATES)
  inputs = []
  if 'elbo' in options.gate:
    inputs.append(
      gating.elbo_gate_inputs(
        view.reconstruct(view.start, view.x),
        inner_losses.known_terms(view),
        view.moments,
        view.population,
        view.mask,
      )
    )
  if 'predictions' in options.gate:
    inputs.append(
      gating.prediction_gate_inputs(
        first.features,
        view.classify(first.features, first.head),
        known,
        view.mask,
        view.labelled,
      )
    )
  opening = gating.gate(params['gate'], jnp.concatenate(inputs))
  return opening.at[2].set(jnp.exp(2 * (opening[2] - OPEN)))


# Where the steps begin. With inner_steps=0 this is all the adaptation there is.


def init_opening(kind, key, start, latent, rate):
  """Parameters of `opening_value`.

  Args:
    kind: one of `STARTS`.
    key: PRNG key.
    start: v_0.
    latent: of the frozen vae.
    rate: how far from v_0 the points of 'chosen' begin; for the transform in
      units of `canonical.RATES`.
  """
  if kind == 'learned':
    return start
  if kind == 'amortised':
    return _init_amortised(key, start, latent)
  sizes = fast_weights.rates(start, 1, rate)
  flat, unravel = flatten_util.ravel_pytree(start)
  random = jax.random.normal(key, (POINTS - 1, flat.size))
  points = jax.vmap(unravel)(random)
  # The first point is v_0 itself, so that nothing has to be given up.
  points = jax.tree.map(
    lambda zero, size, leaf: jnp.concatenate([zero[None], size[0] * leaf]),
    start,
    sizes,
    points,
  )
  return {'points': points, 'log_sharpness': jnp.zeros((), jnp.float32)}


def opening_value(kind, options, params, view, key):
  """v before the first step, from parameters of `init_opening`.

  'chosen' is the mean of the points, each weighted by the softmax of minus
  its inner loss in units of their standard deviation, times a learned
  sharpness: restarts, chosen by label-free losses, through which gradients
  flow.
  """
  if kind == 'identity':
    return view.start
  own = params['start']
  if kind == 'learned':
    return own
  if kind == 'amortised':
    return _amortised(own, view)
  found = jax.lax.map(total_loss(options, params, view, key), own['points'])
  found = (found - found.mean()) / (found.std() + 1e-6)
  shares = jax.nn.softmax(-jnp.exp(own['log_sharpness']) * found)
  return jax.tree.map(
    lambda leaf: jnp.tensordot(shares, leaf, axes=1), own['points']
  )


def _init_amortised(key, start, latent, hidden=32):
  """A perceptron from posterior moments of both sets to v; zero at first."""
  first, last = jax.random.split(key)
  size = sum(leaf.size for leaf in jax.tree.leaves(start))
  inputs = 2 * (3 * latent + 1)
  return (
    unsupervised.dense(first, inputs, hidden),
    unsupervised.dense(last, hidden, size, 0.0),
  )


def distributions(view):
  """Posterior moments of the images of the loop and of the labelled ones.

  f32[2 (3 L + 1)], twice what `generator.distribution` gives.
  """
  stats = []
  for x, mask in ((view.x, view.mask), (view.support, view.labelled)):
    terms = view.reconstruct(view.start, x)
    stats.append(
      generator.distribution(terms['mean'], terms['log_variance'], mask)
    )
  return jnp.concatenate(stats)


def _amortised(params, view):
  hidden = unsupervised.apply_dense(params[0], distributions(view))
  flat = unsupervised.apply_dense(params[1], jax.nn.silu(hidden))
  return flatten_util.ravel_pytree(view.start)[1](flat)


def total_loss(options, params, view, key):
  """v -> f32[], the weighted sum of the inner losses."""
  terms = inner_losses.make_losses(options, params, view, key)
  constant = dict.fromkeys(inner_losses.weighted(options), options.weight)
  weights = params.get('weights', constant)
  return lambda value: sum(
    term * weights.get(name, 1.0) for name, term in terms(value).items()
  )


def refine(options, params, view, start, opening, key):
  """K label-free steps.

  Args:
    options: `Options` with steps >= 1.
    params: from `init`.
    view: `View`.
    start: v before the first step.
    opening: f32[], factor of all step sizes.
    key: PRNG key.

  Returns:
    (v_K, inner.Trace with v after each step).
  """
  true_loss = total_loss(options, params, view, key)

  def loss(value, k):
    if options.direction != 'random':
      return true_loss(value)
    here = jax.lax.stop_gradient(value)
    slope = _turned(jax.random.fold_in(key, k), jax.grad(true_loss)(here))
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slope, value)))

  epsilon = 1e-8
  if options.norm == 'unit':
    epsilon = jax.tree.map(jnp.exp, params['log_epsilon'])
  rates = step_sizes(options, params, view.start)
  factor = -opening if options.direction == 'flipped' else opening
  value, trace = gradient_descent.descend(
    loss,
    start,
    jax.tree.map(lambda rate: factor * rate, rates),
    norm=options.norm,
    epsilon=epsilon,
    per_leaf=True,
    first_order=options.meta_grad != 'full',
    remat=False,
    unroll=UNROLL,
    keep_values=True,
  )
  if options.meta_grad == 'none':
    value, trace = jax.lax.stop_gradient((value, trace))
  return value, trace


def _turned(key, grads):
  """Gradients of random directions and the same norms, leaf by leaf."""
  leaves, structure = jax.tree.flatten(jax.lax.stop_gradient(grads))
  turned = []
  for k, leaf in zip(jax.random.split(key, len(leaves)), leaves):
    random = jax.random.normal(k, leaf.shape)
    size = jnp.linalg.norm(leaf) / jnp.linalg.norm(random)
    turned.append(size * random)
  return jax.tree.unflatten(structure, turned)
