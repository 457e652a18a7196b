"""Laws of every learner's `evaluate`: it tells what a user would have got."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.evaluation import evaluator
from tests.testing import learner_case

NAMES, LAWS = learner_case.NAMES, learner_case.LAWS
# Those whose `evaluate` reports the probabilities of `predict`.
JUDGED = learner_case.slow_where_stated(
  (name for name in NAMES if not LAWS[name].unjudged), always=['udl']
)


@functools.cache
def evaluated(name):
  """The case, parameters and the result on its episode."""
  case = learner_case.case_of(name)
  params = case.state().params
  return case, params, case.evaluate(params, case.episode, case.keys[0])


@pytest.mark.parametrize('name', JUDGED)
def test_evaluate_reports_what_adapt_and_predict_say(name):
  case, _, (metrics, p) = evaluated(name)
  np.testing.assert_allclose(metrics['probabilities'], p, atol=1e-5)
  y = case.episode.query.y
  accuracy = np.mean(np.argmax(p, axis=-1) == y)
  np.testing.assert_allclose(metrics['accuracy'], accuracy, atol=1e-6)
  of_label = np.take_along_axis(np.asarray(p), np.asarray(y)[:, None], axis=-1)
  nll = -np.log(of_label).mean()
  np.testing.assert_allclose(metrics['nll'], nll, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', JUDGED)
def test_evaluate_cannot_read_query_labels_or_extra(name):
  case, params, (metrics, _) = evaluated(name)
  query = case.episode.query
  wrong = query._replace(y=(query.y + 1) % 3)
  extra = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), case.episode.extra)
  episode = case.episode._replace(query=wrong, extra=extra)
  dirty, _ = case.evaluate(params, episode, case.keys[0])
  np.testing.assert_array_equal(
    dirty['probabilities'], metrics['probabilities']
  )
  accuracy = np.mean(np.argmax(metrics['probabilities'], axis=-1) == wrong.y)
  np.testing.assert_allclose(dirty['accuracy'], accuracy, atol=1e-6)


@pytest.mark.parametrize('name', JUDGED)
def test_in_an_evaluation_no_query_matters_to_another(name):
  """Exactly in those learners that say they are transductive it does."""
  case, params, (metrics, _) = evaluated(name)
  query = case.episode.query
  noise = jax.random.uniform(jax.random.key(9), query.x.shape)
  others = query._replace(x=noise.at[0].set(query.x[0]))
  episode = case.episode._replace(query=others)
  changed, _ = case.evaluate(params, episode, case.keys[0])
  before, after = (m['probabilities'] for m in (metrics, changed))
  assert np.abs(before[1:] - after[1:]).max() > 1e-6
  agrees = bool(np.allclose(before[0], after[0], atol=1e-5))
  assert agrees != evaluator.is_transductive(case.config)
