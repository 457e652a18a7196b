"""Laws of every network that classifies a user's own images.

Guards: models/programs.py.
"""

import jax
import numpy as np
import pytest

from hyperudl.data.datasets import image_inputs
from hyperudl.evaluation import evaluator
from hyperudl.models import model as model_lib
from hyperudl.models import programs
from tests.testing import errors
from tests.testing import learner_case

SIZE = image_inputs.Inputs(14, 14, 1)
# They classify by questions in words, sequences of tasks, or into clusters.
REFUSED = ('continual', 'contrastive', 'hvae', 'hyperclip', 'hyperldm')
REFUSED += ('hypernet', 'udl_original')
NAMES = [name for name in learner_case.NAMES if name not in REFUSED]
TAKEN = learner_case.slow_where_stated(NAMES)


@pytest.fixture(params=TAKEN)
def case(request):
  return learner_case.case_of(request.param)


def model_of(case):
  if not hasattr(case, 'model'):
    params = case.state().params
    case.model = model_lib.Model(case.config, params, SIZE, 0, {})
  return case.model


def task_of(case):
  """The task of the case's own episode."""
  if not hasattr(case, 'task'):
    x, y, others = parts(case)
    case.task = model_of(case).adapt(x, y, others)
  return case.task


def parts(case):
  """(labelled images, their labels, unlabelled images or None)."""
  x, y = (np.asarray(each) for each in case.episode.support[:2])
  return x[y >= 0], y[y >= 0], x[y < 0] if (y < 0).any() else None


def test_learners_of_other_tasks_are_refused_in_one_line():
  for name in REFUSED:
    config = learner_case.tiny_config(name)
    assert name in errors.refusal(programs.refuse, config)


def test_a_prediction_does_not_depend_on_other_queries(case):
  queries = np.asarray(case.episode.query.x)
  together = task_of(case).predict_proba(queries)
  for row in range(len(queries)):
    alone = task_of(case).predict_proba(queries[row : row + 1])
    np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
  noise = np.random.default_rng(0).random((50, *queries.shape[1:]))
  others = np.concatenate([noise, queries]).astype(np.float32)
  among = task_of(case).predict_proba(others, batch=7)[50:]
  np.testing.assert_allclose(among, together, atol=1e-6)


def test_predictions_are_those_of_evaluate(case):
  """Where queries are normalised by each other, with the support as queries.

  Then the statistics of the queries are those of the support, which
  predictions use.
  """
  episode, task = case.episode, task_of(case)
  if evaluator.is_transductive(case.config):
    queries = episode.support._replace(y=abs(episode.support.y))
    episode = episode._replace(query=queries)
  params = model_of(case).params
  key = jax.random.key(task.seed)
  evaluate = jax.jit(case.learner.evaluate)
  expected = evaluate(params, episode, key)['probabilities']
  found = task.predict_proba(np.asarray(episode.query.x))
  np.testing.assert_allclose(found, expected, rtol=5e-6, atol=1e-6)


def test_absent_classes_get_no_probability(case):
  x, y, others = parts(case)
  if case.config.learner.get('aggregation') == 'concat':
    # It joins the images of each class, so it needs them all.
    few = x[y != 1], y[y != 1], others
    assert 'joins the images' in errors.refusal(model_of(case).adapt, *few)
    return
  task = model_of(case).adapt(x[y != 1], y[y != 1], others)
  p = task.predict_proba(np.asarray(case.episode.query.x))
  assert p.shape == (9, 2) and task.classes.tolist() == [0, 2]
  np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_more_classes_than_way_are_refused(case):
  x, y, others = parts(case)
  y = np.where(np.arange(len(y)) == 0, 9, y)
  message = errors.refusal(model_of(case).adapt, x, y, others)
  assert '4 classes' in message and 'at most 3' in message


@pytest.mark.slow
@pytest.mark.parametrize('case', ['udl'], indirect=True)
def test_no_unlabelled_images_are_fine(case):
  """The other learners have none in all these laws."""
  x, y, others = parts(case)
  assert others is not None
  p = model_of(case).adapt(x, y).predict_proba(x[:1])
  assert np.isfinite(p).all()
