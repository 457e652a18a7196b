"""Splits by ranges of classes and by published lists."""

import random

import numpy as np
import pytest

from configs import protonet as protonet_config
from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data.datasets import splits
from hyperudl.data.episodes import spec
from tests.testing import image_sets

SPLIT = ('train',) * 6 + ('valid',) * 2 + ('test',) * 2


def ranges(text, shuffle=0):
  return splits.by_ranges(text, SPLIT, shuffle, 'set.npz')


def numbers(assigned, split):
  return [i for i, s in enumerate(assigned) if s == split]


def test_three_lists_are_train_valid_and_test():
  assigned = ranges('8-9,0/2-4/1')
  assert numbers(assigned, 'train') == [0, 8, 9]
  assert numbers(assigned, 'valid') == [2, 3, 4]
  assert numbers(assigned, 'test') == [1]
  assert numbers(assigned, None) == [5, 6, 7]


def test_one_list_is_train_and_is_taken_from_valid_and_test():
  assigned = ranges('1-2,6')
  assert numbers(assigned, 'train') == [1, 2, 6]
  assert numbers(assigned, 'valid') == [7]
  assert numbers(assigned, 'test') == [8, 9]


def test_classes_are_numbered_after_the_shuffle_of_the_published_scripts():
  order = list(range(10))
  random.seed(2022)
  random.shuffle(order)
  assigned = ranges('0-3/4-5/6-9', shuffle=2022)
  assert numbers(assigned, 'train') == sorted(order[:4])
  assert numbers(assigned, 'test') == sorted(order[6:])


def test_cub_is_split_as_published():
  published = splits.published('cub', 200)
  ranges = splits.by_ranges('0-199:2/1-199:4/3-199:4', published, 0, 'cub')
  assert published == ranges


def test_every_second_class():
  # CUB's split: even numbers train, 1, 5, 9 valid and 3, 7 test.
  assigned = ranges('0-9:2/1-9:4/3-9:4')
  assert numbers(assigned, 'train') == [0, 2, 4, 6, 8]
  assert numbers(assigned, 'valid') == [1, 5, 9]
  assert numbers(assigned, 'test') == [3, 7]


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
  image_sets.save(tmp_path, images=images, split=np.array(SPLIT))
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


def test_a_shuffle_needs_ranges():
  config = protonet_config.get_config('omniglot,classes=64').unlock()
  config.data.shuffle_classes = 2022
  with pytest.raises(core.BadInput, match='shuffle_classes = 2022'):
    config_lib.validate(config)
  config.data.classes = '0-63'
  config_lib.validate(config)


@pytest.mark.parametrize(
  'choice', ['none', 'rot90', 'images', 'episode', 'episode+images']
)
def test_every_augmentation_can_be_configured(choice):
  config = protonet_config.get_config('omniglot').unlock()
  config.data.augment = choice
  config_lib.validate(config)
  assert spec.read(config, train=True).data.augment == choice
