"""Folders that are slow to read are read once."""

import os

import numpy as np
import pytest

from hyperudl.data.datasets import image_cache
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_folder
from tests.testing import image_sets


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A folder of images that is taken for slow, and an empty cache."""
  monkeypatch.setattr(image_cache, 'SECONDS', 0)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  images = image_sets.pixels(3, 2, channels=3)
  for index, name in enumerate('abc'):
    for row in range(2):
      path = tmp_path / 'set' / name / f'{row}.png'
      image_sets.draw(path, images[index, row])
  return tmp_path / 'set'


def cached(tmp_path):
  return sorted(os.listdir(tmp_path / 'cache' / 'hyperudl' / 'images'))


def test_the_second_start_decodes_nothing(folder, monkeypatch):
  first = image_folder.read_tree(str(folder), 4)
  monkeypatch.setattr(image_file, 'read', None)
  second = image_folder.read_tree(str(folder), 4)
  assert np.array_equal(first.blocks, second.blocks)
  assert first.class_names == second.class_names and second.where == str(folder)


def test_a_changed_file_is_read_again_and_old_caches_go(folder, tmp_path):
  image_folder.read_tree(str(folder), 4)
  before = cached(tmp_path)
  image_sets.draw(folder / 'a' / '0.png', np.full((6, 6, 3), 9, np.uint8))
  again = image_folder.read_tree(str(folder), 4)
  assert (again.blocks[0][0] == 9).all()
  after = cached(tmp_path)
  assert len(before) == len(after) == 1 and before != after


def test_another_size_is_cached_apart(folder, tmp_path):
  image_folder.read_tree(str(folder), 4)
  assert image_folder.read_tree(str(folder), 3).blocks[0].shape[1] == 3
  assert len(cached(tmp_path)) == 2


def test_a_damaged_cache_is_reported_and_replaced(folder, tmp_path, warnings):
  first = image_folder.read_tree(str(folder), 4)
  path = tmp_path / 'cache' / 'hyperudl' / 'images' / cached(tmp_path)[0]
  path.write_bytes(path.read_bytes()[:-40])
  again = image_folder.read_tree(str(folder), 4)
  assert np.array_equal(first.blocks, again.blocks)
  assert 'reading the images again' in ''.join(warnings)


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
  (tmp_path / 'cache').write_text('a file')
  assert len(image_folder.read_tree(str(folder), 4).blocks) == 3


def test_a_quick_folder_is_not_cached(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(image_cache, 'SECONDS', 60)
  image_folder.read_tree(str(folder), 4)
  assert not (tmp_path / 'cache').exists()
