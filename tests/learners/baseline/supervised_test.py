"""Linear classifiers agree with scikit-learn, and fine-tuning with NumPy."""

import jax
import numpy as np
import pytest

from hyperudl.learners import baseline
from hyperudl.learners.baseline import supervised
from hyperudl.ops import losses

WAY, SIZE = 3, 6
Y = np.repeat(np.arange(WAY), [5, 5, 2])


def points():
  """(labelled rows, the same with two unlabelled ones, their one-hot labels)"""
  rng = np.random.default_rng(1)
  z = rng.normal(size=(len(Y), SIZE)) + rng.normal(size=(WAY, SIZE))[Y]
  z = z.astype(np.float32)
  more = np.concatenate([z, 9 * np.ones((2, SIZE), np.float32)])
  return z, more, np.float32(np.eye(WAY)[Y]), np.zeros((2, WAY), np.float32)


def fitted(kind, **settings):
  z, more, one_hot, none = points()
  config = baseline.Config(WAY, kind=kind, **settings)
  fit = jax.jit(getattr(supervised, kind), static_argnums=0)
  weights, bias = fit(config, more, np.concatenate([one_hot, none]))
  return z, np.asarray(z @ weights + bias)


def test_nearest_means_are_the_nearest_centroids_of_scikit_learn():
  neighbors = pytest.importorskip('sklearn.neighbors')
  z, _, _, _ = points()
  queries = np.random.default_rng(2).normal(size=(50, SIZE))
  means = losses.class_means(z, Y, WAY)
  weights, bias = supervised.of_means(means, 2.0)
  ours = np.argmax(queries @ weights + bias, axis=1)
  theirs = neighbors.NearestCentroid().fit(z, Y).predict(queries)
  np.testing.assert_array_equal(ours, theirs)


def test_ridge_is_that_of_scikit_learn():
  linear = pytest.importorskip('sklearn.linear_model')
  z, ours = fitted('ridge', penalty=0.7, scale=10.0)
  theirs = linear.Ridge(alpha=0.7).fit(z, np.eye(WAY)[Y]).predict(z)
  np.testing.assert_allclose(ours, 10 * theirs, rtol=1e-3, atol=1e-4)


def test_logistic_regression_is_that_of_scikit_learn():
  linear = pytest.importorskip('sklearn.linear_model')
  z, logits = fitted('logistic', penalty=0.5)
  model = linear.LogisticRegression(C=2.0, tol=1e-8, max_iter=1000)
  theirs = model.fit(z, Y).predict_proba(z)
  np.testing.assert_allclose(jax.nn.softmax(logits), theirs, atol=1e-3)


def test_finetuning_takes_the_steps_of_adam():
  z, logits = fitted('finetune', fit_steps=5, finetune_rate=0.1)
  w = np.zeros((SIZE + 1, WAY))
  x, target = np.pad(z, ((0, 0), (0, 1)), constant_values=1), np.eye(WAY)[Y]
  m, v = np.zeros_like(w), np.zeros_like(w)
  for t in range(1, 6):
    p = np.exp(x @ w) / np.exp(x @ w).sum(axis=1, keepdims=True)
    g = x.T @ (p - target) / len(x)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    w -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
  np.testing.assert_allclose(logits, x @ w, rtol=1e-3, atol=1e-4)
