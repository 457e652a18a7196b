"""Pickle caches of mini- and tieredImageNet convert without being run."""

import os
import pickle

import numpy as np
import pytest

from hyperudl.data import datasets
from hyperudl.data.datasets import class_table
from tests.testing import image_sets


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_mini_imagenet_with_class_dict(tmp_path, protocol):
  images = image_sets.write_mini(tmp_path / 'mini', protocol)
  out = image_sets.converted(tmp_path, 'mini', tmp_path / 'mini')
  assert '6 classes, 18 images' in out and 'valid: 2 classes, 6 images' in out
  for split, tag in zip(class_table.SPLITS, images):
    dataset = image_sets.load_converted(tmp_path, split)
    assert dataset.class_names[0][0] == 'n'
    assert np.array_equal(image_sets.rows(dataset, 0), images[tag][:3])
    assert np.array_equal(image_sets.rows(dataset, 1), images[tag][[5, 3, 4]])


def test_mini_imagenet_loads_without_conversion(tmp_path):
  images = image_sets.write_mini(tmp_path)
  for folder, name in ((tmp_path, 'miniimagenet'), (tmp_path.parent, '')):
    name = name or tmp_path.name
    dataset = datasets.load(name, 'valid', str(folder))
    assert np.array_equal(image_sets.rows(dataset, 0), images['val'][:3])


def test_mini_imagenet_with_labels(tmp_path):
  folder = tmp_path / 'mini'
  folder.mkdir()
  images = image_sets.pixels(3, 5, channels=3)
  for index, tag in enumerate(('train_phase_train', 'val', 'test')):
    name = f'miniImageNet_category_split_{tag}.pickle'
    with open(folder / name, 'wb') as stream:
      labels = [7, 9, 7, 7, 9]
      pickle.dump({'data': images[index], 'labels': labels}, stream, 2)
  image_sets.converted(tmp_path, 'mini', folder)
  dataset = image_sets.load_converted(tmp_path, 'test')
  assert dataset.class_names == ('test/0007', 'test/0009')
  assert np.array_equal(image_sets.rows(dataset, 1), images[2][[1, 4]])


def write_tiered(folder):
  folder.mkdir()
  images = image_sets.pixels(3, 6, channels=3)
  for index, tag in enumerate(('train', 'val', 'test')):
    np.savez(folder / f'{tag}_images.npz', images=images[index])
    with open(folder / f'{tag}_labels.pkl', 'wb') as stream:
      pickle.dump({'labels': [0, 0, 0, 1, 1, 2]}, stream, 2)
  return images


def test_tiered_imagenet(tmp_path):
  images = write_tiered(tmp_path / 'tiered')
  out = image_sets.converted(tmp_path, 'tiered', tmp_path / 'tiered')
  assert '9 classes, 18 images (1 to 3 per class)' in out
  dataset = image_sets.load_converted(tmp_path, 'valid')
  assert dataset.counts.tolist() == [3, 2, 1]
  assert np.array_equal(dataset.images, images[1])


class Bomb:
  """A pickle that would make a folder."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return os.mkdir, (str(self.target),)


def fault(tmp_path, content, file='mini-imagenet-cache-val.pkl'):
  image_sets.write_mini(tmp_path / 'mini')
  with open(tmp_path / 'mini' / file, 'wb') as stream:
    pickle.dump(content, stream)
  return image_sets.refused(tmp_path, 'mini', tmp_path / 'mini')


@pytest.mark.parametrize(
  'content, words',
  [
    ([1, 2], "expected a dict with 'image_data', found list"),
    ({'data': 1}, "expected a dict with 'image_data', found ['data']"),
    (
      {'image_data': image_sets.pixels(1)[0, 0], 'class_dict': {}},
      '[image_data]: wrong rank 2',
    ),
    (
      {'image_data': np.full((4, 6, 6, 3), 9.5), 'class_dict': {}},
      '[image_data]: element [0, 0, 0, 0] is 9.5',
    ),
    (
      {'image_data': np.zeros((4, 6, 6, 3), np.uint8), 'class_dict': [0]},
      '[class_dict]: list; expected a dict',
    ),
    (
      {
        'image_data': np.zeros((4, 6, 6, 3), np.uint8),
        'class_dict': {'a': 'b'},
      },
      "[class_dict]['a']: expected a list of integers",
    ),
    (
      {
        'image_data': np.zeros((4, 6, 6, 3), np.uint8),
        'class_dict': {'a': [0, 4]},
      },
      "[class_dict]['a']: element 1 is 4; expected a row of the 4 images",
    ),
    (
      {
        'image_data': np.zeros((4, 6, 6, 3), np.uint8),
        'class_dict': {'a': [0, 1, 2, 3], 'b': [1]},
      },
      "[class_dict]['b']: images are in several classes, or twice in one",
    ),
    (
      {'image_data': [np.zeros((6, 6, 3), np.uint8), 'x'], 'class_dict': {}},
      '[image_data]: a list, but not of arrays of one shape',
    ),
    (
      {'image_data': np.zeros((4, 6, 6, 3), np.uint8), 'class_dict': {'a': []}},
      "class 2 ('a') has 0 images",
    ),
  ],
)
def test_a_fault_in_a_cache_is_named(tmp_path, content, words):
  line = fault(tmp_path, content)
  assert words in line and 'mini' in line


def test_a_bomb_in_a_cache_does_not_go_off(tmp_path):
  for content in (
    Bomb(tmp_path / 'bang'),
    {'image_data': Bomb(tmp_path / 'bang'), 'class_dict': {}},
  ):
    assert 'forbidden global posix.mkdir' in fault(tmp_path, content)
  assert not (tmp_path / 'bang').exists()


def test_an_incomplete_cache_says_what_is_missing(tmp_path):
  image_sets.write_mini(tmp_path / 'mini')
  os.remove(tmp_path / 'mini' / 'mini-imagenet-cache-val.pkl')
  line = image_sets.refused(tmp_path, 'mini', tmp_path / 'mini')
  assert 'mini-imagenet-cache-val.pkl: missing' in line
  line = image_sets.refused(tmp_path, 'tiered', tmp_path / 'mini')
  assert 'has none of the files of --kind=tiered' in line
  write_tiered(tmp_path / 'tiered')
  with open(tmp_path / 'tiered' / 'test_labels.pkl', 'wb') as stream:
    pickle.dump({'labels': [0, 1]}, stream)
  line = image_sets.refused(tmp_path, 'tiered', tmp_path / 'tiered')
  assert 'test_labels.pkl: 6 images but 2 labels' in line
