"""What an episode is made of: counts and choices, checked against the data."""

from typing import NamedTuple

import numpy as np

from hyperudl import core
from hyperudl.data.episodes import episode_augment as whole_episode
from hyperudl.data.episodes import shifts

# Concentrations of which each episode draws one; None: as many of each class.
PROPORTIONS = {
  'balanced': None,
  'dirichlet': (0.7, 2.0, 100.0),
  'dirichlet_0.7': (0.7,),
}
_CHOICES = {
  'proportions': tuple(PROPORTIONS),
  'inner_data': ('true', 'noise', 'other', 'none'),
  'cond_data': ('true', 'noise', 'other', 'none'),
  'emit_from': ('own', 'mean', 'other'),
}
_AUGMENT = ('none', 'rot90', 'images', 'episode', 'episode+images')
_SUPPORT_QUERY = ('disjoint', 'reference', 'joint')
_LEAST = {
  'way': 1,
  'shot': 1,
  'query': 1,
  'unlabelled': 0,
  'distractors': 0,
  'tasks': 0,
}


class Rules(NamedTuple):
  """The part of a config that episodes are drawn by; counts are per class."""

  way: int
  shot: int
  query: int
  unlabelled: int
  distractors: int  # classes that only unlabelled rows have
  tasks: int
  proportions: str
  transductive: bool
  inner_data: str
  cond_data: str
  emit_from: str
  shift: str
  augment: str
  augment_individually: bool
  # 'reference': a query may be a support image; 'joint': the images of both
  # are drawn class by class and then divided whatever their class.
  support_query: str
  episode_augment: whole_episode.Rates  # where `whole`

  @property
  def whole(self):
    """Whether whole episodes are augmented."""
    return self.augment.startswith('episode')

  @property
  def classes(self):
    """Classes of an episode, with the distractors."""
    return self.way + self.distractors

  @property
  def targets(self):
    """Queries and separate unlabelled images of an episode."""
    separate = 0 if self.transductive else self.unlabelled
    return self.way * (self.query + separate)

  @property
  def most_per_class(self):
    """Images that one class may have to give to an episode."""
    if self.proportions != 'balanced':
      return self.shot + self.targets
    own = self.shot + self.targets // self.way - self.query
    if self.support_query == 'reference':
      return max(own, self.query)
    return own + self.query


def read(config, train):
  """The `Rules` in a config.

  Args:
    config: `episode` with way, shot, query, unlabelled, distractors, tasks (0:
      no task axis), proportions, transductive, inner_data, cond_data,
      emit_from;
      `data` with shift, augment, augment_individually, augment_tests,
      episode_augment, support_query.
    train: without it `data.augment` applies where `data.augment_tests` says so.

  Raises:
    core.BadInput: a count that is too small or a choice that does not exist.
  """
  episode = {name: getattr(config.episode, name) for name in Rules._fields[:11]}
  for name, least in _LEAST.items():
    if episode[name] < least:
      raise core.BadInput(
        f'episode.{name}={episode[name]}: it must be at least {least}'
      )
  if episode['distractors'] and (
    episode['transductive'] or not episode['unlabelled']
  ):
    raise core.BadInput(
      f'episode.distractors={episode["distractors"]} are among the unlabelled '
      'rows: set episode.unlabelled >= 1 and episode.transductive=False'
    )
  chosen = {
    f'episode.{name}': (episode[name], _CHOICES[name]) for name in _CHOICES
  }
  chosen['data.augment'] = (config.data.augment, _AUGMENT)
  chosen['data.support_query'] = (config.data.support_query, _SUPPORT_QUERY)
  for name, (value, choices) in chosen.items():
    if value not in choices:
      raise core.BadInput(
        f'{name}={value!r}: choose one of {", ".join(choices)}'
      )
  shifts.families(config.data.shift)
  rates = whole_episode.Rates(**config.data.episode_augment)
  whole_episode.check(rates)
  rules = Rules(
    **episode,
    shift=config.data.shift,
    augment=config.data.augment,
    augment_individually=config.data.augment_individually,
    support_query=config.data.support_query,
    episode_augment=rates,
  )
  _check_together(rules, config.data.augment_tests)
  if train:  # an evaluation may have less of it
    _check_effect(rules)
    return rules
  return rules if config.data.augment_tests else rules._replace(augment='none')


