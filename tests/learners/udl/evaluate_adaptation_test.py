"""What `evaluate` of `udl` says of the adaptation, by other routes.

Networks after each step, and after noise, are those that `adapt` returns when
its steps, its k-means or its images are taken away or replaced.

Guards: learners/udl/evaluate.py, learners/udl/controls.py.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl
from hyperudl.learners.udl import evaluate as evaluation
from hyperudl.nets import conv
from hyperudl.nets import vae
from tests.testing import by_hand
from tests.testing import udl as helper

WAY, UNLABELLED, QUERIES, KEY = helper.WAY, 6, 240, jax.random.key(3)
# These losses draw nothing, so that fewer images do not change what is drawn.
SETTINGS = {'elbo': 'none', 'critic': 'none', 'ssl': 'geometry+certainty'}
CONFIG = helper.tiny_config(cluster=2, **SETTINGS)


@functools.cache
def images():
  """Coarse random patterns, which are less alike than random pixels."""
  rng = np.random.default_rng(0)
  draw = lambda rows: jnp.asarray(
    np.kron(rng.random((rows, 2, 2, 1)), np.ones((1, 5, 5, 1))), jnp.float32
  )
  y = np.concatenate([np.arange(WAY), np.full(UNLABELLED, -1)])
  return core.Episode(
    core.Examples(draw(len(y)), y),
    core.Examples(draw(QUERIES), np.zeros(QUERIES, int)),
  )


@functools.cache
def parameters():
  """The initial ones, but those of the inner loop random, with long steps."""
  learner = udl.make(CONFIG)
  params = jax.jit(learner.init)(jax.random.key(0), images())
  inner = dict(helper.random_params(learner)['inner'])
  inner['rates'] = jax.tree.map(lambda rate: 10 * rate, inner['rates'])
  inner['log_epsilon'] = jax.tree.map(lambda e: e - 8, inner['log_epsilon'])
  return {**params, 'inner': inner}


def network(steps, cluster, context=None, **changes):
  """The network that `adapt` returns after this many steps."""
  settings = {'inner_steps': steps, 'cluster': cluster, **SETTINGS}
  learner = helper.tiny_udl(**settings, **changes)
  params = parameters()
  first = lambda leaf: leaf[:steps]
  rates = jax.tree.map(first, params['inner']['rates'])
  params = {**params, 'inner': {**params['inner'], 'rates': rates}}
  support = images().support._replace(context=context)
  return helper.compiled(learner)[0](params, support, KEY)


def logits(task, x):
  learner = helper.tiny_udl(inner_steps=0, cluster=0, **SETTINGS)
  return np.asarray(helper.compiled(learner)[1](parameters(), task, x, None))


@functools.cache
def episode():
  """Its queries have the classes that the network predicts before all steps.

  Every prediction that a network changes thus changes its accuracy.
  """
  query = images().query
  y = logits(network(0, 0), query.x).argmax(axis=-1)
  return images()._replace(query=query._replace(y=y))


def accuracy(task):
  query = episode().query
  return by_hand.accuracy(logits(task, query.x), query.y)


@functools.cache
def measured():
  evaluate = jax.jit(udl.make(CONFIG).evaluate)
  return jax.device_get(evaluate(parameters(), episode(), KEY))


@functools.cache
def networks():
  """Networks before and after each step, without k-means."""
  return [network(steps, 0) for steps in range(3)]


def noise():
  """In place of the support: mean and std are .5, clipped."""
  x = images().support.x
  drawn = jax.random.normal(jax.random.fold_in(KEY, 1), (x.size,))
  return jnp.clip(0.5 + 0.5 * drawn, 0, 1).reshape(x.shape)


@pytest.mark.slow
def test_accuracies_and_gains_are_those_of_networks_adapted_apart():
  before, first, second = map(accuracy, networks())
  after = accuracy(network(2, CONFIG.cluster))
  placebo = accuracy(network(2, CONFIG.cluster, {'inner': noise()[WAY:]}))
  expected = {
    'accuracy_unadapted': before,
    'accuracy_step_1': first,
    'accuracy_step_2': second,  # without k-means
    'accuracy': after,
    'accuracy_placebo': placebo,
    'gain_step': after - before,
    'gain_data': after - placebo,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(measured()[name], value, atol=1e-6, err_msg=name)
  assert 'accuracy_step_3' not in measured()
  # Only numbers that differ tell the networks apart.
  assert len(set(list(expected.values())[:5])) == 5


@pytest.mark.parametrize(
  ('count', 'expected'),
  [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])],
)
def test_accuracy_is_reported_after_doubling_steps_and_the_last(
  count, expected
):
  config = helper.tiny_config(inner_steps=count)
  assert evaluation.reported_steps(config) == expected


@pytest.mark.slow
def test_without_labels_all_rows_become_noise_and_clusters_get_names():
  clusters = {'setting': 'clusters'}
  x, query = images().support.x, images().query
  tasks = [
    network(0, 0, **clusters),
    network(2, CONFIG.cluster, **clusters),
    network(2, CONFIG.cluster, {'inner': noise()}, **clusters),
  ]
  # Classes are the clusters before all steps, in another order.
  classes = np.array([1, 2, 0])
  clusters_of = lambda x: logits(tasks[0], x).argmax(axis=-1)
  true, y = classes[clusters_of(x)], classes[clusters_of(query.x)]
  before, after, placebo = [
    by_hand.named_accuracy(logits(task, x), true, logits(task, query.x), y)
    for task in tasks
  ]
  support = core.Examples(x, np.where(images().support.y >= 0, true, -1))
  hidden = {'unlabelled_y': jnp.asarray(true[WAY:])}
  data = core.Episode(support, query._replace(y=y), hidden)
  learner = udl.make(dataclasses.replace(CONFIG, **clusters))
  results = jax.jit(learner.evaluate)(parameters(), data, KEY)
  for name, value in (
    ('accuracy_unadapted', before),
    ('accuracy', after),
    ('accuracy_placebo', placebo),
    ('gain_data', after - placebo),
  ):
    np.testing.assert_allclose(results[name], value, atol=1e-6, err_msg=name)
  assert len({before, after, placebo}) == 3


@pytest.mark.slow
def test_the_length_of_all_steps_is_that_of_the_changes_of_the_norms():
  def norms(task):
    layers = task.weights.values()
    return np.concatenate([x[k] for x in layers for k in ('scale', 'bias')])

  v = [norms(task) for task in networks()]
  lengths = [np.linalg.norm(b - a) for a, b in itertools.pairwise(v)]
  np.testing.assert_allclose(
    measured()['inner_update_norm'], sum(lengths), rtol=1e-3
  )
  assert min(lengths) > 0.01


def test_weights_and_inner_losses_are_those_before_the_first_and_last_step():
  params = parameters()
  x = episode().support.x[WAY:]
  net = vae.VAE((10, 10, 1), CONFIG.vae_latent, CONFIG.vae_hidden)
  variables = {'params': params['frozen']['vae']['net']}
  latents = by_hand.unit(net.apply(variables, x, method='encode')[0])
  # Unlabelled images have the statistics of their batch.
  cnn = conv.ConvNet(CONFIG.channels, stride=2, pool=False, norm='batch')
  weights = {k: float(v) for k, v in params['inner']['weights'].items()}
  assert set(weights) == {'geometry', 'certainty'}

  def inner_loss(task):
    features = by_hand.unit(cnn.apply({'params': task.weights}, x))
    gap = features @ features.T - latents @ latents.T
    certainty = by_hand.entropy(logits(task, x)).mean()
    return (
      weights['geometry'] * np.square(gap).mean()
      + weights['certainty'] * certainty
    )

  # The last loss is the one whose gradient the last step follows.
  for name, task in zip(('first', 'last'), networks()):
    np.testing.assert_allclose(
      measured()[f'inner_loss_{name}'], inner_loss(task), rtol=1e-3
    )
  for name, weight in weights.items():
    np.testing.assert_allclose(measured()[f'weight_{name}'], weight)
