"""Reads the composition of an episode from a config and checks it."""

import dataclasses
from typing import Any

import numpy as np

from hyperudl.core import BadInput
from hyperudl.core import config as config_lib
from hyperudl.core import episode_rules
from hyperudl.core import hyperparameters
from hyperudl.data.datasets import Dataset
from hyperudl.data.datasets import class_table
from hyperudl.data.episodes import episode_augment
from hyperudl.data.episodes import groups
from hyperudl.data.episodes import shifts

# Dirichlet concentrations by `episode.proportions`; each episode draws one.
CONCENTRATIONS = {
  'dirichlet': (0.7, 2.0, 100.0),
  'dirichlet_0.7': (0.7,),
}

_CLASSES = 'classes, there are'
_PER_CLASS = 'images per class, the smallest class has'


@dataclasses.dataclass(frozen=True)
class Spec(config_lib.EpisodeConfig):
  """The config sections `episode` and `data`; image counts are per class."""

  data: config_lib.DataConfig = dataclasses.field(
    default_factory=config_lib.DataConfig
  )

  @property
  def is_balanced(self) -> bool:
    """Whether all classes have equally many unlabelled images and queries."""
    return self.proportions == 'balanced'

  @property
  def varies(self) -> bool:
    """Whether episodes differ in their number of classes or shots."""
    return bool(self.way_range or self.shot_range)

  @property
  def classes(self) -> int:
    """Number of classes of an episode, distractors included."""
    return self.way + self.distractors

  @property
  def draws(self) -> int:
    """Number of times that an episode draws `classes` classes."""
    other = self.unlabelled_classes == 'other'
    return max(self.tasks, 1) * (2 if other else 1)

  @property
  def targets(self) -> int:
    """Number of queries and separate unlabelled images of an episode."""
    separate = 0 if self.transductive else self.unlabelled
    return self.way * (self.query + separate)

  @property
  def max_per_class(self) -> int:
    """Largest number of images that an episode may take from one class."""
    if not self.is_balanced:
      return self.shot + self.targets
    per_class = self.shot + self.targets // self.way
    if self.data.support_query == 'reference':
      return max(per_class - self.query, self.query)
    return per_class


def read(config: Any, train: bool, ranges: bool = True) -> Spec:
  """Read and check the sections `episode` and `data` of a config.

  Args:
    config: ConfigDict with the fields of `core.config.RunConfig`.
    train: whether this is for training; otherwise `data.augment` becomes 'none'
      unless `data.augment_tests` is set.
    ranges: whether the ranges of way and shot replace these in training.

  Raises:
    core.BadInput: a value out of range, a choice that does not exist, or
      settings that contradict each other.
  """
  data = config.data.to_dict()
  augmentation = config_lib.EpisodeAugmentConfig(**data.pop('episode_augment'))
  spec = Spec(
    **config.episode,
    data=config_lib.DataConfig(**data, episode_augment=augmentation),
  )
  hyperparameters.check(config_lib.EpisodeConfig(**config.episode), 'episode.')
  hyperparameters.check(spec.data, 'data.')
  shifts.families(spec.data.shift)
  _check_combinations(spec)
  if train:  # an evaluation may ignore some of the settings
    _check_augmentation_is_used(spec.data)
  elif not spec.data.augment_tests:
    spec = dataclasses.replace(
      spec, data=dataclasses.replace(spec.data, augment='none')
    )
  if train and ranges:
    return _with_ranges(spec)
  return dataclasses.replace(spec, way_range=(), shot_range=())


def _with_ranges(spec):
  """Return the spec with the largest way and shot in place of the config's."""
  if not spec.varies:
    return spec
  plain = {'support_query': spec.data.support_query}
  names = (
    *('tasks', 'distractors', 'transductive', 'unlabelled_classes'),
    *('inner_data', 'cond_data', 'phi_from', 'emit_from'),
  )
  plain |= {name: getattr(spec, name) for name in names}
  legal = config_lib.EpisodeConfig(), config_lib.DataConfig()
  for name, value in plain.items():
    expected = getattr(legal[name == 'support_query'], name)
    if value != expected:
      raise BadInput(
        'episodes of episode.way_range or .shot_range need '
        f'{name}={expected!r}, not {value!r}'
      )
  largest = {
    name: getattr(spec, ranges)[1]
    for ranges, name in episode_rules.RANGES.items()
    if getattr(spec, ranges)
  }
  return dataclasses.replace(spec, **largest)


def _check_combinations(spec):
  data = spec.data
  if spec.distractors and (spec.transductive or not spec.unlabelled):
    raise BadInput(
      f'episode.distractors={spec.distractors} are among the unlabelled '
      'images: set episode.unlabelled >= 1 and episode.transductive=False'
    )
  if spec.unlabelled_classes == 'other' and (
    spec.distractors or spec.transductive
  ):
    raise BadInput(
      "episode.unlabelled_classes='other' leaves no unlabelled image of an own "
      'class, so set episode.distractors=0 (it is '
      f'{spec.distractors}) and episode.transductive=False'
    )
  only_labelled = spec.is_balanced and not spec.unlabelled
  if data.support_query == 'joint' and not only_labelled:
    raise BadInput(
      "data.support_query='joint' divides labelled images at random: set "
      'episode.unlabelled=0 (and no distractors) and '
      "episode.proportions='balanced'"
    )
  if data.augment_tests and data.augment == 'none':
    raise BadInput(
      "data.augment_tests does nothing with data.augment='none': choose "
      'another data.augment'
    )


