"""Ranges of an episode are checked and read."""

import pytest

from hyperudl.core import config as config_lib
from hyperudl.core import episode_rules
from tests.testing import errors


def episode(**fields):
  config = config_lib.base()
  config.episode.update(fields)
  return config.episode


@pytest.mark.parametrize('field', ['way_range', 'shot_range'])
@pytest.mark.parametrize('values', [(5,), (6, 5), (2, 3, 4)])
def test_a_range_is_two_numbers_in_order(field, values):
  message = errors.refusal(episode_rules.check, episode(**{field: values}))
  assert message.startswith(f'config.episode.{field} = {values}: expected')
  episode_rules.check(episode(**{field: (3, 3)}))


def test_a_range_obeys_the_limits_of_what_it_replaces():
  config = config_lib.base()
  config.learner.name = 'protonet'
  config.episode.way_range = (1, 4)
  message = errors.refusal(config_lib.validate, config)
  assert message == 'config.episode.way_range = (1, 4) is below its minimum 2'


def test_labels_are_enough_for_every_episode():
  assert episode_rules.label_slots(episode(way=5)) == 5
  assert episode_rules.label_slots(episode(way=5, way_range=(2, 20))) == 20
  assert episode_rules.label_slots(episode(way=30, way_range=(2, 20))) == 30
  assert not episode_rules.varies(episode())
  assert episode_rules.varies(episode(shot_range=(1, 1)))
