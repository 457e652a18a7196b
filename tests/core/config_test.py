"""Configs: legal ones pass, every illegal one is refused in one line."""

import importlib
import pathlib

import pytest

from configs import common
from configs import hypertransformer as hypertransformer_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib

CONFIGS = sorted(
  path.stem
  for path in pathlib.Path(common.__file__).parent.glob('*.py')
  if path.stem != 'common'
)


def check(config):
  """Checks a config as a training does."""
  config_lib.validate(config)
  learners.check_run(config)


def protonet(**changes):
  config = importlib.import_module('configs.protonet').get_config()
  config.unlock()
  for field, value in changes.items():
    config_lib.set_field(config, field.replace('__', '.'), str(value))
  return config.lock()


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('arg', [None, 'omniglot', 'cifar_fs,way=4,shot=2'])
def test_every_config_is_legal_and_has_the_shared_fields(name, arg):
  config = importlib.import_module(f'configs.{name}').get_config(arg)
  check(config)
  shared = set(config_lib.flatten(common.base()))
  assert shared <= set(config_lib.flatten(config))
  if arg and 'way' in arg:
    assert (config.episode.way, config.episode.shot) == (4, 2)
    assert config.data.dataset == 'cifar_fs'


@pytest.mark.parametrize('name', ['udl', 'udl_original'])
def test_clusters_are_not_named_by_the_queries_that_are_scored(name):
  config = importlib.import_module(f'configs.{name}').get_config().unlock()
  config.episode.unlabelled = 0
  config.episode.transductive = True
  if name == 'udl':
    check(config)
    config.learner.setting = 'clusters'
  with pytest.raises(core.BadInput, match='would name clusters'):
    check(config)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('optimizer__learning_rate', 'nan', 'not a finite number'),
    ('optimizer__learning_rate', '0', 'must be above 0'),
    ('optimizer__learning_rate', '-0.1', 'must be above 0'),
    ('optimizer__schedule', 'cosin', 'none of constant, cosine'),
    ('optimizer__decay_rate', '1.5', 'above its maximum 1'),
    ('optimizer__decay_rate', '0', 'must be above 0'),
    ('optimizer__clip', '-1', 'below its minimum 0'),
    ('episode__way', '1', 'below its minimum 2'),
    ('episode__shot', '0', 'below its minimum 1'),
    ('episode__proportions', 'even', 'none of balanced, dirichlet'),
    ('episode__emit_from', 'self', 'none of own, mean, other'),
    ('episode__emit_from', 'mean', "'protonet' does not read it"),
    ('eval__episodes', '0', 'below its minimum 1'),
    ('steps', '0', 'below its minimum 1'),
    ('batch', '-4', 'below its minimum 1'),
    ('strategy', 'fast', 'none of auto, scan'),
    ('data__latents', 'x', 'leave it empty'),
    ('episode__inner_data', 'noise', 'unlabelled >= 1'),
    ('data__augment', 'all', 'none of auto, none, rot90'),
    ('data__support_query', 'both', 'none of disjoint, reference, joint'),
    ('data__support_query', 'joint', 'for caml and hypertransformer alone'),
  ],
)
def test_a_bad_value_is_named_with_what_is_legal(field, value, message):
  with pytest.raises(core.BadInput, match=message) as caught:
    check(protonet(**{field: value}))
  assert field.replace('__', '.') in str(caught.value)


def test_a_config_of_another_version_is_refused_with_what_it_lacks():
  config = protonet().unlock()
  del config['batch']
  del config.episode['shot']
  with pytest.raises(core.BadInput, match=r'lacks batch, episode\.shot'):
    check(config)


def test_transductive_and_unlabelled_exclude_each_other():
  config = protonet(episode__transductive='true', episode__unlabelled='2')
  with pytest.raises(core.BadInput, match=r'unlabelled = 0 \(it is 2\)'):
    check(config)


