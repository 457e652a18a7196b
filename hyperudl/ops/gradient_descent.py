"""Differentiable gradient descent: the inner loop of every learner.

One `lax.scan` over steps; the outer gradient flows through it (Finn et al.
2017, arXiv:1703.03400, eq. 1). Rates are data: one per step and leaf (LSLR,
Antoniou et al. 2019, arXiv:1810.09502) or per step and element (Meta-SGD,
Li et al. 2017, arXiv:1707.09835), so the outer loop can learn them, sign
included.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

NORMS = ('none', 'clip', 'unit')
RATES = ('step', 'leaf', 'element')


class Trace(NamedTuple):
  """What happened at each of the K inner steps (before the step)."""

  loss: jax.Array  # f32[K]
  grad_norm: jax.Array  # f32[K], of the raw gradient
  update_norm: jax.Array  # f32[K], of what was subtracted
  values: Any  # leaves f32[K, ...] after each step, or None


def make_rates(value, steps, initial, mode):
  """Initial step sizes for `descend`.

  Args:
    value: the pytree that will be adapted.
    steps: K >= 1.
    initial: f32, the size of every step at first.
    mode: 'step' or 'leaf': a number per step and leaf, [K]; 'element': a
      number per step and element, [K, *leaf.shape].

  Returns:
    A pytree like `value` with leaves of strongly typed float32.

  Raises:
    ValueError: for an unknown mode.
  """
  if mode not in RATES:
    raise ValueError(f'rates must be one of {RATES}, not {mode!r}')
  shape = lambda leaf: (steps, *leaf.shape) if mode == 'element' else (steps,)
  return jax.tree.map(
    lambda leaf: jnp.full(shape(leaf), initial, jnp.float32), value
  )


def _expand(rate, leaf):
  """A rate f32[] or f32[leaf.shape] in a shape that broadcasts to `leaf`."""
  return rate if rate.ndim == leaf.ndim else rate.reshape((1,) * leaf.ndim)


def _norm(tree):
  # The gradient of a square root at zero is infinite; the floor keeps the
  # outer gradient finite where an inner gradient vanishes exactly.
  squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
  return jnp.sqrt(sum(squares) + 1e-20)


def normalise(grads, norm, *, clip=1.0, epsilon=1e-8, per_leaf=False):
  """Gradients rescaled by their norm.

  Args:
    grads: pytree.
    norm: 'none'; 'clip' (norm at most `clip`); 'unit' (g / (|g| + epsilon)).
    clip: f32, for 'clip'.
    epsilon: f32[] or, with `per_leaf`, a pytree of f32[]; for 'unit'. A
      learned epsilon lets flat inner losses make short steps.
    per_leaf: the norm of each leaf (True) or of the whole tree.
  """
  if norm == 'none':
    return grads
  if per_leaf:
    norms = jax.tree.map(_norm, grads)
  else:
    whole = _norm(grads)
    norms = jax.tree.map(lambda _: whole, grads)
  if norm == 'clip':
    return jax.tree.map(
      lambda g, n: g * jnp.minimum(1.0, clip / n), grads, norms
    )
  if jax.tree.structure(epsilon) != jax.tree.structure(grads):
    epsilon = jax.tree.map(lambda _: epsilon, grads)
  return jax.tree.map(lambda g, n, e: g / (n + e), grads, norms, epsilon)


def descend(
  loss,
  value,
  rates,
  *,
  norm='none',
  clip=1.0,
  epsilon=1e-8,
  per_leaf=False,
  first_order=False,
  order=None,
  remat=True,
  unroll=1,
  keep_values=False,
):
  """K gradient steps value <- value - rate_k * normalised gradient.

  Args:
    loss: (value, k i32[]) -> f32[]; closes over the images and parameters.
    value: pytree of arrays to adapt.
    rates: pytree like `value`, leaves [K] or [K, *leaf.shape]; K is the
      number of steps.
    norm, clip, epsilon, per_leaf: see `normalise`.
    first_order: stop the outer gradient at the inner gradients (FOMAML).
    order: None, or f32[], the share of the outer gradient that goes through the
      inner gradients: 0 is first and 1 second order (a schedule from one to
      the other; both cost what second order costs).
    remat: recompute each step in the backward pass; on a CPU it costs MAML at
      most 5% of the time and saves it 35% of the memory (`udl`, whose steps
      move few numbers, 20 to 30% of the time).
    unroll: steps that are written out one after another in a program: in place
      of a loop's, their common subexpressions can be merged with what is
      around them, at the cost of compiling each.
    keep_values: also return the value after each step (multi-step losses).

  Returns:
    (adapted value, Trace).

  Raises:
    ValueError: for an unknown `norm`.
  """
  if norm not in NORMS:
    raise ValueError(f'norm must be one of {NORMS}, not {norm!r}')

  def body(current, inputs):
    k, rate = inputs
    loss_value, grads = jax.value_and_grad(loss)(current, k)
    if first_order:
      grads = jax.lax.stop_gradient(grads)
    elif order is not None:
      still = jax.lax.stop_gradient(grads)
      grads = jax.tree.map(lambda g, s: s + order * (g - s), grads, still)
    direction = normalise(
      grads, norm, clip=clip, epsilon=epsilon, per_leaf=per_leaf
    )
    update = jax.tree.map(lambda r, d: _expand(r, d) * d, rate, direction)
    new = jax.tree.map(lambda v, u: v - u, current, update)
    trace = Trace(
      loss_value,
      optax.tree.norm(jax.lax.stop_gradient(grads)),
      optax.tree.norm(jax.lax.stop_gradient(update)),
      new if keep_values else None,
    )
    return new, trace

  steps = jax.tree.leaves(rates)[0].shape[0]
  if remat:
    # Inside a scan common subexpressions cannot be merged over iterations.
    body = jax.checkpoint(body, prevent_cse=False)
  inputs = jnp.arange(steps), rates
  return jax.lax.scan(body, value, inputs, unroll=unroll)


def optimise(loss, value, optimizer, steps, *, first_order=False, remat=True):
  """`steps` updates of any optax optimizer; differentiable like `descend`.

  Args:
    loss: (value, k i32[]) -> f32[].
    value: pytree of arrays to adapt.
    optimizer: an `optax.GradientTransformation`.
    steps: K >= 0.
    first_order: stop the outer gradient at the inner gradients.
    remat: recompute each step in the backward pass.

  Returns:
    (adapted value, f32[K] the losses before each step).
  """

  def body(carry, k):
    current, state = carry
    loss_value, grads = jax.value_and_grad(loss)(current, k)
    if first_order:
      grads = jax.lax.stop_gradient(grads)
    updates, state = optimizer.update(grads, state, current)
    return (optax.apply_updates(current, updates), state), loss_value

  if remat:
    body = jax.checkpoint(body, prevent_cse=False)
  carry = value, optimizer.init(value)
  (value, _), losses = jax.lax.scan(body, carry, jnp.arange(steps))
  return value, losses
