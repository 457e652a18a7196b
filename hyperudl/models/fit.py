"""Trains a network on arrays of images, from Python."""

import importlib
import os
from typing import Any

import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.core import config_flag
from hyperudl.core.config import ConfigDict
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npz_file
from hyperudl.models import loading
from hyperudl.models.model import Model
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import setup
from hyperudl.training import trainer

_NAME = 'images'  # of the data set in the working directory


def fit(
  images: np.ndarray,
  labels: Any,
  config: str = 'udl',
  *,
  workdir: StrPath,
  **overrides: Any,
) -> Model:
  """Train a network on images of many classes; the same call resumes.

  It is the training of `python -m hyperudl.train`, on WORKDIR/images.npz. By
  default classes are divided into train, valid and test.

  Args:
    images: uint8[n, H, W] or [n, H, W, C], or floats in [0, 1].
    labels: [n], integers or strings.
    config: a file of `configs/` without its ending, optionally with a variant:
      'protonet:way=3,shot=1'.
    workdir: folder of the run, made if it is missing.
    **overrides: fields of the config, with __ for the points:
      `optimizer__learning_rate=0.01`.

  Returns:
    The network after the last step.

  Raises:
    core.Error: as the command; bad images or fields are found before anything
      but the images is written.
  """
  name, _, variant = config.partition(':')
  made = _read_config(name, ','.join(filter(None, (_NAME, variant))))
  made = made.copy_and_resolve_references().unlock()
  made.data.dir = os.fspath(workdir)
  for key, value in overrides.items():
    _set(made, key.replace('__', '.'), value)
  made.lock()
  setup.check(made)
  arrays = {'images': np.asarray(images), 'labels': np.asarray(labels)}
  table = class_table.from_arrays(arrays, _NAME)
  npz_file.write(table, os.path.join(workdir, f'{_NAME}.npz'), checksum=False)
  trainer.train(made, workdir)
  return loading.load(workdir, step='latest')


def _read_config(name, variant) -> ConfigDict:
  """Return the config of a file of `configs/` with a variant."""
  config_flag.let_configs_be_imported()
  if name not in config_flag.config_names():
    raise core.BadInput(
      f'there is no config {name!r}; choose one of '
      f'{", ".join(config_flag.config_names())}'
    )
  module = importlib.import_module(f'configs.{name}')
  try:
    return module.get_config(variant)
  except ValueError as error:
    raise core.BadInput(f'config={name}:{variant}: {error}') from error


def _set(config, name, value):
  if name not in config_lib.flatten(config):
    raise core.BadInput(f'there is no field config.{name}')
  try:
    config.update_from_flattened_dict({name: value})
  except (TypeError, ValueError) as error:
    text = ' '.join(str(error).split())[:160]
    raise core.BadInput(f'config.{name}={value!r}: {text}') from error
