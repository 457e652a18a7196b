"""Where the steps on the shift start: from where they end lowest.

Guards: learners/udl/steps.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.learners import udl
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import shift
from hyperudl.learners.udl import steps
from tests.testing import udl as helper

CONFIG = helper.tiny_config(
  adapt='shift',
  elbo='shift',
  ssl='none',
  critic='none',
  gate='none',
  inner_steps=steps.LOOK_AHEAD,
  inner_rate=1.0,
  inner_rates='fixed',
)


def test_the_start_is_the_candidate_whose_first_steps_reach_the_lowest_elbo():
  params = helper.random_params(udl.make(CONFIG))
  x = helper.episode().support.x

  def energies(params, network, support):
    """The chosen matrix, and F at each candidate and three steps after it."""
    images = inner_loop.select_images(support)
    key, gate = jax.random.key(2), jnp.float32(1)
    inputs = inner_losses.draw(images, jnp.zeros((len(x), 1)), key)
    v = fast_weights.identity(CONFIG, params, network)
    chosen = steps.initial_shift(CONFIG, params, network, inputs, v, gate)

    def energy(phi):
      terms = shift.free_energy(CONFIG, params, phi, images.x, images.mask)
      return jnp.sum(terms * images.mask)

    values = []
    for matrix in shift.CANDIDATES:
      phi = {**chosen, 'matrix': jnp.asarray(matrix)}
      after, _ = steps.descend(
        CONFIG, params, network, inputs, {'shift': phi}, gate, key
      )
      values.append([energy(phi), energy(after['shift'])])
    return chosen['matrix'], jnp.array(values)

  run = helper.on_network(CONFIG, energies, params)
  differ = 0
  for seed in range(20):
    noise = jax.random.uniform(jax.random.key(seed), x.shape)
    matrix, values = run(jnp.where(noise < 0.1 + seed / 40, 1.0, 0.0))
    before, after = np.asarray(values).T
    np.testing.assert_array_equal(matrix, shift.CANDIDATES[after.argmin()])
    differ += before.argmin() != after.argmin()
  assert differ  # else the first values would do


def test_losses_that_read_features_take_part_in_the_choice():
  config = {'adapt': 'shift', 'elbo': 'none', 'ssl': 'mixture'}
  learner = helper.tiny_udl(**config, critic='none')
  params, data = helper.random_params(learner), helper.episode()
  trained = helper.without_inner(params), params['inner']

  def loss(trained):
    base, inner = trained
    params = {**base, 'inner': inner}
    return learner.loss(params, data, jax.random.key(1), 0)[0]

  grads = jax.jit(jax.grad(loss))(trained)
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  rates = jax.tree.leaves(grads[1]['rates'])
  assert max(float(jnp.abs(leaf).max()) for leaf in rates) > 0
