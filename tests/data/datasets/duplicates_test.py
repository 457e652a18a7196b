"""Copies of images are found by their pixels and stay on one side."""

import numpy as np
import pytest

from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import duplicates
from tests.testing import image_sets

SPLITS = class_table.SPLITS


def rows_of(folder, **options):
  """{split: the images as a set of bytes}, read one split after the other."""
  return {
    split: {
      image.tobytes()
      for image in image_sets.load(folder, split, **options).images
    }
    for split in SPLITS
  }


def overlap(parts):
  return (
    parts['train'] & parts['test']
    | parts['train'] & parts['valid']
    | parts['valid'] & parts['test']
  )


def test_the_first_copy_is_found_by_brute_force():
  blocks = image_sets.pixels(3, 5, channels=1)
  blocks[2, 1] = blocks[0, 3]
  blocks[1, 4] = blocks[1, 0]
  flat = blocks.reshape(15, -1)
  wanted = [
    min(j for j in range(15) if (flat[j] == flat[i]).all()) for i in range(15)
  ]
  found = duplicates.first_copies(blocks)
  assert np.concatenate(found).tolist() == wanted
  assert duplicates.count(found) == 2


def test_images_of_one_colour_are_no_copies():
  blocks = np.zeros((2, 3, 4, 4, 1), np.uint8)
  assert duplicates.count(duplicates.first_copies(blocks)) == 0


@pytest.mark.parametrize('seed', range(5))
def test_copied_files_stay_in_one_split_when_images_are_split(
  tmp_path, warnings, seed
):
  images = image_sets.pixels(3, 10)
  images[:, 5:] = images[:, :5]  # every image twice
  images[2, 0] = images[0, 1]  # and one in two classes
  image_sets.save(tmp_path, images=images)
  parts = rows_of(tmp_path, split_by='image', seed=seed)
  assert not overlap(parts)
  assert sum(map(len, parts.values())) == 15
  assert '15 images are copies of others' in warnings[0]


def test_without_copies_images_are_split_as_ever(tmp_path, warnings):
  image_sets.save(tmp_path, images=image_sets.pixels(3, 10))
  parts = rows_of(tmp_path, split_by='image')
  assert [len(parts[split]) for split in SPLITS] == [18, 6, 6]
  assert not warnings


@pytest.mark.parametrize('where', ['train', 'test'])
def test_a_class_copied_less_one_file_is_left_out_of_training(
  tmp_path, warnings, where
):
  images = list(image_sets.pixels(6, 5))
  split = ['train', 'train', 'train', 'valid', 'test', 'test']
  longer, shorter = (0, 5) if where == 'train' else (5, 0)
  images[shorter] = images[longer][:4]
  labels = np.repeat(np.arange(6), [len(block) for block in images])
  image_sets.save(
    tmp_path, images=np.concatenate(images), labels=labels, split=split
  )
  parts = rows_of(tmp_path)
  assert not overlap(parts)
  assert len(image_sets.load(tmp_path, 'test').counts) == 2
  train = image_sets.load(tmp_path, 'train')
  assert train.class_names == ('class0001', 'class0002')
  assert "with them all of 'class0000' (train)" in warnings[0]
  assert f'{5 if where == "train" else 4} images occur in sev' in warnings[0]


def test_a_picture_that_all_classes_share_is_left_out_of_training(
  tmp_path, warnings
):
  images = image_sets.pixels(5, 6)
  images[:, 3] = images[0, 3]
  split = ['train', 'train', 'train', 'valid', 'test']
  image_sets.save(tmp_path, images=images, split=split)
  parts = rows_of(tmp_path)
  assert not overlap(parts)
  assert image_sets.load(tmp_path, 'train').counts.tolist() == [5, 5, 5]
  assert image_sets.load(tmp_path, 'test').counts.tolist() == [6]
  assert '4 images occur in several splits too' in warnings[0]


def test_large_sets_that_stay_on_disk_are_not_searched():
  blocks = [np.broadcast_to(np.uint8(0), (1 << 20, 16, 16, 1))]
  assert not duplicates.is_quick(blocks)
  assert duplicates.is_quick([image_sets.pixels(1, channels=1)[0]])
