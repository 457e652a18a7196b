"""Classifies images by a network that was adapted to one task."""

import dataclasses
import functools
from typing import TYPE_CHECKING
from typing import Any

from flax import errors
import jax
import numpy as np

from hyperudl import core
from hyperudl.models import bundle
from hyperudl.models import formats
from hyperudl.models import images as images_lib
from hyperudl.models import programs
from hyperudl.models import report as report_lib
from hyperudl.models.images import Images
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath

if TYPE_CHECKING:
  from hyperudl.models.model import Model

BATCH = 256  # queries that are read at a time
_BLOCK = 32  # queries that are computed at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """A network adapted to a few labelled images; made by `Model.adapt`.

  The answer for one image does not depend on what else is classified.
  """

  model: 'Model'
  adapted: programs.Adapted
  classes: np.ndarray  # [C], as they were given, sorted
  support: core.Examples  # f32[S, H, W, C], i32[S] of -1 or a row of `classes`
  seed: int
  temperature: float = 1.0  # that logits are divided by

  def predict_proba(self, queries: Images, batch: int = BATCH) -> np.ndarray:
    """Return the probabilities f32[n, C] of each class.

    Args:
      queries: images in any form that `Model.adapt` takes, or a folder.
      batch: images in memory at a time; it changes no result.

    Raises:
      core.BadInput: naming the first image that is none.
    """
    parts = [np.zeros((0, len(self.classes)), np.float32)]
    for x in images_lib.batches(queries, self.model.inputs, batch):
      parts.append(self.probabilities(x))
    return np.concatenate(parts)

  def probabilities(self, x: np.ndarray) -> np.ndarray:
    """Return f32[n, C] of images f32[n, H, W, C]."""
    count, parts = len(self.classes), [np.zeros((0, self.model.way))]
    predict = self.model.programs.predict
    for block in _blocks(x):
      of_block = self.model.params, self.adapted, block, count
      parts.append(predict(*of_block, self.temperature))
    return np.concatenate(parts)[: len(x), :count].astype(np.float32)

  def best_logits(self, queries: Images, batch: int = BATCH) -> np.ndarray:
    """Return the largest logit f32[n] of each image, at temperature 1.

    It is small where an image is far from all classes, which probabilities do
    not show: they only compare classes (Vaze et al. 2022, arXiv:2110.06207).
    """
    found = [np.zeros(0, np.float32)]
    for x in images_lib.batches(queries, self.model.inputs, batch):
      parts = [
        self.model.programs.best_logit(
          self.model.params, self.adapted, block, len(self.classes)
        )
        for block in _blocks(x)
      ]
      found.append(np.concatenate(parts)[: len(x)])
    return np.concatenate(found)

  def predict(self, queries: Images, batch: int = BATCH) -> np.ndarray:
    """Return the most probable class of each image, [n]."""
    return self.classes[self.predict_proba(queries, batch).argmax(axis=1)]

  @functools.cached_property
  def report(self) -> dict[str, Any]:
    """What can be said about the task without other images, for people.

    `leave_one_out`: the accuracy of each labelled image after adapting to all
    others, with its 95% interval, or why there is none. `adaptation`: of
    learners that adapt to unlabelled images, how far and by which gate.
    `label_next`: rows of the unlabelled images, the least certain first.
    """
    return report_lib.make(self)

  @functools.cached_property
  def left_out(self) -> report_lib.LeftOut:
    """Probabilities of each labelled image after adapting to all others."""
    return report_lib.leave_one_out(self)

  def with_temperature(self, temperature: float) -> 'Task':
    """Return the task with logits divided by a temperature above 0."""
    task = dataclasses.replace(self, temperature=temperature)
    if 'left_out' in vars(self):  # it does not depend on the temperature
      vars(task)['left_out'] = self.left_out
    return task

  def calibrate(self, temperature: float | str = 'auto') -> 'Task':
    """Return the task with a temperature that suits it.

    Args:
      temperature: a number above 0; 'auto': fitted to the images left out one
        by one, if there are at least 20 and each class has two, and held near
        that which the model carries (`Model.calibrate`), or 1; with fewer
        images it is that.
    """
    if temperature == 'auto':
      temperature = report_lib.fit_temperature(self)
    return self.with_temperature(float(temperature))

  def save(self, path: StrPath) -> None:
    """Write the task, with its model, to one `.npz` file for `load_task`.

    The file has the labelled and unlabelled images too.

    Raises:
      core.Unwritable: the disk is full or may not be written.
    """
    state = jax.device_get({'adapted': self.adapted, 'support': self.support})
    meta = {
      **self.model.to_meta(bundle.TASK),
      'classes': self.classes.tolist(),
      'temperature': float(self.temperature),
      'seed': self.seed,
    }
    arrays = self.model.to_arrays() | serialization.name_leaves(state)
    bundle.write(path, arrays, meta)

  def export(self, path: StrPath) -> None:
    """Write the adapted network for other programs.

    Args:
      path: of the file. Its ending chooses the format: `.npz` and
        `.safetensors` have the weights that predictions use, by name, and a
        description; `.stablehlo` (for `jax.export.deserialize`) and `.onnx`
        compute probabilities f32[n, C] of pixels f32[n, H, W, C] in [0, 1], for
        any n.

    Raises:
      core.BadInput: another ending, a missing package, or an operation that
        `.onnx` lacks.
      core.Unwritable: the disk is full or may not be written.
    """
    formats.write(self, path)

  def __reduce__(self):
    """Pickle the fields, without what is computed from them."""
    values = [getattr(self, f.name) for f in dataclasses.fields(self)]
    return Task, (values[0], *jax.device_get(values[1:]))


def _blocks(x):
  """Yield images in blocks of one size, filled up with black ones.

  A program of another size would round differently.
  """
  for start in range(0, len(x), _BLOCK):
    block = x[start : start + _BLOCK]
    filled = np.zeros((_BLOCK, *x.shape[1:]), np.float32)
    filled[: len(block)] = block
    yield filled


def make(
  model: 'Model', support: core.Examples, classes: np.ndarray, seed: int
) -> Task:
  """Return the task of a model and its images.

  Args:
    model: trained.
    support: f32[S, H, W, C] and i32[S]; -1 marks unlabelled images.
    classes: [C], at most the model's `way`.
    seed: of the learner's own random numbers.

  Raises:
    core.BadInput: the learner cannot take such a support.
  """
  check_support(model, support)
  try:
    key = jax.random.key(seed)
    adapted = model.programs.adapt(model.params, support, key)
  except (TypeError, ValueError, errors.FlaxError) as error:
    if isinstance(error, core.BadInput):
      raise
    raise core.BadInput(
      f'learner {model.config.learner.name!r} cannot adapt to '
      f'{len(support.y)} images: {" ".join(str(error).split())[:200]}'
    ) from error
  return Task(model, adapted, classes, support, seed)


def check_support(model: 'Model', support: core.Examples) -> None:
  """Refuse a support that is not of the size that the learner joins.

  Raises:
    core.BadInput: saying how many images of each class it takes.
  """
  learner, rules = model.config.learner, model.config.episode
  if learner.get('aggregation') != 'concat':
    return
  others = rules.query if rules.transductive else rules.unlabelled
  shots, slots = rules.shot, rules.shot + others
  rows, labelled = len(support.y), support.y[support.y >= 0]
  if rows != slots * rules.way or np.bincount(labelled).max() > slots:
    raise core.BadInput(
      f'{len(labelled)} labelled and {rows - len(labelled)} unlabelled images: '
      f'this {learner.name!r} joins the images of a class, and takes {shots} '
      f'of each of {rules.way} classes and {others * rules.way} unlabelled '
      "ones; train with learner.aggregation='mean' for other numbers"
    )
