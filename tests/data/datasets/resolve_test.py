"""Names of sets resolve to files, or list what there is."""

import os

import numpy as np
import pytest

from hyperudl.data.datasets import glyphs_cache
from hyperudl.data.datasets import resolve
from tests.testing import errors
from tests.testing import image_sets


def test_an_unknown_name_lists_what_is_there(tmp_path):
  for name in ('omniglot_background', 'cifar10'):
    image_sets.save(tmp_path, name, images=image_sets.pixels(3))
  (tmp_path / 'birds').mkdir()
  (tmp_path / 'README.md').write_text('text')
  message = image_sets.refusal(tmp_path, name='omniglt')
  listed = 'birds, cifar10, glyph_attributes, glyphs, omniglot_background'
  assert f'which has: {listed}.' in message
  assert "Did you mean 'omniglot_background'?" in message
  assert 'Did you mean' not in image_sets.refusal(tmp_path, name='zzz')
  assert 'launch/data/omniglot.sh' in image_sets.refusal(
    tmp_path, name='omniglot'
  )
  assert 'is not a folder' in image_sets.refusal(tmp_path / 'nowhere')


@pytest.mark.parametrize('name', ['glyphs', 'glyph_attributes'])
def test_its_name_loads_a_built_in_set(tmp_path, monkeypatch, name):
  images = image_sets.pixels(5)
  content = {
    'images': images,
    'class_names': np.array(list('abcde')),
    'alphabets': np.array(['A'] * 5),
    'split': np.array(['train', 'train', 'valid', 'test', 'test']),
  }
  calls = []
  load_glyphs = lambda *call: calls.append(call) or content
  monkeypatch.setattr(glyphs_cache, 'load', load_glyphs)
  dataset = image_sets.load(tmp_path / 'new', 'test', name)
  assert dataset.class_names == ('d', 'e')
  assert np.array_equal(dataset.images[..., 0], images[3:].reshape(8, 6, 6))
  assert calls == [(str(tmp_path / 'new'), name)]


@pytest.mark.parametrize('file', ['', '.npy', '_ch_first_84.npy'])
def test_an_own_set_named_like_the_built_in_one_is_refused(tmp_path, file):
  path = tmp_path / f'glyphs{file}'
  if file:
    np.save(path, image_sets.pixels(3))
  else:
    image_sets.draw(path / 'a' / '1.png', (6, 6))
  message = image_sets.refusal(tmp_path, name='glyphs')
  assert f'{path}: glyphs is the name of the built-in set' in message


def test_a_tilde_in_the_folder_of_the_data_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'data').mkdir()
  image_sets.save(tmp_path / 'data', images=image_sets.pixels(3))
  assert len(resolve.read('set', '~/data').blocks) == 3


def test_a_data_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
  def forbidden(path):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(os, 'listdir', forbidden)
  message = image_sets.refusal(tmp_path)
  assert 'may not be listed (Permission denied); change its' in message


def test_a_npz_file_comes_before_a_npy_file_and_a_folder(tmp_path):
  images = image_sets.pixels(3)
  (tmp_path / 'set').mkdir()
  np.save(tmp_path / 'set' / 'chunk.npy', images[:1])
  assert len(resolve.read('set', str(tmp_path)).blocks) == 1
  np.save(tmp_path / 'set.npy', images[:2])
  assert len(resolve.read('set', str(tmp_path)).blocks) == 2
  image_sets.save(tmp_path, images=images)
  assert len(resolve.read('set', str(tmp_path)).blocks) == 3


def test_a_file_without_images_is_refused(tmp_path):
  image_sets.save(tmp_path, x=np.zeros(3))
  path = str(tmp_path / 'set.npz')
  assert "no array 'images'" in errors.refusal(resolve.read_npz, path)
