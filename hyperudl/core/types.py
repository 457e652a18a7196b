"""The types that every part of hyperudl shares.

A learner is five pure functions of ONE episode. Batching over episodes is
the business of `strategies.py`, never of a learner.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax

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
