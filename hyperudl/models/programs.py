"""Compiles what a trained network does with one user's images."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.ops import normalization
from hyperudl.training import setup
from hyperudl.training import train_step

# Names of metrics of `evaluate` that tell how far an adaptation went.
_ADAPTATION = ('gate', 'inner_', 'shift_')


class Adapted(NamedTuple):
  """A network adapted to a support: all that predictions are computed from."""

  task: core.PyTree  # of the learner
  # Of every norm='batch', over the support: queries use them, so that no
  # prediction depends on other queries.
  statistics: list[normalization.Moments]


class Programs(NamedTuple):
  """The compiled functions of a network; `classes` is a number, i32[]."""

  learner: core.Learner
  adapt: Callable[..., Adapted]  # (params, support, key)
  # (params, adapted, x, classes, temperature) -> probabilities f32[n, way]
  predict: Callable[..., jax.Array]
  # (params, adapted, x, classes) -> the largest logit of each image, f32[n]
  best_logit: Callable[..., jax.Array]
  # (params, support, key, row, classes) -> probabilities f32[way] of the image
  # in a row of the support, adapted to all others
  leave_out: Callable[..., jax.Array]
  # Whether `adapt` leaves out rows with y = `core.NO_IMAGE`, which saves the
  # compilation of `leave_out`.
  skips_rows: bool
  # (params, support, key) -> metrics f32[] of the adaptation, by name
  describe: Callable[..., dict[str, jax.Array]]


def refuse(config: ConfigDict) -> None:
  """Refuse networks that cannot classify images one by one.

  Raises:
    core.BadInput: naming the field that says so.
  """
  name, learner = config.learner.name, config.learner.to_dict()
  problem = ''
  if 'language' in config:
    problem = 'classifies by questions in words, not by labelled images'
  elif config.episode.tasks:
    problem = f'learns sequences of {config.episode.tasks} tasks'
  elif name == 'udl_original' or learner.get('setting') == 'clusters':
    problem = 'finds clusters without names, not classes'
  elif name == 'udl' and learner['norm'] == 'batch':
    problem = "normalises each batch of images (set learner.norm='domain')"
  elif learner.get('query_statistics') == 'queries':
    problem = (
      'normalises queries by each other (set '
      "learner.query_statistics='unlabelled')"
    )
  if problem:
    raise core.BadInput(
      f'this {name!r} {problem}, so it cannot classify single images; use '
      'python -m hyperudl.evaluate'
    )


def compile(config: ConfigDict) -> Programs:
  """Return the compiled functions of the learner of a config.

  Raises:
    core.BadInput: as `refuse`, or for an illegal hyperparameter.
  """
  refuse(config)
  setup.check(config)
  learner, skips_rows = _make_learner(config)
  make = lambda function: jax.jit(
    train_step.at_precision(
      functools.partial(function, learner), config.matmul_precision
    )
  )
  return Programs(
    *(learner, make(_adapt), make(_predict), make(_best_logit)),
    *(make(_leave_out), skips_rows, make(_describe)),
  )


def _make_learner(config):
  """Return the learner, and whether its `adapt` skips rows without an image.

  Batch statistics of a support would count such rows.
  """
  if config.learner.to_dict().get('norm') not in (None, 'batch'):
    try:
      return setup.make_learner(config, varies=True), True
    except core.BadInput:
      pass  # it takes episodes of one size
  return setup.make_learner(config), False


def _adapt(learner, params, support, key):
  task = learner.adapt(params, support, key, train=False)
  with normalization.recording() as statistics:
    learner.predict(params, task, support.x, None)
  return Adapted(task, statistics)


def _logits(learner, params, adapted, x, classes):
  with normalization.replaying(adapted.statistics):
    logits = learner.predict(params, adapted.task, x, None)
  is_present = jnp.arange(logits.shape[-1]) < classes
  return jnp.where(is_present, logits, -jnp.inf)


def _predict(learner, params, adapted, x, classes, temperature):
  logits = _logits(learner, params, adapted, x, classes)
  return jax.nn.softmax(logits / temperature, axis=-1)


def _best_logit(learner, params, adapted, x, classes):
  return _logits(learner, params, adapted, x, classes).max(axis=-1)


def _leave_out(learner, params, support, key, row, classes):
  rows = jnp.arange(support.x.shape[0] - 1)
  rows = rows + (rows >= row)
  rest = core.Examples(support.x[rows], support.y[rows])
  adapted = _adapt(learner, params, rest, key)
  return _predict(learner, params, adapted, support.x[row][None], classes, 1.0)[
    0
  ]


def _describe(learner, params, support, key):
  # Queries only give metrics that are not returned.
  episode = core.Episode(support, support._replace(y=jnp.abs(support.y)))
  metrics: dict[str, Any] = learner.evaluate(params, episode, key)
  return {
    name: value
    for name, value in metrics.items()
    if name.startswith(_ADAPTATION) and value.ndim == 0
  }


def param_shapes(
  config: ConfigDict, learner: core.Learner, shape: tuple[int, int, int]
) -> core.PyTree:
  """Return the shapes of the parameters of a learner.

  Args:
    config: of its run.
    learner: of the config.
    shape: (H, W, C) of the images.

  Raises:
    core.BadInput: it cannot take such images.
  """
  rules = config.episode
  others = rules.query if rules.transductive else rules.unlabelled
  rows = rules.way * (rules.shot + others)
  x = jax.ShapeDtypeStruct((rows, *shape), jnp.float32)
  examples = core.Examples(x, jax.ShapeDtypeStruct((rows,), jnp.int32))
  key = jax.eval_shape(jax.random.key, 0)
  try:
    return jax.eval_shape(learner.init, key, core.Episode(examples, examples))
  except (TypeError, ValueError) as error:
    raise core.BadInput(
      f'learner {config.learner.name!r} cannot take images of shape {shape}: '
      f'{error}'
    ) from error
