"""Hallucination: generated features, their weight in prototypes, metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import hallucination
from hyperudl.learners import protonet
from tests.testing import episodes
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'hallucination': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY, SHOT = 3, 2
TINY = {'channels': (4, 4)}
SMALL = {**TINY, 'hidden': 8, 'noise_size': 2, 'count': 5}


def episode_of(unlabelled=0):
  return episodes.episode_of(shot=SHOT, query=3, unlabelled=unlabelled)


def make(**settings):
  return learners.make('hallucination', WAY, {**SMALL, **settings})


def hallucinate(key=0, train=False, unlabelled=0, move=True, **settings):
  """(hallucinations, features of the support)."""
  settings = {**SMALL, **settings}
  episode = episode_of(unlabelled=unlabelled)
  params = jax.jit(make(**settings).init)(jax.random.key(1), episode)
  if move:  # the generator away from its initial values
    noise = lambda leaf: (
      leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    )
    params = {**params, 'generator': jax.tree.map(noise, params['generator'])}
  config = hallucination.Config(WAY, **settings)
  z = protonet.embed(config, params, episode.support.x)
  features = hallucination.hallucinate(
    config, params, z, episode.support.y, jax.random.key(key), train=train
  )
  return np.asarray(features), np.asarray(z)


def test_without_hallucinations_it_is_protonet_bit_for_bit():
  episode, key = episode_of(), jax.random.key(1)
  ours = make(count=0)
  plain = learners.make('protonet', WAY, TINY)
  params = jax.jit(ours.init)(key, episode)
  for a, b in zip(
    jax.tree.leaves(params), jax.tree.leaves(jax.jit(plain.init)(key, episode))
  ):
    np.testing.assert_array_equal(a, b)
  run = lambda learner: jax.jit(
    jax.value_and_grad(lambda p: learner.loss(p, episode, key, 0)[0])
  )(params)
  for a, b in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(plain))):
    np.testing.assert_array_equal(a, b)


def test_the_initial_residual_generator_does_not_move_prototypes():
  episode, key = episode_of(), jax.random.key(1)
  # One shot: every hallucination is a copy of the one image.
  one = episode._replace(
    support=core.Examples(episode.support.x[:WAY], episode.support.y[:WAY])
  )
  ours = make()
  params = jax.jit(ours.init)(key, one)
  task = ours.adapt(params, one.support, key, train=True)
  plain = learners.make('protonet', WAY, TINY)
  expected = plain.adapt(params, one.support, key, train=True)
  np.testing.assert_allclose(task, expected, rtol=1e-5)


@pytest.mark.parametrize('generator', ['residual', 'source'])
def test_hallucinations_copy_rows_of_their_class_and_vary_with_noise(generator):
  features, z = hallucinate(move=False, generator=generator, unlabelled=2)
  assert features.shape == (WAY, 5, z.shape[1]) and features.min() >= 0
  if generator == 'residual':  # at first it copies rows of the class
    for label in range(WAY):
      rows = z[label : WAY * SHOT : WAY]
      for copy in features[label]:
        assert np.abs(rows - copy).max(axis=1).min() < 1e-6
    many = hallucinate(move=False, count=40)[0]
    assert len(np.unique(many[0].round(5), axis=0)) == SHOT  # every row
  moved, _ = hallucinate(generator=generator)
  assert len(np.unique(moved[0], axis=0)) == 5
  again, _ = hallucinate(key=1, generator=generator)
  assert np.abs(again - moved).max() > 1e-4


@pytest.mark.parametrize('noise', ['fixed', 'zero'])
def test_fixed_and_zero_noise_give_one_hallucination_a_row(noise):
  features, _ = hallucinate(noise=noise, count=40)
  assert len(np.unique(features[0], axis=0)) == SHOT
  other, _ = hallucinate(noise=noise, count=40, key=5)
  as_set = lambda rows: {row.tobytes() for row in rows}
  assert as_set(other[0]) == as_set(features[0])


def test_dropout_is_for_training_alone():
  options = {'generator': 'source', 'noise': 'zero'}
  first, _ = hallucinate(train=True, **options)
  second, _ = hallucinate(train=True, key=3, **options)
  assert np.abs(first - second).max() > 1e-4
  evaluated, _ = hallucinate(train=False, **options)
  assert len(np.unique(evaluated[0].round(6), axis=0)) <= SHOT


@pytest.mark.parametrize('weight', ['count', 'learned'])
def test_prototypes_are_weighted_means_of_support_and_hallucinations(weight):
  settings = {'weight': weight, 'mass': 0.5, 'noise': 'zero'}
  learner = make(**settings)
  episode, key = episode_of(), jax.random.key(2)
  params = jax.jit(learner.init)(key, episode)
  bias = params['generator']['Dense_2']['bias']
  params['generator']['Dense_2']['bias'] = bias + 3.0
  task = learner.adapt(params, episode.support, key, train=False)
  config = protonet.Config(WAY, **TINY)
  z = np.asarray(protonet.embed(config, params, episode.support.x))
  fraction = {'count': 5 / 7, 'learned': 0.5 / 2.5}[weight]
  for label in range(WAY):
    rows = z[label::WAY]
    low, high = rows.min(0) + 3, rows.max(0) + 3  # whichever was copied
    rest = (1 - fraction) * rows.mean(axis=0)
    assert (task[label] >= rest + fraction * low - 1e-4).all()
    assert (task[label] <= rest + fraction * high + 1e-4).all()


def test_quality_by_hand():
  hallucinated = jnp.array([[[0.0, 0], [2, 0], [1, 0]], [[9.0, 0]] * 3])
  of_one_row = jnp.array([[[0.0, 0], [2, 0], [1, 0]], [[4.0, 0]] * 3])
  query = jnp.array([[0.0, 2], [0, 0], [10, 2], [10, 0]])  # means: (., 1)
  plain = jnp.array([[0.0, 0], [10, 0]])
  improved = jnp.array([[0.0, 1], [10, 0.0]])
  metrics = hallucination.quality(
    hallucinated, of_one_row, query, jnp.array([0, 0, 1, 1]), improved, plain
  )
  # Variances over n - 1: (1 + 0 + 1) / 2 and 0, of queries (1 + 1) / 1 each.
  assert float(metrics['diversity']) == pytest.approx((1 + 0) / (2 + 2))
  assert float(metrics['purity']) == 1
  assert float(metrics['prototype_error']) == pytest.approx(1 / np.sqrt(2))


@pytest.mark.parametrize('shot', [1, 10])
def test_a_perfect_hallucinator_lowers_the_error_at_any_shots(shot):
  rng = np.random.default_rng(0)
  way, count, queries, size = 5, 400, 5, 200
  means = rng.normal(size=(way, 1, size))
  sample = lambda rows: means + rng.normal(size=(way, rows, size))
  real, generated, held_out = sample(shot), sample(count), sample(queries)
  flat = jnp.asarray(held_out.reshape(-1, size))
  metrics = hallucination.quality(
    *(jnp.asarray(generated), jnp.asarray(sample(count)), flat),
    jnp.repeat(jnp.arange(way), queries),
    jnp.asarray(generated.mean(axis=1)),
    jnp.asarray(real.mean(axis=1)),
  )
  expected = np.sqrt(shot / (shot + queries))
  assert float(metrics['prototype_error']) == pytest.approx(expected, rel=0.05)
  assert float(metrics['diversity']) == pytest.approx(1, rel=0.05)
  assert float(metrics['purity']) == 1


def test_diversity_is_that_of_the_noise_with_the_row_fixed():
  episode, key = episode_of(), jax.random.key(0)
  learner = make(noise='zero', count=20)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  metrics = learner.evaluate(params, episode, key)
  spread = np.ptp(metrics['points/hallucinated'], axis=1).max()
  assert spread > 1e-3  # copies of both rows of a class
  assert float(metrics['diversity']) < 1e-10


def ridge_by_hand(z, y, generated, mass, penalty):
  """Least squares with the penalty as further rows."""
  count = generated.shape[1]
  x = np.concatenate([z, generated.reshape(-1, z.shape[1])])
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
  labels = np.concatenate([y, np.repeat(np.arange(WAY), count)])
  root = np.sqrt(
    np.concatenate([np.ones(len(y)), np.full(WAY * count, mass / count)])
  )[:, None]
  targets = np.eye(WAY)[labels] - 1 / WAY
  size = x.shape[1]
  rows = np.concatenate([root * x, np.sqrt(penalty) * np.eye(size)])
  goals = np.concatenate([root * targets, np.zeros((size, WAY))])
  return np.linalg.lstsq(rows, goals, rcond=None)[0]


def test_a_ridge_regression_is_fitted_to_real_and_generated_features():
  settings = {'classifier': 'ridge', 'mass': 0.5, 'penalty': 0.2}
  settings |= {'scale': 3.0, 'learn_scale': False}
  learner = make(**settings)
  episode, key = episode_of(), jax.random.key(2)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  metrics = jax.jit(learner.evaluate)(params, episode, key)
  z, query = metrics['points/support'], metrics['points/query']
  generated = np.asarray(metrics['points/hallucinated'])
  weights = ridge_by_hand(z, episode.support.y, generated, 0.5, 0.2)
  ones = np.ones((len(query), 1))
  logits = 3.0 * np.concatenate([query, ones], axis=1) @ weights
  p = special.softmax(logits, axis=1)
  np.testing.assert_allclose(metrics['probabilities'], p, rtol=1e-2, atol=1e-4)
  gradient = jax.grad(lambda p: learner.loss(p, episode, key, 0)[0])
  grads = jax.jit(gradient)(params)
  assert float(jnp.abs(grads['log_penalty'])) > 0
  assert float(jnp.abs(grads['generator']['Dense_2']['kernel']).max()) > 0


def test_a_frozen_embedding_gets_no_gradient_and_the_generator_one():
  learner = make(frozen=True)
  episode, key = episode_of(), jax.random.key(0)
  params = jax.jit(learner.init)(key, episode)
  assert set(params) == {'frozen', 'generator', 'log_mass'}
  assert set(params['frozen']['protonet']) == {'net', 'log_scale'}
  grads = jax.grad(
    lambda g: learner.loss({**params, 'generator': g}, episode, key, 0)[0]
  )(params['generator'])
  assert float(jnp.abs(grads['Dense_2']['kernel']).max()) > 0


@pytest.mark.parametrize(
  'settings, text',
  [
    ({'noise': 'pink'}, "noise = 'pink' is none of gaussian, zero, fixed"),
    ({'count': -1}, 'count = -1 is below its minimum 0'),
    ({'mass': 0.0}, 'mass = 0.0 must be above 0'),
    ({'dropout': 1.0}, 'dropout = 1.0 must be below 1'),
    ({'classifier': 'ridge', 'refine': 1}, 'set refine=0'),
    ({'distance': 'l1'}, "distance = 'l1' is none of l2, cosine, dot"),
  ],
  ids=str,
)
def test_bad_settings_are_refused(settings, text):
  assert text in errors.refusal(learners.make, 'hallucination', WAY, settings)


def test_prototype_error_compares_prototypes_after_the_same_refinement():
  learner = make(mass=1e-9, refine=2)
  episode = episode_of(unlabelled=4)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  metrics = learner.evaluate(params, episode, jax.random.key(0))
  # Hallucinations without mass leave both the same.
  assert float(metrics['prototype_error']) == pytest.approx(1, abs=1e-4)
