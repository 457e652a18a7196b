"""Adapts a trained network by the conventions of scikit-learn."""

import inspect
import os
from typing import Any

import numpy as np

from hyperudl import core
from hyperudl.models import loading
from hyperudl.models import report
from hyperudl.models.images import Images
from hyperudl.models.model import Model
from hyperudl.models.task import Task
from hyperudl.storage.filesystem import StrPath


class NotFitted(core.BadInput, AttributeError):
  """A classifier was asked before `fit`."""


class FewShotClassifier:
  """Classifies images from a few examples of each class.

  The network is trained already; `fit` adapts it to your classes. Everything of
  scikit-learn that takes a classifier takes it too.
  """

  _estimator_type = 'classifier'

  def __init__(
    self,
    model: Model | StrPath = 'glyphs',
    temperature: float | str = 'auto',
    unknown: float | str | None = None,
    seed: int = 0,
  ):
    """Store the parameters; nothing is loaded yet.

    Args:
      model: a `Model`, or what `hyperudl.load` takes.
      temperature: that logits are divided by; 'auto': one that suits the images
        left out, see `Task.calibrate`.
      unknown: predictions with a smaller probability become -1, or 'unknown'
        where classes are strings; 'auto': where the largest logit is below the
        threshold that the model carries (`Model.calibrate`); None: none do.
      seed: of the learner's own random numbers.
    """
    self.model = model
    self.temperature = temperature
    self.unknown = unknown
    self.seed = seed

  def fit(
    self, X: Images, y: Any, X_unlabelled: Images | None = None
  ) -> 'FewShotClassifier':
    """Adapt to images and their classes, and return self.

    Args:
      X: images, see `Model.adapt`; or one flat image a row, f[n, H W C].
      y: [n], their classes.
      X_unlabelled: further images of these classes.

    Raises:
      core.BadInput: a faulty parameter, image or class.
    """
    model = self.model
    if not isinstance(model, Model):
      try:
        model = loading.load(model)
      except core.BadInput as error:
        raise core.BadInput(
          f'FewShotClassifier(model={_short(model)}): {error}; or a Model that '
          'hyperudl.load or hyperudl.fit has returned'
        ) from error
    temperature = self.temperature
    if temperature != 'auto' and not (
      isinstance(temperature, int | float) and temperature > 0
    ):
      raise core.BadInput(
        f"temperature={temperature!r}; expected 'auto' or a number above 0"
      )
    if self.unknown == 'auto' and 'calibration' not in model.about:
      model = model.calibrate()
    task = model.adapt(X, _classes(y), X_unlabelled, self.seed)
    self.task_: Task = task.calibrate(temperature)
    report.check_unknown(self.task_, self.unknown)
    self.classes_ = self.task_.classes
    self.n_features_in_ = int(np.prod(model.inputs.shape))
    return self

  def predict_proba(self, X: Images) -> np.ndarray:
    """Return the probabilities f32[n, C] of `classes_`."""
    return self._task().predict_proba(X)

  def predict(self, X: Images) -> np.ndarray:
    """Return the most probable class of each image, or that it is unknown."""
    p = self.predict_proba(X)
    labels = self.classes_[p.argmax(axis=1)]
    if self.unknown is None:
      return labels
    name = 'unknown' if labels.dtype.kind in 'OUS' else -1
    marked = report.are_unknown(self._task(), X, p, self.unknown)
    return np.where(marked, name, labels)

  def score(self, X: Images, y: Any) -> float:
    """Return the accuracy of `predict`."""
    return float(np.mean(self.predict(X) == np.asarray(y)))

  @property
  def loo_score_(self) -> float:
    """Accuracy of each image of `fit` after adapting to the others; or NaN."""
    p, y, _ = self._task().left_out
    return float((p.argmax(axis=1) == y).mean()) if len(y) else float('nan')

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """Return the parameters of the constructor by name."""
    del deep
    return {name: getattr(self, name) for name in self._names()}

  def set_params(self, **params: Any) -> 'FewShotClassifier':
    """Set parameters by name, and return self."""
    for name, value in params.items():
      if name not in self._names():
        raise core.BadInput(
          f'FewShotClassifier has no parameter {name!r}; it has '
          f'{", ".join(self._names())}'
        )
      setattr(self, name, value)
    return self

  @classmethod
  def _names(cls):
    return list(inspect.signature(cls.__init__).parameters)[1:]

  def _task(self):
    if not hasattr(self, 'task_'):
      raise NotFitted(
        'this FewShotClassifier is not fitted yet: call fit first'
      )
    return self.task_

  def __repr__(self) -> str:
    """Return the call that makes an equal, unfitted classifier."""
    values = (f'{k}={_short(v)}' for k, v in self.get_params().items())
    return f'FewShotClassifier({", ".join(values)})'

  def __sklearn_tags__(self) -> Any:
    """Describe the classifier; only scikit-learn calls this."""
    from sklearn import utils

    return utils.Tags(
      estimator_type='classifier',
      target_tags=utils.TargetTags(required=True),
      transformer_tags=None,
      regressor_tags=None,
      classifier_tags=utils.ClassifierTags(),
    )


def _short(value):
  return (
    repr(value)
    if isinstance(value, int | float | str)
    else (
      os.fspath(value) if isinstance(value, os.PathLike) else str(value)[:40]
    )
  )


def _classes(y):
  """Return labels as an array [n]; a column counts as one.

  Raises:
    core.BadInput: they are missing, no labels of classes, or not finite.
  """
  if y is None:
    raise core.BadInput('requires y to be passed, but the target y is None')
  y = np.asarray(y)
  if y.ndim == 2 and y.shape[1] == 1:
    y = y[:, 0]
  if y.dtype.kind == 'f':
    if not np.isfinite(y).all():
      raise core.BadInput('labels with NaN or inf; expected classes')
    if (y != np.floor(y)).any():
      raise core.BadInput(
        'Unknown label type: continuous; expected classes, not numbers such as '
        f'{y[y != np.floor(y)][0]}'
      )
  return y
