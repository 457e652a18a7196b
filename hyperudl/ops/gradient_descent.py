"""Runs differentiable gradient descent, the inner loop of every learner.

It is one `lax.scan` over steps, through which the outer gradient flows (Finn et
al. 2017, arXiv:1703.03400, eq. 1). Rates are arrays, one number per step and
leaf (LSLR, Antoniou et al. 2019, arXiv:1810.09502) or per step and element
(Meta-SGD, Li et al. 2017, arXiv:1707.09835), so the outer loop can learn them,
including their signs.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperudl.core.types import PyTree

NORMS = ('none', 'clip', 'unit')
RATES = ('step', 'leaf', 'element')


class Trace(NamedTuple):
  """Measurements of each of the K inner steps."""

  loss: jax.Array  # f32[K], before the step
  grad_norm: jax.Array  # f32[K], of the raw gradient
  update_norm: jax.Array  # f32[K], of the update that was subtracted
  values: PyTree  # leaves f32[K, ...] after each step, or None


def make_rates(value: PyTree, steps: int, initial: float, mode: str) -> PyTree:
  """Return initial step sizes for `descend`.

  Args:
    value: pytree that will be adapted.
    steps: K >= 1.
    initial: initial size of every step.
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


class Normalization(NamedTuple):
  """How gradients are rescaled before they are multiplied by the rates."""

  norm: str = 'none'  # 'clip': norm at most `clip`; 'unit': g / (|g| + epsilon)
  clip: float = 1.0
  # f32[] or, with `per_leaf`, a pytree of f32[]. If it is learned, flat inner
  # losses can make short steps.
  epsilon: PyTree = 1e-8
  per_leaf: bool = False  # use the norm of each leaf, not of the whole tree


NOT_NORMALISED = Normalization()


def normalise(grads: PyTree, normalization: Normalization) -> PyTree:
  """Rescale gradients by their norm.

  Raises:
    ValueError: for an unknown norm.
  """
  norm, clip, epsilon, per_leaf = normalization
  if norm not in NORMS:
    raise ValueError(f'norm must be one of {NORMS}, not {norm!r}')
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
  epsilon = jax.tree.broadcast(epsilon, grads)
  return jax.tree.map(lambda g, n, e: g / (n + e), grads, norms, epsilon)


def descend(
  loss: Callable[[PyTree, jax.Array], jax.Array],
  value: PyTree,
  rates: PyTree,
  *,
  normalization: Normalization = NOT_NORMALISED,
  first_order: bool = False,
  order: jax.Array | None = None,
  keep_values: bool = False,
) -> tuple[PyTree, Trace]:
  """Take K gradient steps value <- value - rate_k * normalised gradient.

  Args:
    loss: (value, k i32[]) -> f32[]; closes over the images and parameters.
    value: pytree of arrays to adapt.
    rates: pytree like `value`, leaves [K] or [K, *leaf.shape].
    normalization: how to rescale the gradients.
    first_order: stop the outer gradient at the inner gradients (FOMAML).
    order: None, or f32[], the fraction of the outer gradient that goes through
      the inner gradients: 1 is second order, 0 is first order and evaluates no
      second derivatives.
    keep_values: also return the value after each step (multi-step losses).

  Returns:
    (adapted value, Trace).
  """
  run = functools.partial(_scan, loss, value, rates, normalization, keep_values)
  if first_order:
    return run(jax.lax.stop_gradient)
  if order is None:
    return run(lambda grads: grads)
  # Around the whole loop: a factor of 0 would leave infinite derivatives NaN.
  return jax.lax.cond(
    order > 0,
    lambda: run(functools.partial(_at_order, order)),
    lambda: run(jax.lax.stop_gradient),
  )


def _scan(loss, value, rates, normalization, keep_values, limit):
  """Run the steps of `descend`; `limit` is what outer gradients see."""

  def step(current, inputs):
    k, rate = inputs
    loss_value, grads = jax.value_and_grad(loss)(current, k)
    grads = limit(grads)
    direction = normalise(grads, normalization)
    update = jax.tree.map(lambda r, d: _expand(r, d) * d, rate, direction)
    new = jax.tree.map(lambda v, u: v - u, current, update)
    trace = Trace(
      loss_value,
      optax.tree.norm(jax.lax.stop_gradient(grads)),
      optax.tree.norm(jax.lax.stop_gradient(update)),
      new if keep_values else None,
    )
    return new, trace

  inputs = jnp.arange(jax.tree.leaves(rates)[0].shape[0]), rates
  return jax.lax.scan(_recomputed(step), value, inputs)


def optimise(
  loss: Callable[[PyTree, jax.Array], jax.Array],
  value: PyTree,
  optimizer: optax.GradientTransformation,
  steps: int,
  *,
  first_order: bool = False,
) -> tuple[PyTree, jax.Array]:
  """Take `steps` updates of an optax optimizer; differentiable.

  Args:
    loss: (value, k i32[]) -> f32[].
    value: pytree of arrays to adapt.
    optimizer: an optax optimizer.
    steps: K >= 0.
    first_order: stop the outer gradient at the inner gradients.

  Returns:
    (adapted value, f32[K], the loss before each step).
  """

  def body(carry, k):
    current, state = carry
    loss_value, grads = jax.value_and_grad(loss)(current, k)
    if first_order:
      grads = jax.lax.stop_gradient(grads)
    updates, state = optimizer.update(grads, state, current)
    return (optax.apply_updates(current, updates), state), loss_value

  carry = value, optimizer.init(value)
  (value, _), losses = jax.lax.scan(_recomputed(body), carry, jnp.arange(steps))
  return value, losses


def random_like(key: jax.Array, grads: PyTree) -> PyTree:
  """Draw a random direction for each leaf of a gradient, with its norm."""
  leaves, structure = jax.tree.flatten(jax.lax.stop_gradient(grads))
  directions = []
  for k, leaf in zip(jax.random.split(key, len(leaves)), leaves):
    random = jax.random.normal(k, leaf.shape)
    size = jnp.linalg.norm(leaf) / jnp.linalg.norm(random)
    directions.append(size * random)
  return jax.tree.unflatten(structure, directions)


def _at_order(order, grads):
  """Let the fraction `order` of the outer gradient through `grads`."""
  fixed = jax.lax.stop_gradient(grads)
  return jax.tree.map(lambda g, f: f + order * (g - f), grads, fixed)


def _recomputed(body):
  """Return a step of a scan that the backward pass computes again.

  On a CPU that needs 35% less memory for 5% more time in MAML. Inside a scan
  common subexpressions cannot be merged over iterations.
  """
  return jax.checkpoint(body, prevent_cse=False)


def _expand(rate, leaf):
  """Return a rate f32[] or f32[leaf.shape], broadcastable to `leaf`."""
  return rate if rate.ndim == leaf.ndim else rate.reshape((1,) * leaf.ndim)


def _norm(tree):
  # The gradient of a square root at zero is infinite; the floor keeps the
  # outer gradient finite where an inner gradient vanishes exactly.
  squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
  return jnp.sqrt(sum(squares) + 1e-20)
