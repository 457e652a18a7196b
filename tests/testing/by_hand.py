"""Metrics and perceptrons in NumPy, which tests compare with the library's."""

import itertools

import numpy as np


def accuracy(logits, y):
  """Of f32[n, N], the fraction of rows whose largest logit is their class."""
  return np.mean(np.argmax(logits, axis=-1) == np.asarray(y))


def named_accuracy(support_logits, true, logits, y):
  """Of outputs without names, after trying all names on the support.

  Args:
    support_logits: f32[S, N].
    true: i32[S], classes of the support, which choose the names.
    logits: f32[n, N].
    y: i32[n], classes to score.
  """
  true, names = np.asarray(true), range(np.shape(logits)[-1])
  orders = [list(order) for order in itertools.permutations(names)]
  losses = [cross_entropy(support_logits[:, o], true) for o in orders]
  return accuracy(logits[:, orders[np.argmin(losses)]], y)


def cross_entropy(logits, y):
  """Of f32[n, N], in nats, the mean over the rows with a class."""
  logits, y = np.asarray(logits, np.float64), np.asarray(y)
  logits = logits - logits.max(axis=-1, keepdims=True)
  log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  rows = np.flatnonzero(y >= 0)
  return -log_p[rows, y[rows]].mean()


def entropy(logits):
  """Of f32[n, N], in nats for each row."""
  logits = np.asarray(logits, np.float64)
  p = np.exp(logits - logits.max(axis=-1, keepdims=True))
  p = p / p.sum(axis=-1, keepdims=True)
  return -(p * np.log(p)).sum(axis=-1)


def unit(rows):
  """Vectors of the last axis, divided by their lengths."""
  rows = np.asarray(rows, np.float64)
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def silu_perceptron(layers, x):
  """Of an MLP of `nets/mlp.py`."""
  x = np.asarray(x, np.float64)
  for i, layer in enumerate(layers):
    if i:
      x = x / (1 + np.exp(-x))
    x = x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])
  return x
