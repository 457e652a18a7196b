"""Calibrates a network on tasks of classes that it was not trained on."""

import math
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import special

from hyperudl import core
from hyperudl.evaluation import calibration
from hyperudl.models import images as images_lib
from hyperudl.models.images import Images
from hyperudl.training import setup

if TYPE_CHECKING:
  from hyperudl.models.model import Model

_COUNTS = (2, 5, 10, 20)  # classes of a task, beside `way`
_SHOTS = (1, 5)  # labelled images of each class
_QUERIES = 5  # of each class
_TASKS = 40  # for each number of classes and shots


class Predictions(NamedTuple):
  """What is predicted for images of classes that a support has, and others."""

  p: np.ndarray  # f32[n, C], probabilities of images of its classes
  y: np.ndarray  # i[n], their classes
  inside: np.ndarray  # f32[n], their largest logits
  outside: np.ndarray  # f32[m], those of images of other classes


def measure(
  model: 'Model', images: Images = None, labels: Any = None
) -> dict[str, Any]:
  """Return temperatures and thresholds that suit classes never trained on.

  Args:
    model: trained.
    images: of classes that it was not trained on, as `Model.adapt` takes them;
      None: those of the validation classes of its run.
    labels: [n], their classes.

  Returns:
    `temperature`, `unknown` (a threshold of the largest logit), `auroc`
    and `ece` by the number of classes of a task, and `tasks`, the number that
    each was measured on.

  Raises:
    core.BadInput: there are fewer than 3 classes with 2 images, or the data of
      the run are gone.
  """
  x, rows = _by_class(model, images, labels)
  rules, shots = model.config.episode, _SHOTS
  counts = {c for c in (*_COUNTS, model.way) if c <= model.way}
  if model.config.learner.get('aggregation') == 'concat':
    counts, shots = {model.way}, (rules.shot,)
  counts = sorted(c for c in counts if c < len(rows))
  if not counts:
    raise core.BadInput(
      f'{len(rows)} classes with two images or more; a calibration takes '
      'at least 3, one more than a task has'
    )
  found: dict[str, Any] = {
    'tasks': _TASKS * len(shots),
    **{name: {} for name in ('temperature', 'unknown', 'auroc', 'ece')},
  }
  for count in counts:
    rng = np.random.default_rng(count)
    drawn = [
      predict_task(model, x, rows, count, shot, rng)
      for shot in shots
      for _ in range(_TASKS)
    ]
    joined = Predictions(*map(np.concatenate, zip(*drawn)))
    for name, value in summarise(joined).items():
      found[name][str(count)] = value
  return found


def predict_task(
  model: 'Model',
  x: np.ndarray,
  rows: list[np.ndarray],
  count: int,
  shot: int,
  rng: np.random.Generator,
) -> Predictions:
  """Draw a task of some of the classes and predict further images.

  Args:
    model: trained.
    x: f32[n, H, W, C], images.
    rows: of each class, i64[n_c].
    count: classes of the task, fewer than there are.
    shot: labelled images of each class.
    rng: draws classes and images.
  """
  order = rng.permutation(len(rows))[: 2 * count]
  mixed = [rng.permutation(rows[c]) for c in order]
  known, others = mixed[:count], mixed[count:]
  shots = [part[: min(shot, len(part) - 1)] for part in known]
  queries = [part[len(s) :][:_QUERIES] for part, s in zip(known, shots)]
  label = lambda parts: np.repeat(range(count), list(map(len, parts)))
  task = model.adapt(x[np.concatenate(shots)], label(shots))
  inside = x[np.concatenate(queries)]
  outside = x[np.concatenate([part[:_QUERIES] for part in others])]
  return Predictions(
    task.probabilities(inside),
    label(queries),
    task.best_logits(inside),
    task.best_logits(outside),
  )


def summarise(found: Predictions) -> dict[str, float]:
  """Return the temperature, the threshold, and how good they are.

  The threshold is where the rates of images of other classes and of images of
  the task's own classes that fall below it differ most (Youden 1950).
  """
  logits = to_logits(found.p)
  temperature = calibration.fit_temperature(logits, found.y)
  p = special.softmax(logits / temperature, axis=-1)
  inside, outside = np.sort(found.inside), np.sort(found.outside)
  places = np.unique(np.concatenate([inside, outside]))
  below = lambda values: np.searchsorted(values, places) / len(values)
  return {
    'temperature': temperature,
    'unknown': float(places[np.argmax(below(outside) - below(inside))]),
    'auroc': calibration.auroc(-inside, -outside),
    'ece': calibration.expected_calibration_error(p, found.y),
  }


def to_logits(p: np.ndarray) -> np.ndarray:
  """Return logits f64[n, C] of probabilities f32[n, C]."""
  return np.log(np.maximum(p.astype(np.float64), 1e-30))


def stored(model: 'Model', name: str, count: int) -> float | None:
  """Return what a model carries for tasks of `count` classes, if it does.

  Between two numbers of classes it is interpolated over their logarithms.

  Args:
    model: perhaps calibrated.
    name: 'temperature' or 'unknown'.
    count: classes of the task.

  Raises:
    core.BadInput: the file of the model has none, but something else.
  """
  if 'calibration' not in model.about:
    return None
  try:
    values = model.about['calibration'][name]
    known = sorted((int(key), float(value)) for key, value in values.items())
    at, values = np.array(known).T
    found = float(np.interp(math.log(count), np.log(at), values))
    is_legal = math.isfinite(found) and (name == 'unknown' or found > 0)
    if not is_legal or at.min() < 2:
      raise ValueError(f'{found}')
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise core.BadInput(
      f'the calibration of this model is damaged ({error}): use '
      'Model.calibrate again'
    ) from error
  return found


def _by_class(model, images, labels):
  """Return (f32[n, H, W, C], rows of each class that has several images)."""
  if images is None:
    x, y = _valid_images(model)
  else:
    x = images_lib.to_array(images, model.inputs)
    y = np.unique(np.asarray(labels), return_inverse=True)[1]
    if y.shape != (len(x),):
      raise core.BadInput(f'{len(x)} images and labels of shape {y.shape}')
  rows = [np.flatnonzero(y == c) for c in range(y.max(initial=-1) + 1)]
  return x, [of_class for of_class in rows if len(of_class) > 1]


def _valid_images(model):
  """Return (f32[n, H, W, C], i64[n]) of the validation classes of a run."""
  if 'run' not in model.config:
    raise core.BadInput(
      'this model has no calibration, and its training data are not known: '
      'give Model.calibrate images of classes that it was not trained on, or '
      'load its run folder'
    )
  data = setup.load_data(model.config, 'valid')
  rows = np.concatenate(
    [start + np.arange(n) for start, n in zip(data.starts, data.counts)]
  )
  x = np.asarray(data.images[rows], np.float32) / 255
  return x, np.repeat(np.arange(len(data.counts)), data.counts)