def _check_augmentation_is_used(data):
  active = episode_augment.active_transforms(data.episode_augment)
  for field, is_set, augments in (
    (f'episode_augment.{active and active[0]}', active, 'episode'),
    ('augment_individually', data.augment_individually, 'images'),
  ):
    if is_set and augments not in data.augment:
      raise BadInput(
        f'data.{field} does nothing with data.augment={data.augment!r}: choose '
        f"{augments!r} or 'episode+images'"
      )


def check(spec: Spec, dataset: Dataset, name: str) -> None:
  """Check that a data set can fill the episodes of a spec.

  Args:
    spec: a `Spec`.
    dataset: the images to draw from.
    name: name of the data set in error messages.

  Raises:
    core.BadInput: too few classes or images, no alphabets to group by, quarter
      turns of images that are not square, or changes of images of features.
  """
  counts = np.sort(np.asarray(dataset.counts))
  smallest = dataset.class_names[int(np.argmin(dataset.counts))]
  for terms, needed, unit, available in _requirements(spec, counts):
    if needed <= available:
      continue
    hint = ''
    if unit == _PER_CLASS:
      hint = f'; the smallest class is {smallest!r}'
    elif unit == _CLASSES and spec.data.split_by != 'image':
      hint = (
        ", or divide the images of each class (data.split_by='image') in place "
        'of the classes'
      )
    raise BadInput(
      f'{name}: {terms} takes {needed} {unit} {available}: lower one of these '
      f'or choose other data{hint}'
    )
  if spec.group == 'alphabet':
    groups.check(dataset, spec.draws, spec.classes, name)
  if class_table.is_features(dataset.images):
    _check_features(spec, name)
    return
  height, width = dataset.images.shape[1:3]
  rotates = spec.data.augment in ('auto', 'rot90', 'scans') or (
    spec.data.augment.startswith('episode') and spec.data.episode_augment.rot90
  )
  if rotates and height != width:
    raise BadInput(
      f'{name}: quarter turns (data.augment) need square images, got '
      f"{height}x{width}: choose 'none' or 'images', or set data.image_size"
    )


def _check_features(spec, name):
  for field, value, allowed in (
    ('data.augment', spec.data.augment, ('auto', 'none')),
    ('data.shift', spec.data.shift, ('none',)),
    ('episode.inner_data', spec.inner_data, ('true', 'other', 'none')),
    ('episode.cond_data', spec.cond_data, ('true', 'other', 'none')),
  ):
    if value not in allowed:
      raise BadInput(
        f'{name}: {field}={value!r} changes or draws images, and these are '
        f'features: set it to {allowed[-1]!r}, or save features of changed '
        'images as a set of their own'
      )


def _requirements(spec, counts):
  """Yield (config fields, number needed, unit, number available)."""
  way = f'episode.way={spec.way}'
  fewest, shot, shot_field = spec.way, spec.shot, f'episode.shot={spec.shot}'
  if spec.way_range:
    fewest, way = spec.way_range[0], f'episode.way_range={spec.way_range}'
  if spec.shot_range:  # a class gets fewer if it has too few images
    shot = spec.shot_range[0]
    shot_field = f'episode.shot_range={spec.shot_range}'
  classes = way
  if spec.distractors:
    classes = f'({way} + episode.distractors={spec.distractors})'
  if spec.tasks:
    classes += f' x episode.tasks={spec.tasks}'
  if spec.unlabelled_classes == 'other':
    classes += ' and as many other classes'
  needed = spec.classes * spec.draws
  yield classes, needed, _CLASSES, len(counts)
  unit = _PER_CLASS
  if spec.distractors:
    unlabelled = f'episode.distractors x episode.unlabelled={spec.unlabelled}'
    yield unlabelled, spec.unlabelled, unit, counts[0]
  parts = {'query': spec.query}
  if not spec.transductive:
    parts['unlabelled'] = spec.unlabelled
  fields = [f'episode.{part}={n}' for part, n in parts.items()]
  terms = ' + '.join([shot_field, *fields])
  per_class = shot + sum(parts.values())
  if not spec.is_balanced and not spec.varies:
    yield shot_field, shot, unit, counts[0]
  else:
    if spec.data.support_query == 'reference':
      per_class = spec.max_per_class
    yield terms, per_class, unit, counts[0]
  # Any classes may be drawn, so the smallest ones together must suffice.
  unit = f'images, the {fewest} smallest classes together have'
  total, available = fewest * per_class, counts[:fewest].sum()
  yield f'{way} x ({terms})', total, unit, available