def _check_together(rules, tests):
  alone = rules.proportions == 'balanced' and not rules.unlabelled
  if rules.support_query == 'joint' and not alone:
    raise core.BadInput(
      "data.support_query='joint' divides labelled images at random: set "
      'episode.unlabelled=0 (and no distractors) and '
      "episode.proportions='balanced'"
    )
  if tests and rules.augment == 'none':
    raise core.BadInput(
      "data.augment_tests does nothing with data.augment='none': choose "
      f'one of {", ".join(_AUGMENT[1:])}'
    )


def _check_effect(rules):
  """Refuses settings of a training that would do nothing."""
  acting = whole_episode.acting(rules.episode_augment)
  if acting and not rules.whole:
    raise core.BadInput(
      f'data.episode_augment.{acting[0]} does nothing with data.augment='
      f"{rules.augment!r}: choose 'episode' or 'episode+images'"
    )
  if rules.augment_individually and 'images' not in rules.augment:
    raise core.BadInput(
      'data.augment_individually does nothing with data.augment='
      f"{rules.augment!r}: choose 'images' or 'episode+images'"
    )


def check(rules, dataset, name):
  """Raises core.BadInput if a data set cannot fill the episodes.

  Args:
    rules: `Rules`.
    dataset: an `arrays.Dataset`.
    name: str, what the message calls the data.
  """
  counts = np.sort(np.asarray(dataset.counts))
  classes = rules.classes * max(rules.tasks, 1)
  if classes > len(counts):
    way = f'episode.way={rules.way}'
    if rules.distractors:
      way = f'({way} + episode.distractors={rules.distractors})'
    times = f' x episode.tasks={rules.tasks}' if rules.tasks else ''
    raise core.BadInput(
      f'{name}: {way}{times} takes {classes} classes, there are '
      f'{len(counts)}: lower it or choose other data'
    )
  if rules.distractors and rules.unlabelled > counts[0]:
    raise core.BadInput(
      f'{name}: episode.distractors need episode.unlabelled='
      f'{rules.unlabelled} images per class, the smallest class has '
      f'{counts[0]}: lower it or choose other data'
    )
  height, width = dataset.images.shape[1:3]
  turns = rules.whole and rules.episode_augment.rot90
  if (turns or rules.augment == 'rot90') and height != width:
    raise core.BadInput(
      f'{name}: quarter turns (data.augment) need square images, got '
      f"{height}x{width}: choose 'none' or 'images', or set data.image_size"
    )
  parts = {'shot': rules.shot, 'query': rules.query}
  if not rules.transductive:
    parts['unlabelled'] = rules.unlabelled
  each = sum(parts.values())
  if rules.support_query == 'reference' and rules.proportions == 'balanced':
    each = max(rules.query, each - rules.query)
  listed = ' + '.join(f'episode.{k}={v}' for k, v in parts.items())
  least = each if rules.proportions == 'balanced' else rules.shot
  if least > counts[0]:
    listed = listed if least == each else f'episode.shot={rules.shot}'
    raise core.BadInput(
      f'{name}: {listed} takes {least} images per class, the smallest class '
      f'has {counts[0]}: lower it or choose other data'
    )
  # Any classes may be drawn, so the smallest ones must do together.
  need, have = rules.way * each, counts[: rules.way].sum()
  if need > have:
    raise core.BadInput(
      f'{name}: episode.way={rules.way} x ({listed}) takes {need} images, the '
      f'{rules.way} smallest classes together have {have}: lower one of these '
      'or choose other data'
    )
