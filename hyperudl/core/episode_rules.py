"""Checks the fields of an episode against each other, and reads its ranges."""

from ml_collections import config_dict

from hyperudl.core.errors import BadInput

RANGES = {'way_range': 'way', 'shot_range': 'shot'}  # and what they replace


def check(episode: config_dict.ConfigDict) -> None:
  """Refuse controls without images to replace, and ranges that are none.

  Args:
    episode: with the fields of `core.config.EpisodeConfig`.

  Raises:
    BadInput: naming the field, its value and what is legal.
  """
  for name in RANGES:
    values = episode[name]
    if values and (len(values) != 2 or values[0] > values[1]):
      raise BadInput(
        f'config.episode.{name} = {values}: expected the smallest and the '
        'largest number, such as 2,20, or nothing'
      )
  _check_unlabelled(episode)


def varies(episode: config_dict.ConfigDict) -> bool:
  """Return whether training episodes differ in their classes or shots."""
  return any(bool(episode[name]) for name in RANGES)


def label_slots(episode: config_dict.ConfigDict) -> int:
  """Return the largest number of classes that an episode can have."""
  return max(episode.way, *episode.way_range, 0)


def _check_unlabelled(episode):
  if episode.transductive and episode.unlabelled:
    raise BadInput(
      f'config.episode.transductive copies the queries as unlabelled rows; '
      f'set config.episode.unlabelled = 0 (it is {episode.unlabelled})'
    )
  given = episode.transductive or episode.unlabelled
  if given or episode.proportions != 'balanced':  # of the queries alone: legal
    return
  for name in ('inner_data', 'cond_data', 'phi_from', 'unlabelled_classes'):
    if episode[name] not in ('true', 'none', 'own'):
      raise BadInput(
        f'config.episode.{name} = {episode[name]!r} stands in for unlabelled '
        'images, but there are none: set config.episode.unlabelled >= 1'
      )
