"""The classifier follows scikit-learn's conventions, where it is installed."""

import pickle

import numpy as np
import pytest

from hyperudl import core
from hyperudl.models import classifier
from tests.testing import errors
from tests.testing import models

Classifier = classifier.FewShotClassifier


def fitted(**options):
  return Classifier(models.make(), **options).fit(*models.support())


def test_it_predicts_what_the_task_does():
  x, y = models.support()
  queries = models.pixels(6)
  made = fitted(temperature=1.0)
  task = models.make().adapt(x, y)
  np.testing.assert_array_equal(
    made.predict_proba(queries), task.predict_proba(queries)
  )
  assert made.predict(queries).tolist() == task.predict(queries).tolist()
  assert made.classes_.tolist() == list(models.CLASSES)
  assert made.n_features_in_ == 64
  assert made.score(x, y) == np.mean(task.predict(x) == y)
  assert made.loo_score_ == task.report['leave_one_out']['accuracy']
  again = pickle.loads(pickle.dumps(made))
  np.testing.assert_array_equal(
    again.predict_proba(queries), made.predict_proba(queries)
  )


def test_a_temperature_divides_the_logits():
  queries = models.pixels(4)
  p = fitted(temperature=1.0).predict_proba(queries)
  warm = fitted(temperature=2.0).predict_proba(queries)
  expected = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(warm, expected, atol=1e-5)


def test_a_temperature_is_fitted_to_the_images_left_out():
  x, y = models.support(shots=7)
  made = Classifier(models.make()).fit(x, y)
  p, truth, _ = made.task_.left_out
  logits = np.log(np.maximum(p.astype(float), 1e-30))
  nll = lambda t: (
    -np.sum(
      [row[c] - np.log(np.exp(row).sum()) for row, c in zip(logits / t, truth)]
    )
    + 2 * np.log(t) ** 2  # held near 1
  )
  best = made.task_.temperature
  assert nll(best) <= min(nll(best * 1.02), nll(best / 1.02), nll(1.0)) + 1e-9
  few = Classifier(models.make()).fit(*models.support())
  assert few.task_.temperature == 1.0  # too few to fit one


def test_improbable_predictions_are_unknown():
  queries = models.pixels(6)
  confidence = fitted().predict_proba(queries).max(axis=1)
  threshold = float(np.median(confidence))
  found = fitted(unknown=threshold).predict(queries)
  assert ((found == 'unknown') == (confidence < threshold)).all()
  x, y = models.support()
  numbers = np.array([models.CLASSES.index(name) for name in y])
  made = Classifier(models.make(), unknown=threshold).fit(x, numbers)
  assert ((made.predict(queries) == -1) == (confidence < threshold)).all()


def test_faults_are_refused():
  x, y = models.support()
  model = models.make()
  fit = Classifier(model).fit
  assert 'fit first' in errors.refusal(Classifier(model).predict, x)
  assert 'temperature' in errors.refusal(Classifier(model, -1).fit, x, y)
  assert 'target y is None' in errors.refusal(fit, x, None)
  assert 'NaN' in errors.refusal(fit, x, [np.nan] * 6)
  assert 'continuous' in errors.refusal(fit, x, [0.5] * 6)
  words = errors.refusal(Classifier('nope').fit, x, y)
  assert words.startswith("FewShotClassifier(model='nope'): there is no model")
  assert 'give a run folder, a file of Model.save' in words
  assert 'hyperudl.load' in words
  assert "'modle'" in errors.refusal(Classifier(model).set_params, modle=1)


def test_scikit_learn_finds_its_conventions():
  pytest.importorskip('sklearn')
  from sklearn import base
  from sklearn import model_selection

  made = Classifier(models.make(), seed=3)
  other = base.clone(made)
  assert other is not made and other.get_params() == made.get_params()
  assert base.is_classifier(made)
  x, y = models.support(shots=4)
  flat = x.reshape(len(x), -1) / 255
  scores = model_selection.cross_val_score(made, flat, y, cv=2)
  assert scores.shape == (2,) and np.isfinite(scores).all()
  assert issubclass(classifier.NotFitted, (core.BadInput, AttributeError))


class OfTables(Classifier):
  """Takes tables of any width, as the checks have them: rows become images."""

  def fit(self, X, y, X_unlabelled=None):
    return super().fit(self._to_images(X), y, X_unlabelled)

  def predict_proba(self, X):
    return super().predict_proba(self._to_images(X))

  def _to_images(self, X):
    table = X if hasattr(X, 'toarray') else np.asarray(X)
    if table.ndim != 2 or getattr(table.dtype, 'kind', '') not in 'biufO':
      return table
    if not isinstance(table, np.ndarray):
      return table
    rows = np.zeros((len(table), 64))
    rows[:, : table.shape[1]] = 1 / (1 + np.exp(-table.astype(float)))
    rows[~np.isfinite(table.astype(float)).all(axis=1)] = np.nan
    return rows


_WIDTH = 'images have as many numbers as the network takes, whatever `fit` saw'
# Checks that do not apply, and why.
EXEMPT = {
  'check_estimators_unfitted': "wants scikit-learn's own NotFittedError",
  'check_supervised_y_2d': "wants scikit-learn's own DataConversionWarning",
  'check_n_features_in': _WIDTH,
  'check_n_features_in_after_fitting': _WIDTH,
  'check_estimators_empty_data_messages': _WIDTH,
}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of skipped checks, and no base class
def test_the_checks_of_scikit_learn_pass():
  estimator_checks = pytest.importorskip('sklearn.utils.estimator_checks')
  made = OfTables(models.make(way=10), temperature=1.0)
  results = estimator_checks.check_estimator(
    made, expected_failed_checks=EXEMPT, on_fail=None
  )
  by_status = {}
  for result in results:
    names = by_status.setdefault(result['status'], [])
    names.append(result['check_name'])
  assert not by_status.get('failed'), by_status['failed']
  assert set(by_status['xfail']) == set(EXEMPT)
  assert len(by_status['passed']) > 40
