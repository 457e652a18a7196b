"""All kinds of baselines as learners: what they read, refuse and report.

Guards: learners/baseline/__init__.py.
"""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import baseline as baseline_config
from hyperudl import core
from hyperudl import learners
from hyperudl.evaluation import evaluator
from hyperudl.learners import baseline
from tests.testing import laws

LAWS = {
  'baseline': laws.Laws(
    untrained='nothing but the mean of the training features is trained'
  )
}
KINDS = typing.get_args(typing.get_type_hints(baseline.Config)['kind'])
READ_UNLABELLED = {'soft_k_means', 'tim', 'pt_map'}
WAY, SHOT, EACH, SIZE = 3, 2, 6, 8


def points(seed=0, noise=0.3):
  """An episode of features around three directions, all above zero."""
  rng = np.random.default_rng(seed)
  means = 0.5 + np.eye(WAY, SIZE) + np.eye(WAY, SIZE, WAY)
  y = np.concatenate([np.repeat(np.arange(WAY), SHOT), [-1] * WAY * EACH])
  of = np.concatenate([y[: WAY * SHOT], np.tile(np.arange(WAY), EACH)])
  x = np.abs(means[of] + noise * rng.normal(size=(len(y), SIZE)))
  query_y = np.tile(np.arange(WAY), 4)
  query = means[query_y] + noise * rng.normal(size=(len(query_y), SIZE))
  return core.Episode(
    core.Examples(jnp.float32(x), jnp.asarray(y)),
    core.Examples(jnp.float32(np.abs(query)), jnp.asarray(query_y)),
  )


def logits_of(kind):
  """A compiled function of an episode: its logits by a kind."""
  learner = learners.make('baseline', WAY, {'kind': kind})

  @jax.jit
  def logits(episode):
    params = learner.init(jax.random.key(0), episode)
    task = learner.adapt(params, episode.support, None, train=False)
    return learner.predict(params, task, episode.query.x, None)

  return logits


@pytest.mark.parametrize('kind', KINDS)
def test_a_kind_reads_unlabelled_rows_exactly_if_it_says_so(kind):
  episode, logits = points(), logits_of(kind)
  before = logits(episode)
  assert np.mean(before.argmax(axis=1) == episode.query.y) > 0.8
  support = episode.support
  moved = jnp.where(support.y[:, None] < 0, support.x[::-1] + 1, support.x)
  other = episode._replace(support=support._replace(x=moved))
  changed = np.abs(logits(other) - before).max() > 1e-4
  assert changed == (kind in READ_UNLABELLED)


@pytest.mark.parametrize('kind', sorted(READ_UNLABELLED))
def test_without_unlabelled_rows_a_kind_still_classifies(kind):
  episode = points()
  support = jax.tree.map(lambda leaf: leaf[: WAY * SHOT], episode.support)
  logits = logits_of(kind)(episode._replace(support=support))
  assert np.isfinite(logits).all()
  assert np.mean(logits.argmax(axis=1) == episode.query.y) > 0.8


def test_sgd_on_the_loss_finds_the_mean_of_the_features():
  episode = points()
  learner = learners.make('baseline', WAY, {})
  params = learner.init(jax.random.key(0), episode)
  loss = lambda params: learner.loss(params, episode, None, 0)[0]
  gradient = jax.grad(loss)(params)['mean']
  rows = np.concatenate([episode.support.x, episode.query.x])
  np.testing.assert_allclose(-gradient, rows.mean(axis=0), rtol=1e-5)


def test_results_say_transductive_only_where_queries_are_the_unlabelled_rows():
  config = baseline_config.get_config('omniglot')
  assert not evaluator.is_transductive(config)
  config.episode.transductive = True
  assert evaluator.is_transductive(config)


def test_settings_that_cannot_be_are_refused():
  with pytest.raises(core.BadInput, match='is none of nearest_mean'):
    learners.make('baseline', WAY, {'kind': 'nearest'})
  with pytest.raises(core.BadInput, match='expected three'):
    learners.make('baseline', WAY, {'tim_weights': (1.0, 1.0)})
