"""Baselines and controls of `udl` that are measured on request.

Guards: learners/udl/controls.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl
from hyperudl.learners.udl import baselines
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import target_network
from hyperudl.nets import conv
from tests.testing import by_hand
from tests.testing import tiny_sizes

WAY, SHOT, UNLABELLED = 3, 2, 2
BASE = {**tiny_sizes.TINY['udl'], 'phase': 'base'}


@functools.cache
def make(**changes):
  learner = udl.make(udl.Config(way=WAY, **{**BASE, **changes}))
  return (
    learner,
    jax.jit(learner.evaluate),
    jax.jit(functools.partial(learner.adapt, train=False)),
  )


def episode():
  """Classes differ in their brightness."""
  rng = np.random.default_rng(3)
  y = np.array([*range(WAY)] * SHOT + [-1] * UNLABELLED)
  x = 0.1 * rng.random((len(y), 10, 10, 1)) + 0.3 * (y[:, None, None, None] + 1)
  query = np.arange(9) % WAY
  x_query = 0.3 * (query[:, None, None, None] + 1) + 0.1 * rng.random(
    (9, 10, 10, 1)
  )
  as_examples = lambda x, y: core.Examples(jnp.asarray(x, jnp.float32), y)
  return core.Episode(
    as_examples(x, jnp.asarray(y)), as_examples(x_query, jnp.asarray(query))
  )


def random_parameters(learner, seed=0):
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode())
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


@pytest.mark.slow
def test_a_bootstrapped_support_draws_rows_of_the_same_class():
  support = episode().support
  draws = jax.vmap(lambda key: baselines.bootstrap(support, key))(
    jax.random.split(jax.random.key(0), 40)
  )
  np.testing.assert_array_equal(draws.y[0], support.y)
  unlabelled = support.y < 0
  np.testing.assert_array_equal(draws.x[7][unlabelled], support.x[unlabelled])
  drawn = draws.x[:, : WAY * SHOT]
  # A move and faint noise keep the mean of an image to .05 / 10 or so.
  mean = drawn.mean(axis=(2, 3, 4))
  support_mean = support.x.mean(axis=(1, 2, 3))
  distance = jnp.abs(mean[:, :, None] - support_mean)
  nearest = support.y[distance.argmin(axis=-1)]
  np.testing.assert_array_equal(
    nearest, jnp.broadcast_to(support.y[: WAY * SHOT], nearest.shape)
  )
  assert float(jnp.abs(draws.x[0] - draws.x[1]).max()) > 0


def test_ensembles_and_fine_tuning_are_measured_on_request_alone():
  learner, evaluate, _ = make()
  params = random_parameters(learner)
  plain = evaluate(params, episode(), jax.random.key(0))
  assert not {'accuracy_ensemble', 'accuracy_finetuned'} & set(plain)
  _, evaluate, _ = make(ensemble=3, finetune_steps=2, finetune_rate=1e-7)
  metrics = evaluate(params, episode(), jax.random.key(0))
  assert metrics['accuracy'] == plain['accuracy']
  # Steps of no size leave the network what it was.
  assert metrics['accuracy_finetuned'] == plain['accuracy']
  assert 0 <= float(metrics['accuracy_ensemble']) <= 1


def test_k_means_is_soft_at_multiples_of_the_inverse_temperature():
  config = udl.Config(way=WAY, **BASE)
  params = {**random_parameters(make()[0]), 'log_scale': jnp.log(20.0)}
  rng = np.random.default_rng(0)
  x = rng.random((12 + 90, 10, 10, 1), np.float32)
  y, labels = np.array([0, 1, 2, *[-1] * 9]), np.arange(90) % WAY
  support = core.Examples(x[:12], jnp.asarray(y))
  data = core.Episode(support, core.Examples(x[12:], jnp.asarray(labels)))

  @jax.jit
  def run(params):
    network = hypernetwork.generate(config, params, support)
    queries = target_network.query_features(config, network, data.query.x)
    measured = baselines.k_means(config, params, network, data, support)
    return network.features, network.prototypes, queries, measured

  *arrays, measured = run(params)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  features, initial, queries = (unit(np.asarray(a, float)) for a in arrays)
  rows = features[y < 0]
  for factor in (0.5, 1.0, 2.0):
    prototypes = initial
    for _ in range(3):
      weights = np.exp(factor * 20 * rows @ unit(prototypes).T)
      weights /= weights.sum(axis=1, keepdims=True)
      prototypes = initial + weights.T @ rows  # one labelled row a class
    hits = (queries @ unit(prototypes).T).argmax(axis=1) == labels
    name = f'accuracy_kmeans_{factor:g}'
    np.testing.assert_allclose(measured[name], hits.mean(), atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_networks():
  learner, evaluate, adapt = make(ensemble=3)
  data, params, key = episode(), random_parameters(learner), jax.random.key(4)
  probabilities = []
  for one in jax.random.split(key, 3):
    support = baselines.bootstrap(data.support, one)
    task = adapt(params, support, one)
    logits = learner.predict(params, task, data.query.x, None)
    probabilities.append(jax.nn.softmax(logits))
  mean = np.mean(probabilities, axis=0)
  expected = np.mean(mean.argmax(-1) == np.asarray(data.query.y))
  metrics = evaluate(params, data, key)
  np.testing.assert_allclose(metrics['accuracy_ensemble'], expected, atol=1e-6)
  chosen = mean[np.arange(9), np.asarray(data.query.y)]
  np.testing.assert_allclose(
    metrics['nll_ensemble'], -np.log(chosen).mean(), rtol=1e-4
  )


@pytest.mark.slow
def test_one_step_of_fine_tuning_starts_from_the_generated_network():
  rate, norm = 0.05, 'layer'
  learner, _, adapt = make(norm=norm)
  _, evaluate, _ = make(finetune_steps=1, finetune_rate=rate, norm=norm)
  data, key = episode(), jax.random.key(0)
  params = jax.jit(learner.init)(key, data)
  task = adapt(params, data.support, key)
  channels = tiny_sizes.TINY['udl']['channels']
  net = conv.ConvNet(channels, stride=2, pool=False, norm=norm)
  unit = lambda v: v / jnp.linalg.norm(v, axis=-1, keepdims=True)

  def logits(trained, x):
    weights, prototypes = trained
    cosines = unit(net.apply({'params': weights}, x)) @ unit(prototypes).T
    return jnp.exp(task.log_scale) * cosines

  @jax.jit
  def step(trained):
    def loss(trained):
      log_p = jax.nn.log_softmax(logits(trained, data.support.x))
      labelled = jnp.arange(WAY * SHOT)
      return -log_p[labelled, data.support.y[labelled]].mean()

    # Adam's first step is the rate times the sign.
    move = lambda v, g: v - rate * g / (jnp.abs(g) + 1e-8)
    return jax.tree.map(move, trained, jax.grad(loss)(trained))

  trained = task.weights, task.prototypes
  before, after = [logits(t, data.query.x) for t in (trained, step(trained))]
  metrics, y = evaluate(params, data, key), data.query.y
  for name, each in (('', before), ('_finetuned', after)):
    nll, accuracy = by_hand.cross_entropy(each, y), by_hand.accuracy(each, y)
    np.testing.assert_allclose(metrics[f'nll{name}'], nll, rtol=1e-3)
    np.testing.assert_allclose(metrics[f'accuracy{name}'], accuracy)
  assert abs(metrics['nll'] - metrics['nll_finetuned']) > 0.01


@pytest.mark.slow
def test_fine_tuning_fits_the_labelled_images():
  """Queries that are the support are classified better after the steps."""
  learner, evaluate, _ = make(
    finetune_steps=40, finetune_rate=0.01, norm='layer'
  )
  data, key = episode(), jax.random.key(0)
  rows = slice(0, WAY * SHOT)
  x, y = data.support.x[rows], data.support.y[rows]
  # Rows 0, 1, 2 and 3, 4, 5 show the same classes; name them otherwise.
  named = jnp.array([0, 1, 2, 1, 2, 0])
  support = data.support._replace(y=data.support.y.at[rows].set(named))
  data = data._replace(query=core.Examples(x, named), support=support)
  metrics = evaluate(learner.init(key, data), data, key)
  assert metrics['nll_finetuned'] < metrics['nll'] - 0.05
  assert (y != named).any()


def test_without_a_condition_nothing_depends_on_the_vae():
  learner, _, adapt = make(condition='none')
  params, support = random_parameters(learner), episode().support
  other = {**params, 'frozen': random_parameters(learner, 1)['frozen']}
  task, again = (adapt(p, support, jax.random.key(0)) for p in (params, other))
  jax.tree.map(np.testing.assert_array_equal, task, again)
  _, _, adapt = make()
  task, again = (adapt(p, support, jax.random.key(0)) for p in (params, other))
  with pytest.raises(AssertionError):
    jax.tree.map(np.testing.assert_array_equal, task, again)
