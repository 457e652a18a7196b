"""Which class is whose: ranges of classes."""

import random

from absl import flags
import numpy as np
import pytest

from configs import protonet as protonet_config
from hyperudl import core
from hyperudl import evaluate
from hyperudl.core import config as config_lib
from hyperudl.data.datasets import splits
from hyperudl.data.episodes import spec
from tests.testing import image_sets

OWN = ('train',) * 6 + ('valid',) * 2 + ('test',) * 2


def ranges(text, shuffle=0):
  return splits.by_ranges(text, OWN, shuffle, 'set.npz')


def numbers(found, split):
  return [i for i, s in enumerate(found) if s == split]


def test_three_lists_are_train_valid_and_test():
  found = ranges('8-9,0/2-4/1')
  assert numbers(found, 'train') == [0, 8, 9]
  assert numbers(found, 'valid') == [2, 3, 4]
  assert numbers(found, 'test') == [1]
  assert numbers(found, None) == [5, 6, 7]


def test_one_list_trains_and_leaves_the_others_what_it_does_not_take():
  found = ranges('1-2,6')
  assert numbers(found, 'train') == [1, 2, 6]
  assert numbers(found, 'valid') == [7]
  assert numbers(found, 'test') == [8, 9]


def test_classes_are_numbered_after_the_shuffle_of_the_published_scripts():
  order = list(range(10))
  random.seed(2022)
  random.shuffle(order)
  found = ranges('0-3/4-5/6-9', shuffle=2022)
  assert numbers(found, 'train') == sorted(order[:4])
  assert numbers(found, 'test') == sorted(order[6:])


def test_cub_is_split_as_published():
  found = splits.published('cub', 200)
  ranges = splits.by_ranges('0-199:2/1-199:4/3-199:4', found, 0, 'cub')
  assert found == ranges


def test_every_second_class():
  # CUB's split: even numbers train, 1, 5, 9 valid and 3, 7 test.
  found = ranges('0-9:2/1-9:4/3-9:4')
  assert numbers(found, 'train') == [0, 2, 4, 6, 8]
  assert numbers(found, 'valid') == [1, 5, 9]
  assert numbers(found, 'test') == [3, 7]


@pytest.mark.parametrize(
  'text, words',
  [
    ('0-3/4', 'or three for train/valid/test'),
    ('0-9:0', "'0-9:0' is no class or range"),
    ('3:2', "'3:2' is no class or range"),
    ('0-x', "'0-x' is no class or range"),
    ('0-3,/4/5', "'' is no class or range"),
    ('-3', "'-3' is no class or range"),
    ('3-1', 'must lie in 0-9'),
    ('0-10', 'must lie in 0-9, the classes of set.npz'),
    ('0-3/3/5', 'class 3 comes twice'),
  ],
)
def test_a_bad_range_is_refused(text, words):
  with pytest.raises(core.BadInput, match=words):
    ranges(text)


def test_ranges_choose_what_is_loaded(tmp_path):
  images = image_sets.pixels(10)
  image_sets.save(tmp_path, images=images, split=np.array(OWN))
  names = lambda split: (
    image_sets.load(tmp_path, split, classes='1-2/5/8-9').class_names
  )
  assert names('train') == ('class0001', 'class0002')
  assert names('test') == ('class0008', 'class0009')
  assert len(names('all')) == 10
  assert 'choose one of them' in image_sets.refusal(
    tmp_path, 'train', classes='1-2/5/8-9', split_by='image'
  )
  assert 'no class in split test' in image_sets.refusal(
    tmp_path, 'test', classes='8-9'
  )


@pytest.mark.parametrize(
  'classes, count', [('', True), (0, True), ('64', True), ('0-63', False)]
)
def test_a_number_is_no_range(classes, count):
  assert splits.is_count(classes) == count


def test_ranges_are_those_of_the_run_and_not_of_another_set():
  config = protonet_config.get_config('omniglot,classes=0-3/4/5').unlock()
  config.data.shuffle_classes = 2022
  other, tag = evaluate.override(config, {}, evaluate_flags('mnist'))
  assert (other.data.classes, other.data.shuffle_classes) == ('', 0)
  assert tag == 'mnist'
  same, _ = evaluate.override(config, {}, evaluate_flags())
  assert same.data.classes == '0-3/4/5'
  asked, _ = evaluate.override(
    config, {'data.classes': '7/8/9'}, evaluate_flags('mnist', tag='some')
  )
  assert asked.data.classes == '7/8/9'


def evaluate_flags(dataset='', tag=''):
  values = flags.FlagValues()
  for name in ('dataset', 'data_dir', 'tag'):
    flags.DEFINE_string(name, '', '', flag_values=values)
  for name in ('way', 'shot', 'episodes'):
    flags.DEFINE_integer(name, 0, '', flag_values=values)
  values(['evaluate', f'--dataset={dataset}', f'--tag={tag}'])
  return values


def test_a_shuffle_needs_ranges():
  config = protonet_config.get_config('omniglot,classes=64').unlock()
  config.data.shuffle_classes = 2022
  with pytest.raises(core.BadInput, match='shuffle_classes = 2022'):
    config_lib.validate(config)
  config.data.classes = '0-63'
  config_lib.validate(config)


@pytest.mark.parametrize('choice', spec._AUGMENT)
def test_every_augmentation_can_be_configured(choice):
  config = protonet_config.get_config('omniglot').unlock()
  config.data.augment = choice
  config_lib.validate(config)
  assert spec.read(config, train=True).augment == choice
