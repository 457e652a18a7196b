"""Splits, class choices and sizes of a loaded set."""

import os
import pathlib

import numpy as np
import pytest

from hyperudl.data import datasets
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import dataset as dataset_lib
from hyperudl.data.datasets import partition
from hyperudl.data.datasets import resolve
from tests.testing import image_sets

REAL = str(pathlib.Path(__file__).parents[4] / 'shared/data')


def test_the_split_of_the_file_is_used(tmp_path):
  split = np.array(['train'] * 5 + ['valid'] * 2 + ['test'] * 3)
  images = image_sets.pixels()
  image_sets.save(tmp_path, images=images, split=split)
  for name, span in (('train', (0, 5)), ('valid', (5, 7)), ('test', (7, 10))):
    dataset = image_sets.load(tmp_path, name)
    assert np.array_equal(
      dataset.images[..., 0].reshape(-1, 4, 6, 6), images[slice(*span)]
    )


@pytest.mark.parametrize('split_by', ['auto', 'class'])
def test_without_a_split_classes_are_split_by_a_seed(tmp_path, split_by):
  image_sets.save(tmp_path, images=image_sets.pixels(25))
  names = [
    image_sets.load(tmp_path, split, split_by=split_by).class_names
    for split in class_table.SPLITS
  ]
  assert [len(part) for part in names] == [16, 4, 5]
  assert len(set().union(*names)) == 25
  other = image_sets.load(
    tmp_path, 'train', split_by=split_by, seed=1
  ).class_names
  assert set(other) != set(names[0])
  assert (
    image_sets.load(tmp_path, 'train', split_by=split_by).class_names
    == names[0]
  )


def test_without_a_split_whole_alphabets_are_split(tmp_path):
  alphabets = np.repeat(list('ABCDE'), 4)
  image_sets.save(tmp_path, images=image_sets.pixels(20), alphabets=alphabets)
  parts = [
    set(image_sets.load(tmp_path, split).alphabets)
    for split in class_table.SPLITS
  ]
  assert [len(alphabets) for alphabets in parts] == [3, 1, 1]
  assert len(set().union(*parts)) == 5
  mixed = image_sets.load(tmp_path, 'train', split_by='class').alphabets
  assert len(mixed) == 13 and set(mixed) == set('ABCDE')


def test_split_by_image_splits_the_images_of_every_class(tmp_path):
  images = image_sets.pixels(3, 25)
  image_sets.save(
    tmp_path, images=images, split=np.array(['train', 'train', 'test'])
  )
  parts = [
    image_sets.load(tmp_path, s, split_by='image') for s in class_table.SPLITS
  ]
  assert [part.counts.tolist() for part in parts] == [
    [16] * 3,
    [4] * 3,
    [5] * 3,
  ]
  for index in range(3):
    together = np.concatenate(
      [image_sets.rows(part, index)[..., 0] for part in parts]
    )
    assert {row.tobytes() for row in together} == {
      row.tobytes() for row in images[index]
    }
  # The classes are not all split alike.
  first = [
    [row.tobytes() for row in images[index]].index(
      image_sets.rows(parts[2], index)[0].tobytes()
    )
    for index in range(3)
  ]
  assert len(set(first)) > 1


def test_fewer_classes_are_some_of_more(tmp_path):
  image_sets.save(tmp_path, images=image_sets.pixels(30))
  names = [
    image_sets.load(tmp_path, classes=count).class_names for count in (5, 12, 0)
  ]
  assert [len(chosen) for chosen in names] == [5, 12, 30]
  assert set(names[0]) < set(names[1]) < set(names[2])
  assert image_sets.load(tmp_path, classes=5, seed=1).class_names != names[0]
  assert list(names[1]) == sorted(names[1])


def test_images_are_resized_with_antialiasing(tmp_path):
  fine = np.zeros((3, 1, 32, 32), np.uint8)
  fine[:, :, :, ::2] = 255  # stripes that point sampling would turn to 0 or 255
  image_sets.save(tmp_path, images=fine)
  small = image_sets.load(tmp_path, image_size=8).images
  assert small.shape == (3, 8, 8, 1)
  assert abs(small.astype(int) - 127).max() <= 12
  large = image_sets.load(tmp_path, image_size=32).images
  assert np.array_equal(large[..., 0], fine[:, 0])


