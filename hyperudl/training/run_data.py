"""Loads the data of a run, and remembers which classes it was made with.

WORKDIR/data.json holds the classes of each split and what the images are like,
or the number of features of one.
A run that goes on, or is evaluated, is held to it.
"""

import json
import os
import pathlib
from typing import Any

from absl import logging

from hyperudl import core
from hyperudl import learners
from hyperudl.core.config import ConfigDict
from hyperudl.data import datasets
from hyperudl.data import episodes
from hyperudl.data import language
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import dataset as dataset_lib
from hyperudl.data.datasets import image_inputs
from hyperudl.data.datasets import partition
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import splits
from hyperudl.data.datasets import stored_split
from hyperudl.data.language import task_set
from hyperudl.storage import filesystem

FILE = 'data.json'
# The fields of `config.data` that decide which classes there are.
_FIELDS = ('dataset', 'classes', 'shuffle_classes', 'split_by')

Dataset = datasets.Dataset | task_set.TaskSet


def attach(
  config: ConfigDict, workdir: filesystem.StrPath, allow_new_classes: bool
) -> ConfigDict:
  """Return a config that holds its data to what the run in `workdir` stored.

  Args:
    config: of the run.
    workdir: its folder; without a `FILE` in it nothing is added.
    allow_new_classes: put classes that are not stored into test.

  Returns:
    A locked copy with the section `run`, which `load` reads.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return config
  values = {
    **config.to_dict(),
    'run': {'data': str(path), 'allow_new_classes': allow_new_classes},
  }
  return ConfigDict(values).lock()


def _read(config):
  """Return the content of the run's `FILE`, or None.

  Raises:
    core.BadInput: it is damaged.
  """
  if 'run' not in config:
    return None
  path = config.run.data
  try:
    record = json.loads(pathlib.Path(path).read_text('utf-8'))
    allow_new = config.run.allow_new_classes
    stored = stored_split.from_dict(record['split'], allow_new)
    fields = {name: record['data'][name] for name in _FIELDS}
    return fields, stored, _kind(record['inputs'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise core.BadInput(
      f'{path}: cannot be read ({filesystem.reason(error)}); restore it, or '
      'train in a new --workdir'
    ) from error


def read_inputs(workdir: filesystem.StrPath) -> image_inputs.Inputs:
  """Return what images the run in `workdir` was trained on.

  Raises:
    core.BadInput: it has no images, or its `FILE` is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  try:
    record = json.loads(path.read_text('utf-8'))
    return image_inputs.from_dict(record['inputs'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise core.BadInput(
      f'{path}: does not say what images the run was trained on '
      f'({filesystem.reason(error)}); restore it, or train again on images'
    ) from error


def _options(config, record):
  data = config.data
  stored = None
  # Another data set, or another division of it, is not the run's own.
  if record and record[0] == {name: data[name] for name in _FIELDS}:
    stored = record[1]
  ranges = '' if splits.is_count(data.classes) else str(data.classes)
  shuffle = data.shuffle_classes
  return partition.Options(ranges, shuffle, data.split_by, 0, stored)


def load(config: ConfigDict, split: str) -> Dataset:
  """Load the images, or the tasks with language, of one split.

  Args:
    config: of a run; `attach` holds it to the run's classes.
    split: train, valid, test or all.

  Raises:
    core.BadInput: an unknown set, a fault in its data, an impossible split, or
      a set that has changed since the run was made.
  """
  if 'language' in config:
    return language.load(config, split)
  data, record = config.data, _read(config)
  options = _options(config, record)
  # A number of classes, unlike ranges, limits only the training set.
  limits = split == 'train' or options.ranges
  dataset = datasets.load(
    data.dataset,
    split,
    data.dir,
    image_size=data.image_size,
    classes=data.classes if limits else 0,
    shuffle=data.shuffle_classes,
    split_by=data.split_by,
    stored=options.stored,
  )
  kind = _kind(_sizes(config, dataset))
  if record and kind != record[2]:
    raise core.BadInput(
      f'{data.dataset} has {kind}, and the run was trained on {record[2]}: '
      'choose a set like that (1 channel: gray, 3: colour), or train on this '
      'one'
    )
  return dataset


def _sizes(config, dataset):
  """Return the sizes of one image or row of features, by their names.

  Raises:
    core.BadInput: the learner cannot take features.
  """
  shape = dataset.images.shape[1:]
  if not class_table.is_features(dataset.images):
    return dict(zip(('height', 'width', 'channels'), shape))
  learners.check_features(config.learner.name)
  return {'features': shape[0]}


def _kind(inputs):
  if 'features' in inputs:
    return f'rows of {int(inputs["features"])} features'
  return f'images of {int(inputs["channels"])} channels'


def load_training(config: ConfigDict) -> tuple[Dataset, dict[str, Any]]:
  """Load the training set, and check that the run can be evaluated too.

  Args:
    config: as for `load`.

  Returns:
    (the set, what `write` stores of it; nothing for tasks with language).

  Raises:
    core.BadInput: as `load`, or a split that cannot fill the config's episodes.
  """
  if 'language' in config:
    dataset = language.load(config, 'train')
    episodes.check_fits(config, dataset, 'train')
    return dataset, {}
  data, options = config.data, _options(config, _read(config))
  dataset_lib.check_arguments('train', data.image_size, 0, data.split_by)
  table = resolve.read(data.dataset, data.dir, data.image_size)
  division = partition.divide(table, options)
  for note in (*table.notes, *division.notes):
    logging.warning('%s', note)
  count = 0 if options.ranges else int(data.classes or 0)
  dataset = dataset_lib.take(table, division, 'train', count, data.image_size)
  checks.require_contrast([dataset.images], table.where)
  inputs = _sizes(config, dataset)
  episodes.check_fits(config, dataset, 'train')
  for split in ('valid', 'test'):
    part = division.parts[split]
    if part.indices:
      outline = dataset_lib.outline(table, part, data.image_size)
      episodes.check_fits(config, outline, split)
    else:
      logging.warning('%s', dataset_lib.describe_empty(table, split, division))
  if 'features' not in inputs:
    # Files are resized without regard to their aspect ratio.
    fit = 'squash' if data.image_size and os.path.isdir(table.where) else 'pad'
    inputs = image_inputs.describe(dataset.images, fit).to_dict()
  return dataset, {
    'data': {name: data[name] for name in _FIELDS},
    'inputs': inputs,
    'split': stored_split.to_dict(division.classes),
  }


def write(workdir: filesystem.StrPath, record: dict[str, Any]) -> None:
  """Store what `load_training` returned, if anything.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  if record:
    text = json.dumps(record, indent=1, ensure_ascii=False) + '\n'
    content = text.encode('utf-8', 'surrogateescape')
    filesystem.replace(pathlib.Path(workdir) / FILE, content)
