"""A hand-edited config.json is refused in one line, whatever was edited."""

import copy
import json

import pytest

from configs import protonet
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib

VALUES = (None, 3, 'x', [1, 'a'], {'a': 1}, 10**400)
DELETED = object()


def places(values, above=()):
  for name, value in values.items():
    yield (*above, name)
    if isinstance(value, dict):
      yield from places(value, (*above, name))


def edited(good, place, value):
  values = copy.deepcopy(good)
  section = values
  for name in place[:-1]:
    section = section[name]
  if value is DELETED:
    del section[place[-1]]
  else:
    section[place[-1]] = value
  return values


def test_every_edit_of_a_config_is_legal_or_refused():
  good = json.loads(config_lib.to_json(protonet.get_config()))
  refused = 0
  for place in places(good):
    for value in (*VALUES, DELETED):
      text = json.dumps(edited(good, place, value))
      try:
        config = config_lib.from_json(text)
        config_lib.validate(config)
        learners.check_run(config)
      except core.BadInput:
        refused += 1
  assert refused > 200


@pytest.mark.parametrize(
  'text, words',
  [
    ('', 'not a config'),
    ('{"a.b": 1}', 'not a config'),
    ('{"a":' * 20_000 + '1' + '}' * 20_000, 'not a config'),
    ('{"seed": 1}', 'the config lacks batch'),
  ],
)
def test_what_is_no_config_is_refused(text, words):
  with pytest.raises(core.BadInput, match=words):
    config_lib.from_json(text)


@pytest.mark.parametrize(
  'place, value, words',
  [
    (('data',), 3, r'config.data = 3: expected a section with fields'),
    (('data', 'episode_augment'), 'x', 'episode_augment = .x.: expected a sec'),
    (('learner', 'name'), 3, 'config.learner.name = 3: expected a name'),
    (('init_from',), {'vae': 3}, 'config.init_from.vae = 3: expected a path'),
    (('eval', 'batch'), DELETED, 'the config lacks eval.batch'),
  ],
)
def test_the_faulty_section_is_named(place, value, words):
  good = json.loads(config_lib.to_json(protonet.get_config()))
  with pytest.raises(core.BadInput, match=words):
    config_lib.from_json(json.dumps(edited(good, place, value)))
