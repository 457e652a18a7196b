"""The caches of other few-shot systems are read as they are."""

import random

import numpy as np
import pytest

from hyperudl.data.datasets import class_table
from tests.testing import image_sets


@pytest.mark.parametrize('axes', [4, 5])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_hypertransformer_arrays(tmp_path, axes, order):
  images = image_sets.pixels(6, channels=None if axes == 4 else 3)
  np.save(tmp_path / 'set.npy', np.asarray(images, order=order))
  dataset = image_sets.load(tmp_path)
  assert np.array_equal(dataset.images.reshape(images.shape), images)
  np.save(tmp_path / 'set.npy', images > 99)
  dataset = image_sets.load(tmp_path)
  expected = np.where(images > 99, 255, 0)
  assert np.array_equal(dataset.images.reshape(images.shape), expected)


def test_hypertransformer_channels_first(tmp_path):
  images = image_sets.pixels(6, channels=3)
  np.save(tmp_path / 'my_set_ch_first_v1.npy', np.moveaxis(images, -1, 2))
  assert np.array_equal(
    image_sets.load(tmp_path).images.reshape(images.shape), images
  )
  np.save(tmp_path / 'other.npy', np.moveaxis(images, -1, 2))
  assert 'is channels first' in image_sets.refusal(tmp_path, name='other')
  np.save(tmp_path / 'my_set_ch_first_v1.npy', images)
  assert 'expected [classes, samples, C, H, W]' in image_sets.refusal(tmp_path)


def save_chunk(path, blocks):
  array = np.empty(len(blocks), object)
  for index, block in enumerate(blocks):
    array[index] = block
  np.save(path, array, allow_pickle=True)


def test_hypertransformer_chunks(tmp_path):
  folder = tmp_path / 'set'
  folder.mkdir()
  images = image_sets.pixels(7, 5, channels=3)
  blocks = [images[index, : 3 + index % 3] for index in range(4)]
  save_chunk(folder / 'chunk_000.npy', blocks)
  np.save(folder / 'chunk_001.npy', images[4:])
  dataset = image_sets.load(tmp_path)
  assert dataset.counts.tolist() == [3, 4, 5, 3, 5, 5, 5]
  for index in range(7):
    expected = blocks[index] if index < 4 else images[index]
    assert np.array_equal(image_sets.rows(dataset, index), expected)
  save_chunk(folder / 'chunk_002.npy', [blocks[0], blocks[1][:, :5]])
  assert (
    'images of class 8 are 5x6x3, those of class 0 6x6x3'
    in image_sets.refusal(tmp_path)
  )
  save_chunk(folder / 'chunk_002.npy', [blocks[0], blocks[1][:0]])
  assert 'chunk_002.npy[1]: empty' in image_sets.refusal(tmp_path)
  save_chunk(folder / 'chunk_002.npy', [blocks[0], 'pixels'])
  assert 'chunk_002.npy[1]: str; expected an array' in image_sets.refusal(
    tmp_path
  )


@pytest.mark.parametrize(
  'name, count, sizes',
  [
    ('omniglot', 1623, (1150, 50, 423)),
    ('miniimagenet', 100, (64, 16, 20)),
    ('tieredimagenet', 608, (351, 97, 160)),
  ],
)
def test_published_caches_have_their_published_split(
  tmp_path, name, count, sizes
):
  codes = np.arange(2, count + 2)
  images = np.zeros((count, 1, 2, 4), np.uint8)
  images[..., 0, 0] = codes[:, None] % 256
  images[..., 0, 1] = codes[:, None] // 256
  np.save(tmp_path / f'{name}.npy', images)
  keys = list(range(count))
  if name == 'omniglot':  # as its training script shuffles them
    state = random.getstate()
    random.seed(2022)
    random.shuffle(keys)
    random.setstate(state)
  start = 0
  for split, size in zip(class_table.SPLITS, sizes):
    dataset = image_sets.load(tmp_path, split, name)
    low, high = dataset.images[:, 0, :2, 0].astype(int).T
    numbers = low + high * 256 - 2
    assert sorted(numbers.tolist()) == sorted(keys[start : start + size])
    start += size
