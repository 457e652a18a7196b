"""Classifies your own images by trained networks."""

from hyperudl.models.classifier import FewShotClassifier
from hyperudl.models.fit import fit
from hyperudl.models.loading import load
from hyperudl.models.loading import load_task
from hyperudl.models.model import Model
from hyperudl.models.task import Task

__all__ = (
  'FewShotClassifier',
  'Model',
  'Task',
  'fit',
  'load',
  'load_task',
)
