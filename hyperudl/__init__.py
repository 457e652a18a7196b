"""Few-shot and meta-learning with hypernetworks in JAX.

`load` a model and `adapt` it to a few labelled images, or `fit` one of your
own; `FewShotClassifier` follows the conventions of scikit-learn. What needs jax
is imported when it is first used.
"""

import importlib
from typing import Any

__version__ = '0.1.0'
__all__ = (
  'FewShotClassifier',
  'Model',
  'Task',
  'fit',
  'load',
  'load_task',
)


def __getattr__(name: str) -> Any:
  """Return a public name of `hyperudl.models`, which is imported now."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module('hyperudl.models'), name)


def __dir__() -> list[str]:
  """Return the public names, also those that are not imported yet."""
  return sorted({*globals(), *__all__})
