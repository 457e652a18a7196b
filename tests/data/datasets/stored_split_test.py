"""A set that has changed since a run was made is refused by name."""

import json

import numpy as np
import pytest

from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import partition
from hyperudl.data.datasets import resolve
from hyperudl.data.datasets import stored_split
from tests.testing import errors
from tests.testing import image_sets

SPLITS = class_table.SPLITS


def save(folder, letters, per_class=6):
  """A set whose classes have the same images whenever they are in it."""
  images = np.stack(
    [image_sets.pixels(1, per_class, seed=ord(letter))[0] for letter in letters]
  )
  image_sets.save(folder, images=images, class_names=np.array(list(letters)))


def stored(folder, **options):
  """What a run keeps, through JSON."""
  table = resolve.read('set', str(folder))
  classes = partition.divide(table, partition.Options(**options)).classes
  return stored_split.from_dict(
    json.loads(json.dumps(stored_split.to_dict(classes)))
  )


def names(folder, **options):
  return {
    split: set(image_sets.load(folder, split, **options).class_names)
    for split in SPLITS
  }


def images(folder, split, **options):
  loaded = image_sets.load(folder, split, **options).images
  return {image.tobytes() for image in loaded}


def test_a_set_that_stayed_as_it_was_loads_as_before(tmp_path):
  save(tmp_path, 'abcdefgh')
  before = names(tmp_path)
  assert names(tmp_path, stored=stored(tmp_path)) == before


@pytest.mark.parametrize(
  'letters, words',
  [
    ('abcdefghz', "'z' is new"),
    ('abcdefgz', "'z' is new; 'h' is missing"),
    ('abcdefg', "'h' is missing"),
    ('Zabcdefgh', "'Z' is new"),
  ],
)
def test_another_set_of_classes_is_refused_naming_the_difference(
  tmp_path, letters, words
):
  save(tmp_path, 'abcdefgh')
  before = stored(tmp_path)
  save(tmp_path, letters)
  message = image_sets.refusal(tmp_path, 'test', stored=before)
  assert words in message
  allowed = 'or give --allow_new_classes' in message
  assert allowed == ('missing' not in words)


@pytest.mark.parametrize('letters', ['abcdefghz', 'Zabcdefgh', 'aabcdefghB'])
def test_new_classes_go_to_test_where_they_are_allowed(tmp_path, letters):
  letters = ''.join(dict.fromkeys(letters))
  save(tmp_path, 'abcdefgh')
  before, parts = stored(tmp_path), names(tmp_path)
  save(tmp_path, letters)
  now = names(tmp_path, stored=before._replace(allow_new=True))
  assert now['train'] == parts['train'] and now['valid'] == parts['valid']
  assert now['test'] == parts['test'] | set(letters) - set('abcdefgh')


@pytest.mark.parametrize('split_by', ['class', 'image'])
def test_new_classes_keep_no_image_that_was_trained_on(tmp_path, split_by):
  """Also where the new class comes first, and when it is known later."""
  by = {'split_by': split_by}
  save(tmp_path, 'bcdefghi')
  first = stored(tmp_path, **by)
  before = image_sets.load(tmp_path, 'train', stored=first, **by).images
  train = images(tmp_path, 'train', stored=first, **by)
  blocks = np.load(tmp_path / 'set.npz')['images']
  new = image_sets.pixels(1, 6, seed=12_345)
  new[0, :2] = before[[0, -1], ..., 0]
  together = np.concatenate([new, blocks])
  image_sets.save(tmp_path, images=together, class_names=list('abcdefghi'))
  allowed = first._replace(allow_new=True)
  for each in (allowed, stored(tmp_path, stored=allowed, **by)):
    options = {'stored': each, **by}
    assert images(tmp_path, 'train', **options) == train
    assert not images(tmp_path, 'test', **options) & train
    test = image_sets.load(tmp_path, 'test', **options)
    place = test.class_names.index('a')
    assert len(image_sets.rows(test, place)) == 4


@pytest.mark.parametrize('split_by', ['class', 'image'])
def test_classes_that_were_allowed_once_stay_in_test(tmp_path, split_by):
  save(tmp_path, 'abcdefgh')
  first = stored(tmp_path, split_by=split_by)
  save(tmp_path, 'abcdefghz')
  allowed = first._replace(allow_new=True)
  now = names(tmp_path, stored=allowed, split_by=split_by)
  second = stored(tmp_path, stored=allowed, split_by=split_by)
  assert names(tmp_path, stored=second, split_by=split_by) == now
  assert 'z' in now['test'] - now['train'] - now['valid']
  save(tmp_path, 'abcdefghyz')
  words = "'y' is new"
  assert words in image_sets.refusal(
    tmp_path, 'test', stored=second, split_by=split_by
  )


def test_a_class_that_is_missing_is_refused_even_so(tmp_path):
  save(tmp_path, 'abcdefgh')
  before = stored(tmp_path)._replace(allow_new=True)
  save(tmp_path, 'abcdefgz')
  words = "'h' is missing"
  assert words in image_sets.refusal(tmp_path, 'train', stored=before)


def test_a_class_in_another_split_is_refused(tmp_path):
  save(tmp_path, 'abcdefgh')
  before = stored(tmp_path, seed=0)
  message = image_sets.refusal(tmp_path, 'train', stored=before, seed=1)
  assert 'goes from' in message


def test_images_are_not_dealt_anew_beside_a_new_class(tmp_path):
  by_image = {'split_by': 'image'}
  save(tmp_path, 'bcd')
  before, train = (
    stored(tmp_path, **by_image),
    images(tmp_path, 'train', **by_image),
  )
  save(tmp_path, 'abcd')
  words = "'a' is new"
  assert words in image_sets.refusal(
    tmp_path, 'test', stored=before, **by_image
  )
  allowed = {'stored': before._replace(allow_new=True), **by_image}
  assert images(tmp_path, 'train', **allowed) == train
  assert not train & images(tmp_path, 'test', **allowed)
  assert image_sets.load(tmp_path, 'test', **allowed).class_names[0] == 'a'


def test_another_number_of_images_is_refused_where_they_are_divided(tmp_path):
  save(tmp_path, 'abc')
  before = stored(tmp_path, split_by='image')
  save(tmp_path, 'abc', per_class=7)
  message = image_sets.refusal(
    tmp_path, 'train', stored=before, split_by='image'
  )
  assert "'a' has 7 images, not 6" in message


@pytest.mark.parametrize('values', [{}, {'classes': 3}, {'classes': {'a': 1}}])
def test_what_is_no_stored_split_is_refused(values):
  with pytest.raises(ValueError, match='no stored split'):
    stored_split.from_dict(values)


def test_a_long_difference_is_cut():
  before = stored_split.StoredSplit({'train': tuple('abcdefghij')})
  after = stored_split.StoredSplit({'train': ()})
  message = errors.refusal(stored_split.check, before, after, 'set')
  assert "'e' is missing; 5 more)" in message
