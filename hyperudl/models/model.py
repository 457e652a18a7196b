"""Adapts a trained network to a few labelled images."""

import dataclasses
import functools
import os
from typing import Any

from absl import logging
import jax
import numpy as np

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.datasets.image_inputs import Inputs
from hyperudl.models import bundle
from hyperudl.models import calibrate
from hyperudl.models import files
from hyperudl.models import images as images_lib
from hyperudl.models import programs
from hyperudl.models import task as task_lib
from hyperudl.models.images import Images
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A trained network, ready to be adapted; made by `load`."""

  config: ConfigDict  # of its run
  params: core.PyTree  # of its learner
  inputs: Inputs  # the images that it takes
  step: int  # outer updates
  # Data, licence, metrics and card, for people; `calibration`, if measured.
  about: dict[str, Any]

  @property
  def way(self) -> int:
    """The largest number of classes of a task."""
    return self.config.episode.way

  @functools.cached_property
  def programs(self) -> programs.Programs:
    """The compiled functions of its learner."""
    return programs.compile(self.config)

  def adapt(
    self,
    images: Images,
    labels: Any = None,
    unlabelled: Images | None = None,
    seed: int = 0,
  ) -> 'task_lib.Task':
    """Adapt to labelled images of up to `way` classes.

    Args:
      images: labelled ones: an array, a list of arrays, images of Pillow or
        paths; or, without `labels`, a folder of class folders or a CSV file
        `path,label`.
      labels: [n], numbers or strings.
      unlabelled: further images of these classes that look like the queries,
        in any form of `images`; a folder may have any structure.
      seed: of the learner's own random numbers.

    Returns:
      A `Task`, which classifies other images.

    Raises:
      core.BadInput: more classes than `way`, faulty images, or a support that
        this learner cannot take.
    """
    if labels is None:
      if not isinstance(images, str | os.PathLike):
        raise core.BadInput('images without labels: give labels too')
      listed = files.labelled(images)
      images, classes = listed.paths, np.array(listed.classes)
      y = np.array([listed.classes.index(label) for label in listed.labels])
    else:
      images = images_lib.to_list(images)
      classes, y = _number(labels, len(images))
    self._check_classes(classes)
    x = images_lib.to_array(images, self.inputs)
    others = [] if unlabelled is None else images_lib.to_list(unlabelled)
    if len(others):
      x = np.concatenate([x, images_lib.to_array(others, self.inputs)])
      y = np.append(y, np.full(len(x) - len(y), -1))
    support = core.Examples(x, y.astype(np.int32))
    return task_lib.make(self, support, classes, seed)

  def _check_classes(self, classes):
    if len(classes) > self.way:
      raise core.BadInput(
        f'{len(classes)} classes, and this model takes at most {self.way}: '
        'choose among them, or a model trained with more (episode.way)'
      )
    if len(classes) < 2:
      raise core.BadInput(
        f'one class ({classes[0]!r}); expected images of 2 to {self.way}'
      )

  def calibrate(self, images: Images = None, labels: Any = None) -> 'Model':
    """Return the model with temperatures and thresholds for unknown classes.

    They are measured on tasks of classes that it was not trained on, and are
    what `temperature='auto'` and `unknown='auto'` use.

    Args:
      images: of such classes, as `adapt` takes them; by default those of the
        validation classes of the run that the model was loaded from.
      labels: [n], their classes.

    Raises:
      core.BadInput: fewer than 3 classes of 2 images, or no run.
    """
    found = calibrate.measure(self, images, labels)
    return self._replace_about(calibration=found)

  def _replace_about(self, **values):
    model = dataclasses.replace(self, about={**self.about, **values})
    vars(model)['programs'] = self.programs
    return model

  def save(self, path: StrPath, licence: str = '', card: str = '') -> None:
    """Write the model to one `.npz` file, which `load` reads.

    A model of a run folder is calibrated on its validation classes first.

    Args:
      path: of the file.
      licence: of the data that it was trained on.
      card: what others should know before they use it.

    Raises:
      core.Unwritable: the disk is full or may not be written.
    """
    given = {'licence': licence, 'card': card}
    model = self._replace_about(**{k: v for k, v in given.items() if v})
    if 'run' in self.config and 'calibration' not in self.about:
      try:
        model = model.calibrate()
      except core.BadInput as error:
        logging.warning('%s: saved without a calibration: %s', path, error)
    bundle.write(path, model.to_arrays(), model.to_meta(bundle.MODEL))

  def to_arrays(self) -> dict[str, np.ndarray]:
    """Return the parameters by name, 'params/...'."""
    named = serialization.name_leaves({'params': jax.device_get(self.params)})
    return {name: np.asarray(leaf) for name, leaf in named.items()}

  def to_meta(self, form: str) -> dict[str, Any]:
    """Return the description of the model in a file of the format `form`."""
    values = self.config.to_dict()
    values.pop('run', None)
    # Paths of the machine that it was trained on.
    values['init_from'] = dict.fromkeys(values['init_from'], '')
    values['data'] = {**values['data'], 'dir': '', 'latents': ''}
    return {
      'format': form,
      'config': values,
      'inputs': self.inputs.to_dict(),
      'way': self.way,
      'step': self.step,
      'about': self.about,
    }

  def __reduce__(self):
    """Pickle the fields, without the compiled functions."""
    values = [getattr(self, f.name) for f in dataclasses.fields(self)]
    return Model, tuple(
      jax.device_get(v) if v is self.params else v for v in values
    )

  def __deepcopy__(self, memo: Any) -> 'Model':
    """Return the model itself, which cannot change."""
    del memo
    return self


def _number(labels, count):
  """Return (the classes among labels [n], the number of each label)."""
  labels = np.asarray(labels)
  if labels.shape != (count,) or not count:
    raise core.BadInput(
      f'labels of shape {labels.shape} and {count} images; expected one label '
      'for each image'
    )
  return np.unique(labels, return_inverse=True)