def test_colours_are_resized_apart(tmp_path):
  images = np.zeros((3, 2, 8, 4, 3), np.uint8)
  images[...] = [10, 100, 200]
  image_sets.save(tmp_path, images=images)
  resized = image_sets.load(tmp_path, image_size=5).images
  assert resized.shape == (6, 5, 5, 3)
  assert np.array_equal(resized, np.broadcast_to([10, 100, 200], resized.shape))


@pytest.mark.parametrize(
  'options, words',
  [
    ({'split': 'val'}, "split='val'; expected one of train, valid, test, all"),
    ({'split_by': 'images'}, "data.split_by='images'; expected one of auto"),
    ({'image_size': -1}, 'data.image_size=-1; expected 0 or more'),
    ({'classes': -2}, 'data.classes=-2'),
    ({'classes': 99}, 'data.classes=99, but split all of'),
    ({'split': 'train', 'split_by': 'alphabet'}, '0 alphabets cannot be split'),
    ({'name': 'a/b'}, "data.dataset='a/b': expected the name of a set"),
    ({'name': ''}, "data.dataset='': expected the name"),
  ],
)
def test_impossible_requests_are_refused(tmp_path, options, words):
  image_sets.save(tmp_path, images=image_sets.pixels())
  assert words in image_sets.refusal(tmp_path, **options)


def test_too_few_to_split(tmp_path):
  image_sets.save(tmp_path, images=image_sets.pixels(2, 5))
  assert '2 classes cannot be split in three' in image_sets.refusal(
    tmp_path, 'train'
  )
  assert len(image_sets.load(tmp_path, 'test', split_by='image').counts) == 2
  image_sets.save(tmp_path, images=image_sets.pixels(4, 2))
  message = image_sets.refusal(tmp_path, 'train', split_by='image')
  assert "class 0 ('class0000'): 2 images cannot be split in three" in message


def test_an_outline_has_the_shape_of_a_split_and_no_pixels(tmp_path):
  image_sets.save(tmp_path, images=image_sets.pixels())
  table = resolve.read('set', str(tmp_path))
  part = partition.divide(table, partition.Options()).parts['train']
  outline = dataset_lib.outline(table, part, 5)
  loaded = image_sets.load(tmp_path, 'train', image_size=5)
  assert outline.images.shape == loaded.images.shape
  assert not outline.images.any() and outline[1:][2:] == loaded[1:][2:]
  assert np.array_equal(outline.counts, loaded.counts)


def test_an_empty_split_is_refused_with_the_sizes_of_the_others(tmp_path):
  image_sets.save(
    tmp_path,
    images=image_sets.pixels(3),
    split=np.array(['train', 'test', 'test']),
  )
  words = "no class in split valid; it has {'train': 1, 'test': 2}"
  assert words in image_sets.refusal(tmp_path, 'valid')


@pytest.mark.skipif(
  not os.path.isdir(REAL), reason='needs the sets of ../shared/data'
)
@pytest.mark.parametrize(
  'name, split_by, classes, shape',
  [
    ('omniglot_background', 'auto', (592, 171, 201), (28, 28, 1)),
    ('cifar_fs', 'auto', (52, 12, 16), (32, 32, 3)),
    ('mnist', 'image', (10, 10, 10), (28, 28, 1)),
  ],
)
def test_real_sets(name, split_by, classes, shape):
  parts = []
  for split, count in zip(class_table.SPLITS, classes):
    dataset = datasets.load(name, split, REAL, split_by=split_by)
    assert len(dataset.counts) == count == len(dataset.class_names)
    assert dataset.images.shape == (dataset.counts.sum(), *shape)
    parts.append(dataset)
  total = np.load(os.path.join(REAL, f'{name}.npz'))['images']
  assert sum(len(part.images) for part in parts) == len(total) * len(total[0])
  if split_by == 'auto':
    names = [set(part.class_names) for part in parts]
    assert not names[0] & names[1] and not names[0] & names[2]
