"""Every form of a user's images becomes the same array, or one line.

Guards: models/files.py.
"""

import numpy as np
from PIL import Image
import pytest
from scipy import sparse

from hyperudl import core
from hyperudl.data.datasets import image_inputs
from hyperudl.models import files
from hyperudl.models import images
from tests.testing import errors
from tests.testing import image_sets
from tests.testing import models

INPUTS = image_inputs.Inputs(8, 8, 1)


def test_all_forms_of_images_give_one_array(tmp_path):
  pixels = models.pixels(3)
  paths = [tmp_path / f'{row}.png' for row in range(3)]
  for path, image in zip(paths, pixels):
    image_sets.draw(path, image)
  expected = pixels[..., None].astype(np.float32) / 255
  for form in (
    pixels,
    pixels[..., None],
    pixels.reshape(3, -1),
    expected,
    expected.reshape(3, -1),
    [Image.fromarray(image) for image in pixels],
    [str(path) for path in paths],
    paths,
    list(pixels),
    tmp_path,
  ):
    np.testing.assert_array_equal(images.to_array(form, INPUTS), expected)
  parts = list(images.batches(paths, INPUTS, 2))
  assert [len(part) for part in parts] == [2, 1]
  np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize(
  'form, words',
  [
    (np.zeros((2, 5)), 'rows of 5 numbers'),
    (np.full((2, 8, 8), np.nan), 'NaN'),
    (np.full((2, 8, 8), 2.0), 'expected numbers in [0, 1]'),
    (np.full((2, 9, 9), 2.0), 'outside [0, 1]'),
    (np.zeros(4), 'shape (4,)'),
    (np.zeros((2, 64), complex), 'Complex data'),
    (sparse.csr_array((2, 64)), 'sparse input'),
    (Image.new('L', (8, 8)), 'put it into a list'),
    ([Image.new('I', (8, 8))], 'image 0: pixels of mode I'),
    (['/none/a.png'], '/none/a.png'),
    ('/none', 'no such file'),
    (np.array([['a'] * 64]), 'pixels'),
  ],
)
def test_what_is_no_image_is_refused(form, words):
  assert words in errors.refusal(images.to_array, form, INPUTS)


def test_gray_levels_of_16_bits_are_scaled_not_clipped(tmp_path):
  pixels = models.pixels(1)[0]
  wide = Image.fromarray(pixels.astype(np.uint16) * 257)
  wide.save(tmp_path / 'wide.tif')
  expected = pixels[None, ..., None].astype(np.float32) / 255
  for form in ([wide], tmp_path):
    np.testing.assert_array_equal(images.to_array(form, INPUTS), expected)


def class_folders(folder):
  for name in ('10', '2'):
    for row in (1, 0):
      image_sets.draw(folder / name / f'{row}.png', models.pixels(1, row)[0])


def test_class_folders_come_in_natural_order(tmp_path):
  class_folders(tmp_path)
  found = files.labelled(tmp_path)
  assert found.classes == ['2', '10'] and found.labels == ['2', '2', '10', '10']
  names = [path[len(str(tmp_path)) :] for path in found.paths]
  assert names == ['/2/0.png', '/2/1.png', '/10/0.png', '/10/1.png']
  assert files.unlabelled(tmp_path) == found.paths


def test_a_list_of_paths_and_labels_says_the_same(tmp_path):
  class_folders(tmp_path)
  table = tmp_path / 'all.csv'
  rows = ['10/1.png,10', '2/0.png,2', '10/0.png,10', '2/1.png,2']
  table.write_text('\n'.join(['\ufeffpath,label', *rows]))
  assert files.labelled(table) == files.labelled(tmp_path)
  assert sorted(files.unlabelled(table)) == sorted(files.unlabelled(tmp_path))


@pytest.mark.parametrize(
  'text, words',
  [
    ('name,label\na,b', 'columns name, label'),
    ('path,label\na,', 'row 1'),
    ('path,label\n', 'no images'),
    ('path,label\n"a', 'not a CSV file'),
    ('', 'columns'),
  ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, words):
  table = tmp_path / 'all.csv'
  table.write_text(text)
  assert words in errors.refusal(files.labelled, table)


def test_folders_of_splits_are_no_classes(tmp_path):
  for split in ('train', 'test'):
    class_folders(tmp_path / split)
  assert 'folders of splits' in errors.refusal(files.labelled, tmp_path)


def test_a_batch_of_no_images_is_refused():
  with pytest.raises(core.BadInput, match='batch=0'):
    list(images.batches(models.pixels(2), INPUTS, 0))
