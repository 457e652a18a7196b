"""Defines the types that all packages share: episodes, learners, train states.

A learner is five pure functions of ONE episode. Batching over episodes is done
by `training/episode_batching.py`, never by a learner.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax

PyTree = Any
NO_IMAGE = -2  # label of a row without an image, which has no influence


class Examples(NamedTuple):
  """Labelled and unlabelled images of one episode.

  y = -1 means unlabelled. If episodes differ in their number of images, rows
  that are left over have y = `NO_IMAGE` and x = 0.
  """

  x: jax.Array  # f32[S, H, W, C] in [0, 1], or features f32[S, D]
  y: jax.Array  # i32[S] in [-2, N)
  context: PyTree = None  # other inputs: embeddings, control images, masks


class Episode(NamedTuple):
  """A few-shot task: adapt to `support`, then classify `query`."""

  support: Examples
  query: Examples
  extra: dict[str, Any] | None = None  # read by `loss` and `evaluate` only


class Learner(NamedTuple):
  """A meta-learner as pure functions of one episode, in the style of optax.

  A `task` is what `adapt` returns (fast weights, prototypes, a posterior):
  only the learner itself knows what it holds.
  """

  init: Callable[..., PyTree]  # (key, episode) -> params
  adapt: Callable[..., PyTree]  # (params, support, key, *, train) -> task
  # (params, task, x, context) -> logits f32[Q, N]
  predict: Callable[..., jax.Array]
  # (params, episode, key, step) -> (f32[], metrics)
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
  # (params, episode, key) -> metrics
  evaluate: Callable[..., dict[str, jax.Array]]


class TrainState(NamedTuple):
  """Everything that a checkpoint holds."""

  step: jax.Array  # i32[]
  params: PyTree
  opt_state: PyTree
