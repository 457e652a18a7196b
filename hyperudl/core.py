"""The types that every part of hyperudl speaks in, and its errors.

A learner is five pure functions of ONE episode. Batching over episodes is
the business of `strategies.py`, never of a learner.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Examples(NamedTuple):
  """A set of images of one episode; y = -1 marks an unlabelled row."""

  x: jax.Array  # f32[S, H, W, C] in [0, 1], or features f32[S, D]
  y: jax.Array  # i32[S] in [-1, N)
  context: PyTree = None  # other inputs: embeddings, placebo images, masks


class Episode(NamedTuple):
  """A few-shot task: adapt on `support`, answer for `query`."""

  support: Examples
  query: Examples
  extra: dict | None = None  # for `loss` and `evaluate` alone


class Learner(NamedTuple):
  """A meta-learner as pure functions of one episode (design: optax style).

  init:     (key, episode) -> params
  adapt:    (params, support, key, *, train) -> task
  predict:  (params, task, x, context) -> logits f32[Q, N]
  loss:     (params, episode, key, step) -> (f32[], metrics)
  evaluate: (params, episode, key) -> metrics
  """

  init: Callable
  adapt: Callable
  predict: Callable
  loss: Callable
  evaluate: Callable


class TrainState(NamedTuple):
  """Everything that a checkpoint holds."""

  step: jax.Array  # i32[]
  params: PyTree
  opt_state: PyTree


class Error(Exception):
  """An error told to the user in one line; `exit_code` ends the process."""

  exit_code = 1


class BadInput(Error, ValueError):
  """A bad flag, config or data set. Nothing has been written."""

  exit_code = 2


class Unreadable(Error):
  """Checkpoints exist but none can be read."""

  exit_code = 3


class NonFinite(Error):
  """A loss, gradient or parameter became NaN or infinite."""

  exit_code = 4


class Unwritable(Error):
  """A disk is full or a path cannot be written."""

  exit_code = 5


class Busy(Error):
  """Another trainer holds the working directory."""

  exit_code = 6


class PeerLost(Error):
  """Another process of a run on several has ended."""

  exit_code = 7


class OutOfMemory(Error):
  """A device has too little memory for what it is to compute."""

  exit_code = 8


def cross_entropy(logits, y):
  """Mean cross-entropy over labelled rows.

  Args:
    logits: f32[Q, N].
    y: i32[Q]; rows with y = -1 do not count.

  Returns:
    f32[], zero if no row is labelled.
  """
  one_hot = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
  total = -jnp.sum(one_hot * jax.nn.log_softmax(logits, axis=-1))
  return total / jnp.maximum(jnp.sum(one_hot), 1.0)


def accuracy(logits, y):
  """Share of labelled rows of f32[Q, N] `logits` whose argmax is i32[Q] `y`."""
  right = jnp.sum((jnp.argmax(logits, axis=-1) == y).astype(jnp.float32))
  return right / jnp.maximum(jnp.sum((y >= 0).astype(jnp.float32)), 1.0)


def classification_metrics(logits, y):
  """The metrics every classifier reports: accuracy, nll, probabilities."""
  return {
    'accuracy': accuracy(logits, y),
    'nll': cross_entropy(logits, y),
    'probabilities': jax.nn.softmax(logits, axis=-1),
  }


def make_learner(init, adapt, predict, loss=None, evaluate=None):
  """A `Learner` with the default loss and evaluation filled in.

  Args:
    init: (key, episode) -> params.
    adapt: (params, support, key, *, train) -> task.
    predict: (params, task, x, context) -> logits f32[Q, N].
    loss: or None for the cross-entropy of the adapted queries.
    evaluate: or None for accuracy, nll and probabilities of the queries.
  """

  def query_logits(params, episode, key, train):
    task = adapt(params, episode.support, key, train=train)
    return predict(params, task, episode.query.x, episode.query.context)

  def default_loss(params, episode, key, step):
    del step
    logits = query_logits(params, episode, key, True)
    value = cross_entropy(logits, episode.query.y)
    return value, {'accuracy': accuracy(logits, episode.query.y)}

  def default_evaluate(params, episode, key):
    logits = query_logits(params, episode, key, False)
    return classification_metrics(logits, episode.query.y)

  return Learner(
    init, adapt, predict, loss or default_loss, evaluate or default_evaluate
  )
