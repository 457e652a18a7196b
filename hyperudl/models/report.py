"""Tells how good a task is likely to be, from its own images alone."""

import dataclasses
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from hyperudl import core
from hyperudl.evaluation import calibration
from hyperudl.models import calibrate
from hyperudl.models.images import Images

if TYPE_CHECKING:
  from hyperudl.models.task import Task

_MOST = 20  # rows of `label_next`
_ENOUGH = 20  # predictions to fit a temperature to


class LeftOut(NamedTuple):
  """What is predicted of labelled images that were left out of the support."""

  p: np.ndarray  # f32[m, C], probabilities
  y: np.ndarray  # i32[m], true classes
  problem: str = ''  # why there are none


def leave_one_out(task: 'Task') -> LeftOut:
  """Predict each labelled image after adapting to all others.

  Images that are the only ones of their class are not predicted: without them
  the class would not exist.
  """
  y, count = task.support.y, len(task.classes)
  shots = np.bincount(y[y >= 0], minlength=count)
  rows = [row for row in np.flatnonzero(y >= 0) if shots[y[row]] > 1]
  empty = np.zeros((0, count), np.float32), np.zeros(0, np.int32)
  model = task.model
  if not rows:
    return LeftOut(*empty, 'there is only one image of each class')
  if model.config.learner.get('aggregation') == 'concat':
    problem = 'the learner takes a fixed number of images of a class'
    return LeftOut(*empty, problem)
  if model.programs.skips_rows:
    p = [_without(task, row) for row in rows]
  else:
    shared = model.params, task.support, jax.random.key(task.seed)
    leave_out = model.programs.leave_out
    p = jax.device_get([leave_out(*shared, row, count)[:count] for row in rows])
  return LeftOut(np.stack(p), y[np.array(rows)])


def _without(task, row):
  """Return the probabilities f32[C] of a row, adapted to all others."""
  (x, y, context), model = task.support, task.model
  rest = core.Examples(x, y.copy(), context)
  rest.y[row] = core.NO_IMAGE
  key = jax.random.key(task.seed)
  adapted = model.programs.adapt(model.params, rest, key)
  others = dataclasses.replace(task, adapted=adapted, temperature=1.0)
  return others.probabilities(x[row : row + 1])[0]


def interval(correct: int, count: int) -> tuple[float, float]:
  """Return the 95% interval of a proportion (Wilson 1927)."""
  found = stats.binomtest(correct, count).proportion_ci(method='wilson')
  return float(found.low), float(found.high)


def make(task: 'Task') -> dict[str, Any]:
  """Return the parts of `Task.report`."""
  left_out, y = task.left_out, task.support.y
  if left_out.problem:
    accuracy = {'accuracy': None, 'problem': left_out.problem}
  else:
    correct = int((left_out.p.argmax(axis=1) == left_out.y).sum())
    low, high = interval(correct, len(left_out.y))
    accuracy = {
      'accuracy': correct / len(left_out.y),
      'ci95': (low, high),
      'images': len(left_out.y),
    }
  parts = {
    'classes': {
      str(name): int((y == index).sum())
      for index, name in enumerate(task.classes)
    },
    'unlabelled': int((y < 0).sum()),
    'temperature': task.temperature,
    'leave_one_out': accuracy,
    'adaptation': _adaptation(task),
    'label_next': [],
  }
  if parts['unlabelled']:
    entropies = calibration.entropy(task.predict_proba(task.support.x[y < 0]))
    order = np.argsort(-entropies, kind='stable')[:_MOST]
    parts['label_next'] = [(int(row), float(entropies[row])) for row in order]
  return parts


def _adaptation(task):
  """Return how far the learner adapts to unlabelled images, by name."""
  model = task.model
  if model.config.learner.name != 'udl' or not (task.support.y < 0).any():
    return {}
  key = jax.random.key(task.seed)
  values = model.programs.describe(model.params, task.support, key)
  return {name: float(value) for name, value in values.items()}


def fit_temperature(task: 'Task') -> float:
  """Return the temperature that suits the images left out.

  Without `_ENOUGH` of them, or where a class has only one image, it is what the
  model carries (`Model.calibrate`), or 1.
  """
  count, y = len(task.classes), task.support.y
  stored = calibrate.stored(task.model, 'temperature', count) or 1.0
  labelled = y[y >= 0]
  if len(labelled) < _ENOUGH or np.bincount(labelled).min() < 2:
    return stored
  p, y, _ = task.left_out
  if not len(y):
    return stored
  logits = calibrate.to_logits(p)
  return calibration.fit_temperature(logits, y, near=stored)


def check_unknown(task: 'Task', unknown: float | str | None) -> None:
  """Refuse what `are_unknown` does not take.

  Raises:
    core.BadInput: it is no probability, or the model has no threshold.
  """
  if unknown == 'auto':
    if calibrate.stored(task.model, 'unknown', len(task.classes)) is None:
      raise core.BadInput(
        "unknown='auto': this model has no threshold for unknown classes; call "
        'Model.calibrate first, or give a probability'
      )
  elif unknown is not None and not (
    isinstance(unknown, int | float) and 0 <= unknown <= 1
  ):
    raise core.BadInput(
      f"unknown={unknown!r}; expected 'auto', None or a probability"
    )


def are_unknown(
  task: 'Task', queries: Images, p: np.ndarray, unknown: float | str | None
) -> np.ndarray:
  """Return whether images are of none of the classes, bool[n].

  Args:
    task: adapted.
    queries: images.
    p: f32[n, C], their probabilities.
    unknown: of which the largest probability falls short; 'auto': the largest
      logit falls short of the threshold of the model; None: no image is.
  """
  if unknown is None:
    return np.zeros(len(p), bool)
  if unknown == 'auto':
    limit = calibrate.stored(task.model, 'unknown', len(task.classes))
    return task.best_logits(queries) < limit
  return p.max(axis=1) < unknown
