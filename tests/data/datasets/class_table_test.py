"""Arrays of a .npz file become grouped uint8 rows, or one line of fault."""

import os

import numpy as np
import pytest

from hyperudl.data.datasets import class_table
from tests.testing import errors
from tests.testing import image_sets


def test_classes_of_equal_size(tmp_path):
  images = image_sets.pixels(channels=3)
  image_sets.save(
    tmp_path, images=images, class_names=np.array(list('abcdefghij'))
  )
  dataset = image_sets.load(tmp_path)
  assert dataset.images.dtype == np.uint8
  assert dataset.images.shape == (40, 6, 6, 3)
  assert dataset.starts.dtype == dataset.counts.dtype == np.int64
  assert dataset.class_names == tuple('abcdefghij')
  assert dataset.alphabets is None
  for index in range(10):
    assert np.array_equal(image_sets.rows(dataset, index), images[index])


def test_gray_images_get_a_channel_axis(tmp_path):
  image_sets.save(tmp_path, images=image_sets.pixels())
  assert image_sets.load(tmp_path).images.shape == (40, 6, 6, 1)


def test_labelled_rows_are_grouped_in_their_order(tmp_path):
  images = image_sets.pixels(1, 12)[0]
  labels = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0, 2, 2, 0])
  image_sets.save(tmp_path, images=images, labels=labels)
  dataset = image_sets.load(tmp_path)
  assert dataset.counts.tolist() == [5, 2, 5]
  for index in range(3):
    assert np.array_equal(
      image_sets.rows(dataset, index)[..., 0], images[labels == index]
    )


