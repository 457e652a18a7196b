"""Answers the requests of the demo page: adapts a network and classifies."""

import base64
import binascii
import threading
from typing import Any

import numpy as np

from hyperudl import core
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_inputs
from hyperudl.evaluation import calibration
from hyperudl.models import calibrate
from hyperudl.models import report
from hyperudl.models.model import Model
from hyperudl.models.task import Task
from hyperudl.storage import serialization

MOST_IMAGES = 300  # of a request, in all
MOST_CHARACTERS = 100  # of the name of a class
MOST_FILTERS = 16
_EXPECTED = (
  'expected {"classes": [{"name": ..., "images": [...]}], "unlabelled": '
  '[...], "queries": [...]}, where images are data URLs'
)


class Answers:
  """Answers requests one at a time; the task of the last one is kept."""

  def __init__(self, model: Model):
    """Store the network.

    Args:
      model: trained.

    Raises:
      core.BadInput: it takes images that no file has.
    """
    image_inputs.convert(np.zeros((1, 1, 1), np.uint8), model.inputs)
    self.model = model
    self._lock = threading.Lock()
    self._last: tuple[Any, Task | None] = (None, None)

  def describe(self) -> dict[str, Any]:
    """Return the description of the network that the page shows."""
    model = self.model
    return {
      'learner': model.config.learner.name,
      'data': str(model.about.get('data', '')),
      'way': model.way,
      'inputs': model.inputs.to_dict(),
      'most_images': MOST_IMAGES,
      'most_characters': MOST_CHARACTERS,
    }

  def classify(self, request: Any) -> dict[str, Any]:
    """Return the classes, predictions of all queries, and filters.

    Args:
      request: JSON with `classes`, `unlabelled` and `queries`, see `_EXPECTED`.

    Raises:
      core.BadInput: it is faulty, or the network cannot take such images.
    """
    queries = _images(request, 'queries')
    with self._lock:
      task = self._adapt(request)
      x = _read(queries, 'query', task.model.inputs)
      return {
        'classes': task.classes.tolist(),
        'temperature': task.temperature,
        'predictions': _predictions(task, x),
        'filters': filters(task).tolist(),
      }

  def report(self, request: Any) -> dict[str, Any]:
    """Return `Task.report` of the classes of a request; see `classify`."""
    with self._lock:
      return self._adapt(request).report

  def _adapt(self, request):
    """Return the task of a request."""
    support = _support(request, self.model.way)
    if support != self._last[0]:
      classes, unlabelled = support
      shown = [(name, data) for name, images in classes for data in images]
      inputs = self.model.inputs
      x = _read([data for _, data in shown], 'image', inputs)
      others = _read(unlabelled, 'unlabelled image', inputs)
      task = self.model.adapt(x, [name for name, _ in shown], others)
      self._last = support, task.calibrate()
    return self._last[1]


def _support(request, way):
  """Return ([(name, data URLs) of each class], unlabelled data URLs).

  Raises:
    core.BadInput: saying what is wrong.
  """
  unlabelled = _images(request, 'unlabelled')
  classes = request.get('classes')
  if not isinstance(classes, list) or not all(
    isinstance(each, dict) and isinstance(each.get('name'), str)
    for each in classes
  ):
    raise core.BadInput(_EXPECTED)
  if not 2 <= len(classes) <= way:
    raise core.BadInput(
      f'{len(classes)} classes; this network takes 2 to {way}'
    )
  found = [(each['name'].strip(), _images(each, 'images')) for each in classes]
  names = [name for name, _ in found]
  for name, images in found:
    if not 0 < len(name) <= MOST_CHARACTERS or '\0' in name:
      raise core.BadInput(
        f'a class is called {name[:20]!r}; expected 1 to {MOST_CHARACTERS} '
        'characters'
      )
    if names.count(name) > 1:
      raise core.BadInput(f'two classes are called {name!r}; rename one')
    if not images:
      raise core.BadInput(f'class {name!r} has no image; add one')
  count = sum(len(images) for _, images in found) + len(unlabelled)
  _check_count(count + len(_images(request, 'queries')))
  # In any order of the classes sums are the same, to the last bit.
  return sorted(found, key=lambda pair: pair[0]), unlabelled


def _check_count(count):
  if count > MOST_IMAGES:
    raise core.BadInput(
      f'{count} images; expected at most {MOST_IMAGES}: remove some'
    )


def _images(values, name):
  """Return a list of data URLs of a request; an absent one is empty."""
  found = values.get(name, []) if isinstance(values, dict) else None
  if not isinstance(found, list) or not all(
    isinstance(each, str) for each in found
  ):
    raise core.BadInput(_EXPECTED)
  _check_count(len(found))
  return found


def _read(urls, what, inputs):
  """Return images f32[n, H, W, C] of data URLs."""
  out = np.empty((len(urls), *inputs.shape), np.float32)
  with image_file.without_warnings():
    for row, url in enumerate(urls):
      where = f'{what} {row + 1}'
      head, comma, body = url.partition(',')
      try:
        if not comma or not head.startswith('data:') or ';base64' not in head:
          raise ValueError
        data = base64.b64decode(body, validate=True)
      except (ValueError, binascii.Error):
        raise core.BadInput(
          f'{where}: expected a data URL, data:image/png;base64,...'
        ) from None
      out[row] = image_inputs.decode(data, where, inputs)
  return out / 255


def _predictions(task, x):
  """Return what is predicted of each image f32[n, H, W, C]."""
  if not len(x):
    return []
  p = task.predict_proba(x)
  unknown = [None] * len(x)  # the network carries no threshold
  if calibrate.stored(task.model, 'unknown', len(task.classes)) is not None:
    unknown = report.are_unknown(task, x, p, 'auto').tolist()
  return [
    {
      'probabilities': row.tolist(),
      'label': str(task.classes[row.argmax()]),
      'confidence': float(row.max()),
      'entropy': float(calibration.entropy(row.astype(np.float64))),
      'unknown': is_unknown,
    }
    for row, is_unknown in zip(p, unknown)
  ]


def filters(task: Task) -> np.ndarray:
  """Return filters f32[n, h, w, C] of the first adapted convolution.

  Args:
    task: adapted; n = 0 if its learner adapts no convolution of the images.
  """
  channels = task.model.inputs.channels
  for name, leaf in serialization.name_leaves(task.adapted.task).items():
    is_kernel = name.split('/')[-1] == 'kernel' and leaf.ndim == 4
    if is_kernel and leaf.shape[0] > 1 and leaf.shape[2] == channels:
      return np.moveaxis(np.asarray(leaf), -1, 0)[:MOST_FILTERS]
  return np.zeros((0, 1, 1, channels), np.float32)