@pytest.mark.parametrize('shot, unlabelled', [(3, 2), (5, 2), (3, 5)])
def test_one_task_is_dealt_to_equal_parts(shot, unlabelled):
  config = importlib.import_module('configs.continual').get_config('tasks=5')
  with config.unlocked():
    config.episode.shot, config.episode.unlabelled = shot, unlabelled
  check(config)  # sequences take any number
  config.learner.scenario, config.learner.tasks = 'batches', 0
  check(config)  # which `make` refuses
  config.learner.tasks = 5
  with pytest.raises(core.BadInput, match='make both multiples of it'):
    check(config)
  with config.unlocked():
    config.episode.shot, config.episode.unlabelled = 5, 10
  check(config)


@pytest.mark.parametrize(
  'field, text, value',
  [
    ('episode.shot', '5', 5),
    ('optimizer.clip', '2', 2.0),
    ('episode.transductive', 'True', True),
    ('learner.channels', '4,8', (4, 8)),
    ('learner.channels', '(4, 8, 16)', (4, 8, 16)),
    ('data.shift', 'heldout', 'heldout'),
  ],
)
def test_fields_are_set_from_text_with_their_type(field, text, value):
  config = protonet().unlock()
  config_lib.set_field(config, field, text)
  assert config_lib.flatten(config)[field] == value


@pytest.mark.parametrize(
  'field, text, message',
  [
    ('episode.shto', '5', "did you mean 'episode.shot'"),
    ('episode.shot', '2.5', 'expected a int'),
    ('episode.shot', 'one', 'expected a int'),
    ('episode.transductive', 'maybe', 'expected a bool'),
    ('learner.channels', '4,x', 'expected a tuple'),
  ],
)
def test_a_bad_text_is_refused(field, text, message):
  config = protonet().unlock()
  with pytest.raises(core.BadInput, match=message):
    config_lib.set_field(config, field, text)


def test_json_round_trip_keeps_every_value_and_type():
  config = protonet()
  back = config_lib.from_json(config_lib.to_json(config))
  assert back.to_dict() == config.to_dict()
  assert isinstance(back.learner.channels, tuple)
  assert back.is_locked


@pytest.mark.parametrize('text', ['', '{', '[1, 2]', 'null'])
def test_what_is_not_a_config_is_refused(text):
  with pytest.raises(core.BadInput, match='not a config'):
    config_lib.from_json(text)


def test_differences_name_changed_added_and_removed_fields():
  a = {'x': 1, 'y': {'z': 2}}
  b = {'x': 1, 'y': {'z': 3}, 'w': 4}
  assert config_lib.differences(a, b) == {
    'y.z': (2, 3),
    'w': ('(absent)', 4),
  }


@pytest.mark.parametrize(
  'arg, message',
  [
    ('omniglot,ways=5', "did you mean 'way'"),
    ('omniglot,way=five', 'takes a int'),
    ('omniglot,way', 'takes a int'),
  ],
)
def test_a_bad_variant_is_refused(arg, message):
  with pytest.raises(ValueError, match=message):
    common.apply_variant(common.base(), arg)


def test_a_variant_sets_the_table_of_its_data_set():
  config = common.apply_variant(common.base(), 'mnist')
  assert config.data.split_by == 'image'
  config = common.apply_variant(common.base(), 'my_own_set,size=32')
  assert (config.data.dataset, config.data.image_size) == ('my_own_set', 32)
  config = common.apply_variant(common.base(), 'glyph_attributes')
  assert (config.data.augment, config.episode.group) == ('none', 'alphabet')
  config = common.apply_variant(common.base(), 'glyph_attributes,group=none')
  assert config.episode.group == 'none'


def test_domains_change_episodes_of_trainings_and_of_tests():
  config = common.apply_variant(common.base(), 'glyphs,domains=.25').data
  assert (config.augment, config.augment_tests) == ('episode', True)
  rates = config.episode_augment.to_dict()
  changed = [name for name, rate in rates.items() if rate == 0.25]
  assert sorted(changed) == ['contrast', 'negate', 'noise', 'smooth']


def test_a_stage_that_generates_nothing_has_no_other_source():
  config = hypertransformer_config.get_config('glyphs').unlock()
  config.episode.emit_from = 'other'
  check(config)
  config.learner.stage = 'shared'
  with pytest.raises(core.BadInput, match='generates none'):
    check(config)
