"""Gradient descent that is differentiated, by independent routes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl.ops import gradient_descent


def quadratic(target):
  return lambda value, k: 0.5 * jnp.sum(jnp.square(value['v'] - target))


def value_of(v):
  return {'v': jnp.asarray(v)}


def test_steps_on_a_quadratic_follow_the_closed_form():
  target = jnp.array([1.0, -2.0, 3.0])
  v0 = jnp.array([0.5, 0.0, -1.0])
  rates = {'v': jnp.array([0.1, 0.3, 0.2, 0.05])}
  value, trace = gradient_descent.descend(
    quadratic(target), value_of(v0), rates
  )
  shrink = np.prod(1 - np.array([0.1, 0.3, 0.2, 0.05]))
  np.testing.assert_allclose(
    value['v'], target + shrink * (v0 - target), rtol=1e-6
  )
  assert trace.loss.shape == (4,)
  np.testing.assert_allclose(
    trace.loss[0], 0.5 * np.sum((v0 - target) ** 2), rtol=1e-6
  )


def test_outer_gradient_on_a_quadratic_follows_the_closed_form():
  target = jnp.array([1.0, -2.0])
  rates = jnp.array([0.1, 0.3])

  def outer(v0, rates):
    value, _ = gradient_descent.descend(
      quadratic(target), value_of(v0), {'v': rates}
    )
    return jnp.sum(value['v'])

  v0 = jnp.array([0.5, 0.7])
  by_v0, by_rates = jax.grad(outer, (0, 1))(v0, rates)
  np.testing.assert_allclose(by_v0, np.full(2, 0.9 * 0.7), rtol=1e-6)
  gap = float(jnp.sum(v0 - target))
  np.testing.assert_allclose(by_rates, [-0.7 * gap, -0.9 * gap], rtol=1e-5)


def test_first_order_drops_the_curvature():
  target = jnp.array([1.0])

  def outer(v0, first_order):
    value, _ = gradient_descent.descend(
      quadratic(target),
      {'v': v0},
      {'v': jnp.array([0.1, 0.3])},
      first_order=first_order,
    )
    return value['v'][0]

  v0 = jnp.array([0.5])
  assert jax.grad(outer)(v0, True)[0] == pytest.approx(1.0)
  assert jax.grad(outer)(v0, False)[0] == pytest.approx(0.63)


@jax.custom_jvp
def power(x):
  """x^1.5, whose second derivative at 0 is infinite."""
  return x * jnp.sqrt(x)


power.defjvps(lambda tangent, out, x: 1.5 * jnp.sqrt(x) * tangent)


@pytest.mark.parametrize('several', [False, True])
def test_an_order_of_zero_evaluates_no_second_derivative(several):
  rates = {'v': jnp.array([0.1, 0.3])}

  def outer(v0, order):
    loss = lambda value, k: jnp.sum(power(value['v']))
    value, _ = gradient_descent.descend(loss, {'v': v0}, rates, order=order)
    return jnp.sum(value['v'])

  gradient = jax.grad(outer)
  if several:  # as in a batch of episodes
    gradient = jax.vmap(gradient, (0, None))
  v0 = jnp.zeros((2, 3))
  run = jax.jit(gradient)
  np.testing.assert_array_equal(run(v0, jnp.float32(0)), 1.0)
  assert not np.isfinite(run(v0, jnp.float32(1))).any()


@pytest.mark.parametrize('order', [0.0, 0.25, 1.0])
def test_order_is_the_fraction_of_the_curvature_that_is_kept(order):
  def outer(v0):
    value, _ = gradient_descent.descend(
      quadratic(jnp.array([1.0])),
      {'v': v0},
      {'v': jnp.array([0.1, 0.3])},
      order=jnp.float32(order),
    )
    return value['v'][0]

  expected = (1 - 0.1 * order) * (1 - 0.3 * order)
  assert jax.grad(outer)(jnp.array([0.5]))[0] == pytest.approx(expected)


@pytest.mark.parametrize('norm', gradient_descent.NORMS)
@pytest.mark.parametrize('mode', gradient_descent.RATES)
def test_outer_gradient_agrees_with_finite_differences_in_float64(norm, mode):
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(4, 4)))
    v0 = {'a': jnp.asarray(rng.normal(size=4)), 'b': jnp.asarray(0.3)}
    initial = gradient_descent.make_rates(v0, 3, 0.2, mode)
    initial = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial)

    def loss(value, k):
      bent = jnp.tanh(matrix @ value['a']) + value['b']
      return jnp.sum(jnp.square(bent)) * (1 + 0.1 * k)

    def outer(v0, rates, epsilon):
      value, _ = gradient_descent.descend(
        loss,
        v0,
        rates,
        normalization=gradient_descent.Normalization(norm, 0.5, epsilon),
      )
      return jnp.sum(jnp.sin(value['a'])) + value['b'] ** 2

    epsilon = jnp.asarray(0.1)
    args = (v0, initial, epsilon)
    grads = jax.jit(jax.grad(outer, (0, 1, 2)))(*args)
    leaves, tree = jax.tree.flatten(args)
    direction = [rng.normal(size=leaf.shape) for leaf in leaves]
    value = jax.jit(outer)
    h = 1e-6
    ends = [
      value(*tree.unflatten([x + s * d for x, d in zip(leaves, direction)]))
      for s in (h, -h)
    ]
    numeric = (ends[0] - ends[1]) / (2 * h)
    analytic = sum(
      jnp.sum(g * d) for g, d in zip(jax.tree.leaves(grads), direction)
    )
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6)


def test_unit_norm_moves_by_the_rate():
  value, trace = gradient_descent.descend(
    quadratic(jnp.array([3.0, 4.0])),
    value_of([0.0, 0.0]),
    {'v': jnp.array([0.5])},
    normalization=gradient_descent.Normalization('unit'),
  )
  np.testing.assert_allclose(value['v'], [0.3, 0.4], rtol=1e-5)
  np.testing.assert_allclose(trace.update_norm, [0.5], rtol=1e-5)
  np.testing.assert_allclose(trace.grad_norm, [5.0], rtol=1e-5)


def normalised(grads, *args, **options):
  normalization = gradient_descent.Normalization(*args, **options)
  return gradient_descent.normalise(grads, normalization)


def test_norms_can_be_taken_leaf_by_leaf():
  grads = {'a': jnp.array([3.0, 4.0]), 'b': jnp.array([12.0])}
  whole = normalised(grads, 'unit')
  np.testing.assert_allclose(whole['b'], [12 / 13], rtol=1e-6)
  leaf = normalised(grads, 'unit', per_leaf=True, epsilon={'a': 0.0, 'b': 12.0})
  np.testing.assert_allclose(leaf['a'], [0.6, 0.8], rtol=1e-6)
  np.testing.assert_allclose(leaf['b'], [0.5], rtol=1e-6)


def test_clip_leaves_short_gradients_alone():
  grads = {'a': jnp.array([3.0, 4.0])}
  long = normalised(grads, 'clip', clip=10.0)
  np.testing.assert_allclose(long['a'], [3.0, 4.0])
  short = normalised(grads, 'clip', clip=1.0)
  np.testing.assert_allclose(short['a'], [0.6, 0.8], rtol=1e-6)


def test_a_vanishing_inner_gradient_has_a_finite_outer_gradient():
  def outer(rate):
    value, _ = gradient_descent.descend(
      quadratic(jnp.zeros(2)),
      value_of([0.0, 0.0]),
      {'v': rate[None]},
      normalization=gradient_descent.Normalization('unit', epsilon=0.1),
    )
    return jnp.sum(value['v'])

  assert jnp.isfinite(jax.grad(outer)(jnp.asarray(0.3)))


def test_values_of_each_step_are_returned_on_request():
  value, trace = gradient_descent.descend(
    quadratic(jnp.array([1.0])),
    value_of([0.0]),
    {'v': jnp.array([0.5, 0.5])},
    keep_values=True,
  )
  np.testing.assert_allclose(trace.values['v'], [[0.5], [0.75]])
  np.testing.assert_allclose(value['v'], trace.values['v'][-1])


def test_negative_rates_climb():
  value, _ = gradient_descent.descend(
    quadratic(jnp.array([1.0])), value_of([0.0]), {'v': jnp.array([-0.5])}
  )
  assert value['v'][0] == pytest.approx(-0.5)


def test_unknown_choices_are_refused():
  with pytest.raises(ValueError, match='norm must be one of'):
    gradient_descent.descend(
      quadratic(0.0),
      value_of([0.0]),
      {'v': jnp.ones(1)},
      normalization=gradient_descent.Normalization('nrom'),
    )
  with pytest.raises(ValueError, match='rates must be one of'):
    gradient_descent.make_rates(value_of([0.0]), 1, 0.1, 'tensor')


def test_an_optax_optimizer_takes_its_own_steps():
  optimizer, value = optax.adam(0.1), value_of([0.5, -1.0])
  loss = quadratic(jnp.array([1.0, 2.0]))
  adapted, before = gradient_descent.optimise(loss, value, optimizer, 3)
  state, expected = optimizer.init(value), []
  for k in range(3):
    fit, grads = jax.value_and_grad(loss)(value, k)
    updates, state = optimizer.update(grads, state, value)
    value = optax.apply_updates(value, updates)
    expected.append(fit)
  np.testing.assert_allclose(adapted['v'], value['v'], rtol=1e-6)
  np.testing.assert_allclose(before, expected, rtol=1e-6)


def test_optimise_stops_the_outer_gradient_at_first_order():
  def outer(v0, first_order):
    value, _ = gradient_descent.optimise(
      quadratic(jnp.array([1.0])),
      {'v': v0},
      optax.sgd(0.1),
      2,
      first_order=first_order,
    )
    return value['v'][0]

  v0 = jnp.array([0.5])
  assert jax.grad(outer)(v0, True)[0] == pytest.approx(1.0)
  assert jax.grad(outer)(v0, False)[0] == pytest.approx(0.81)
