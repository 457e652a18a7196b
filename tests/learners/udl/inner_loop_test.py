"""The inner loop: its images, its steps, and passes that are computed once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.benchmark import flops
from hyperudl.learners import udl
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from hyperudl.learners.udl import target_network
from tests.testing import udl as helper


def loss_and_params(learner):
  data = helper.episode()
  hidden = {'unlabelled_y': data.query.y[: (data.support.y < 0).sum()]}
  data = data._replace(extra=hidden)
  params = helper.random_params(learner)
  trained = {k: v for k, v in params.items() if k != 'frozen'}

  def loss(trained):
    return learner.loss({**params, **trained}, data, jax.random.key(2), 0)[0]

  return loss, trained


def use_separate_passes(monkeypatch):
  select = inner_loop.select_images
  monkeypatch.setattr(
    inner_loop,
    'select_images',
    lambda support: select(support)._replace(are_support=False),
  )


@pytest.mark.parametrize(
  'changes',
  [
    pytest.param(
      {'norm': 'domain', 'ssl': 'geometry+byol'}, marks=pytest.mark.slow
    ),
    pytest.param(
      {'norm': 'layer', 'adapt': 'hyper', 'gate': 'predictions'},
      marks=pytest.mark.slow,
    ),
    pytest.param(
      {'norm': 'domain', 'setting': 'clusters', 'cluster': 2},
      marks=pytest.mark.slow,
    ),
  ],
)
def test_the_loss_is_that_of_separate_passes(changes, monkeypatch):
  learner = helper.tiny_udl(**changes)
  loss, trained = loss_and_params(learner)
  value, gradients = jax.jit(jax.value_and_grad(loss))(trained)
  use_separate_passes(monkeypatch)
  separate = jax.jit(jax.value_and_grad(lambda trained: loss(trained)))
  expected, expected_gradients = separate(trained)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (gradients, expected_gradients))):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_support_features_are_computed_once_per_update(monkeypatch):
  """Counted before XLA merges equal passes, whose gradients it does not.

  A pass under v_0 and one under v_K are saved, each with its gradient; steps
  are computed again in the backward pass.
  """
  learner = helper.tiny_udl(norm='domain')
  loss, trained = loss_and_params(learner)
  x = helper.episode().support.x

  def one_pass(weights):
    config = helper.tiny_config(norm='domain')
    return target_network.embed(config, weights, x, jnp.ones(len(x)))[0].sum()

  cost = flops.count(jax.value_and_grad(one_pass), trained['cnn'])
  shared = flops.count(jax.value_and_grad(loss), trained)
  use_separate_passes(monkeypatch)
  separate = flops.count(jax.value_and_grad(lambda t: loss(t)), trained)
  assert separate - shared > 2 * cost
  assert shared < 23.5 * cost


@pytest.mark.parametrize('cond', [False, True])
def test_queries_are_normalised_as_by_a_pass_of_the_unlabelled_images(cond):
  """After steps too; with other images for the hypernetwork, by those."""
  config = helper.tiny_config(norm='domain')
  learner = udl.make(config)
  others = helper.episode().query.x[:3]
  context = {'cond': others} if cond else None
  support = helper.episode(context=context).support
  params = helper.random_params(learner)
  task = jax.jit(lambda p, s, k: learner.adapt(p, s, k, train=False))(
    params, support, jax.random.key(1)
  )
  clean, shifted = support.x[: helper.WAY], support.x[helper.WAY :]
  x = jnp.concatenate([clean, others if cond else shifted])
  is_clean = (jnp.arange(len(x)) < helper.WAY).astype(jnp.float32)
  _, expected = target_network.embed(config, task.weights, x, is_clean)
  leaves = map(jax.tree.leaves, (task.statistics, expected))
  for a, b in zip(*leaves, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_loop_adapts_to_the_unlabelled_rows():
  images = inner_loop.select_images(helper.episode().support)
  np.testing.assert_array_equal(images.mask, [0] * helper.WAY + [1] * 4)
  np.testing.assert_array_equal(images.is_clean, [1] * helper.WAY + [0] * 4)
  labelled = inner_loop.select_images(helper.episode(unlabelled=0).support)
  np.testing.assert_array_equal(labelled.mask, [1] * helper.WAY)
  np.testing.assert_array_equal(labelled.unlabelled, [0] * helper.WAY)


def descend(config, gate=1.0):
  """(params, network, support) -> (v_K, trace) of the inner loop."""

  def run(params, network, support):
    images = inner_loop.select_images(support)
    terms = hypernetwork.elbo_terms(config, params, images.x)
    key = jax.random.key(2)
    inputs = inner_losses.draw(images, terms['mean'], key)
    v = fast_weights.identity(config, params, network)
    return steps.descend(config, params, network, inputs, v, gate, key)

  return run


def test_the_gate_scales_the_whole_step():
  config = helper.tiny_config(inner_steps=1)
  run = lambda gate: helper.on_network(config, descend(config, gate))()
  (whole, trace), (half, _) = run(1.0), run(0.5)
  np.testing.assert_allclose(
    2 * half['film'], whole['film'], rtol=1e-4, atol=1e-6
  )
  assert trace.update_norm[0] > 0


def test_random_directions_are_as_long_as_the_true_gradients():
  settings = {'inner_steps': 1, 'inner_norm': 'none', 'inner_rates': 'fixed'}

  def step(direction):
    config = helper.tiny_config(direction=direction, **settings)
    return helper.on_network(config, descend(config))()[0]['film']

  true, random = step('learned'), step('random')
  size = jnp.linalg.norm
  np.testing.assert_allclose(size(random), size(true), rtol=1e-4)
  assert float(jnp.vdot(true, random) / size(true) ** 2) < 0.9


def test_without_an_outer_gradient_there_is_none_through_any_step():
  config = helper.tiny_config(meta_grad='none')

  def gradient(params, network, support):
    def total(params):
      v, trace = descend(config)(params, network, support)
      return jnp.sum(v['film']) + jnp.sum(trace.values['film'])

    return jax.grad(total)(params)

  for leaf in jax.tree.leaves(helper.on_network(config, gradient)()):
    assert float(jnp.abs(leaf).max()) == 0


def test_noise_in_place_of_all_images_counts_like_noise_as_context():
  config = helper.tiny_config(elbo='none', cluster=2)  # the rest draws nothing
  params = dict(helper.random_params(udl.make(config)))
  zero = jnp.zeros(())
  params['inner'] = {
    **params['inner'],
    'cluster': {'log_scale': zero, 'log_mass': zero},
  }
  shape = helper.episode().support.x.shape
  noise = jax.random.uniform(jax.random.key(5), shape)

  def adapt_three_times(params, network, support):
    adapt = lambda support, images=None: inner_loop.adapt(
      config, params, network, support, jax.random.key(1), images
    )[0]._replace(features=None, statistics=None)
    images = inner_loop.select_images(support)
    images = images._replace(x=noise, are_support=False)
    context = {'inner': noise[helper.WAY :]}
    return (
      adapt(support, images),
      adapt(support._replace(context=context)),
      adapt(support),
    )

  run = helper.on_network(config, adapt_three_times, params)
  on_noise, on_context, on_images = run()
  for a, b in zip(*map(jax.tree.leaves, (on_noise, on_context))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  gap = jnp.abs(on_noise.prototypes - on_images.prototypes).max()
  assert float(gap) > 1e-4


def test_fixed_rates_and_weights_are_no_parameters():
  params = helper.random_params(helper.tiny_udl(inner_rates='fixed'))
  assert not {'rates', 'weights'} & set(params['inner'])
  learned = helper.random_params(helper.tiny_udl())['inner']
  assert set(learned['weights']) == {'elbo', 'geometry'}