@pytest.mark.parametrize('kind', [np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type(tmp_path, kind):
  images = image_sets.pixels(1, 4)[0]
  image_sets.save(tmp_path, images=images, labels=np.array([1, 0, 1, 0], kind))
  assert image_sets.load(tmp_path).counts.tolist() == [2, 2]


def test_labels_may_be_strings_which_are_the_class_names(tmp_path):
  images = image_sets.pixels(1, 5)[0]
  labels = np.array(['dog', 'cat', 'dog', 'ant', 'cat'])
  image_sets.save(tmp_path, images=images, labels=labels)
  dataset = image_sets.load(tmp_path)
  assert dataset.class_names == ('ant', 'cat', 'dog')
  assert np.array_equal(image_sets.rows(dataset, 2)[..., 0], images[[0, 2]])


def test_string_labels_follow_the_order_of_class_names(tmp_path):
  labels = np.array(['dog', 'cat', 'dog'])
  names = np.array(['dog', 'cat'])
  image_sets.save(
    tmp_path,
    images=image_sets.pixels(1, 3)[0],
    labels=labels,
    class_names=names,
  )
  dataset = image_sets.load(tmp_path)
  assert dataset.class_names == ('dog', 'cat')
  assert dataset.counts.tolist() == [2, 1]


def spoil(value, kind=np.float32):
  images = (image_sets.pixels(4) / 255).astype(kind)
  images[1, 2, 3, 4] = value
  return images


def misnamed(**content):
  return {'images': image_sets.pixels(4), **content}


@pytest.mark.parametrize(
  'content, words',
  [
    ({'images': spoil(np.nan)}, '[images]: element [1, 2, 3, 4] is nan'),
    ({'images': spoil(np.inf)}, '[images]: element [1, 2, 3, 4] is inf'),
    ({'images': spoil(-np.inf)}, 'element [1, 2, 3, 4] is -inf'),
    ({'images': spoil(7.5)}, 'element [1, 2, 3, 4] is 7.5, outside [0, 1]'),
    ({'images': spoil(-0.5)}, 'element [1, 2, 3, 4] is -0.5, outside [0, 1]'),
    (
      {'images': np.full((4, 2, 6, 6), 187.0)},
      'element [0, 0, 0, 0] is 187.0, outside [0, 1], where float pixels must '
      'be; save them as uint8 if they are 0..255',
    ),
    ({'images': np.full((3, 2, 6, 6), 300)}, 'element [0, 0, 0, 0] is 300'),
    ({'images': np.full((3, 2, 6, 6), -1)}, 'element [0, 0, 0, 0] is -1'),
    ({'images': np.full((3, 2, 6, 6), 1)}, 'int64 with only 0 and 1'),
    ({'images': np.full((3, 2, 6, 6), 1, np.uint8)}, 'uint8 with only 0 and 1'),
    ({'images': np.ones((3, 2, 6, 6), complex)}, 'complex128 values are not'),
    ({'images': np.full((3, 2, 6, 6), 'x')}, '<U1 values are not pixels'),
    ({'images': np.zeros((3, 6), np.uint8)}, 'wrong rank 2, shape (3, 6)'),
    ({'images': np.zeros((9, 6, 6), np.uint8)}, 'wrong rank 3'),
    ({'images': np.uint8(7)}, 'wrong rank 0'),
    (
      {'images': np.zeros((9, 6, 6, 3), np.uint8)},
      'shape (9, 6, 6, 3) ends with channels but has only 4 axes',
    ),
    (
      {'images': image_sets.pixels(4).reshape(4, 4, 1, 6, 6)},
      'shape (4, 4, 1, 6, 6) is channels first',
    ),
    (
      {'images': np.zeros((9, 3, 6, 6), np.uint8), 'labels': np.arange(9)},
      'shape (9, 3, 6, 6) is channels first',
    ),
    ({'images': np.zeros((3, 2, 6, 6, 60), np.uint8)}, 'has 60 channels'),
    ({'images': np.zeros((0, 2, 6, 6), np.uint8)}, '[images]: empty'),
    ({'images': np.zeros((3, 0, 6, 6), np.uint8)}, '[images]: empty'),
    ({'images': np.zeros((3, 2, 0, 6), np.uint8)}, '[images]: empty'),
    (
      {'images': np.zeros((0, 6, 6), np.uint8), 'labels': np.zeros(0, int)},
      '[images]: empty',
    ),
    (
      {'images': image_sets.pixels(1, 9)[0], 'labels': np.arange(7)},
      '9 images but 7',
    ),
    (
      {
        'images': image_sets.pixels(1, 4)[0],
        'labels': np.array([0, 1, -1, -2]),
      },
      '[labels]: element 2 is -1',
    ),
    (
      {'images': image_sets.pixels(1, 4)[0], 'labels': np.array([0, 1, 3, 3])},
      "class 2 ('class0002') has 0 images",
    ),
    (
      {
        'images': image_sets.pixels(1, 4)[0],
        'labels': np.array([0, 1, 2, 10**12]),
      },
      'class 3 of 1000000000001 has 0 images',
    ),
    (
      {
        'images': image_sets.pixels(1, 3)[0],
        'labels': np.array([0.0, 1.0, 2.0]),
      },
      '[labels]: float64; expected integers or strings',
    ),
    (
      {'images': image_sets.pixels(1, 4)[0], 'labels': np.zeros((2, 2), int)},
      '[labels]: shape (2, 2); expected one label per image',
    ),
    (
      {
        'images': image_sets.pixels(1, 3)[0],
        'labels': np.array([0, 2, 1]),
        'class_names': np.array(['a', 'b']),
      },
      '[labels]: element 1 is 2 but there are only 2 class_names',
    ),
    (
      {
        'images': image_sets.pixels(1, 3)[0],
        'labels': np.array(['a', 'c', 'b']),
        'class_names': np.array(['a', 'b']),
      },
      "[labels]: element 1, 'c', is no class name",
    ),
    (misnamed(split=np.array(['train'] * 3)), '[split]: 3 entries for 4'),
    (
      misnamed(split=np.array(['train', 'val', 'test', 'test'])),
      "[split]: element 1 is 'val'; expected train, valid, test or none; write",
    ),
    (misnamed(split=np.array(['a', 'b', 'c', 'd'])), "element 0 is 'a'"),
    (
      misnamed(split=np.arange(4)),
      '[split]: int64 of shape (4,); expected one',
    ),
    (misnamed(alphabets=np.array(['A'] * 5)), '[alphabets]: 5 entries for 4'),
    (
      misnamed(class_names=np.array(['a', '', 'c', 'd'])),
      'element 1 is an emp',
    ),
    (misnamed(class_names=np.array([b'\xff'] * 4)), 'element 0 is not UTF-8'),
    (misnamed(class_names=np.array([None] * 4)), '[class_names]: an object ar'),
    (
      misnamed(
        class_names=np.array(['a', 'b', 'c', 'b']),
        split=np.array(['train', 'train', 'valid', 'test']),
      ),
      "classes 1 and 3 (train and test) have the same name 'b'",
    ),
    (
      misnamed(class_names=np.array(['crane', 'b', 'c', 'crane'])),
      "classes 0 and 3 have the same name 'crane'",
    ),
    (
      misnamed(split=np.array(['Train', 'train', 'valid', 'test'])),
      "element 0 is 'Train'; expected train, valid, test or none; write 'train",
    ),
    (misnamed(splits=np.array(['train'] * 4)), "did you mean 'split'"),
    (misnamed(label=np.arange(4)), "did you mean 'labels'"),
    (
      {'x': image_sets.pixels(3), 'y': np.arange(3)},
      "no array 'images' or 'features'; it has x, y",
    ),
  ],
)
def test_a_fault_in_a_npz_file_is_named(tmp_path, content, words):
  image_sets.save(tmp_path, **content)
  message = image_sets.refusal(tmp_path)
  assert words in message
  assert message.startswith(os.path.join(str(tmp_path), 'set.npz'))


def test_names_may_repeat_in_different_alphabets(tmp_path):
  image_sets.save(
    tmp_path,
    images=image_sets.pixels(4),
    class_names=np.array(['one', 'two'] * 2),
    alphabets=np.array(['A', 'A', 'B', 'B']),
  )
  assert image_sets.load(tmp_path).alphabets == ('A', 'A', 'B', 'B')


def test_a_class_in_two_splits_under_two_names_is_refused(tmp_path):
  images = image_sets.pixels(4)
  images[3] = images[1]
  split = np.array(['train', 'train', 'valid', 'test'])
  image_sets.save(tmp_path, images=images, split=split)
  message = image_sets.refusal(tmp_path, 'train')
  assert "class 1 ('class0001', train) and class 3" in message
  split[3] = 'train'
  image_sets.save(tmp_path, images=images, split=split)
  assert len(image_sets.load(tmp_path, 'train').counts) == 3


def test_blank_classes_are_not_taken_for_copies(tmp_path):
  image_sets.save(tmp_path, images=np.zeros((9, 2, 6, 6), np.uint8))
  assert len(image_sets.load(tmp_path, 'train').counts) == 6


def test_a_million_classes_are_refused():
  arrays = {'images': np.zeros((10**6, 1, 8, 8), np.uint8)}
  message = errors.refusal(class_table.from_arrays, arrays, 'set.npz')
  assert '1000000 classes, more than the 200000 that are read' in message
