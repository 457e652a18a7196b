"""Pixels of any number type become uint8, names become strings."""

import numpy as np
import pytest

from hyperudl.data.datasets import checks
from tests.testing import errors
from tests.testing import image_sets


@pytest.mark.parametrize(
  'kind, values, expected',
  [
    (bool, [False, True], [0, 255]),
    (np.float32, [0.0, 0.5, 1.0], [0, 128, 255]),
    (np.float64, [0.25, 1 + 1e-9], [64, 255]),
    (np.float16, [0.0, 1.0], [0, 255]),
    (np.int64, [0, 7, 255], [0, 7, 255]),
  ],
)
def test_other_number_types_become_uint8(tmp_path, kind, values, expected):
  images = np.resize(np.array(values, kind), (4, 3, 6, 6))
  image_sets.save(tmp_path, images=images)
  dataset = image_sets.load(tmp_path)
  assert dataset.images.dtype == np.uint8
  assert np.array_equal(
    dataset.images.ravel(), np.resize(expected, images.size)
  )


def test_large_arrays_are_converted_in_pieces(monkeypatch):
  images = np.arange(7 * 4 * 4, dtype=np.int64).reshape(7, 4, 4)
  expected = images.astype(np.uint8)[..., None]
  monkeypatch.setattr(checks, 'PIECE', 40)
  np.testing.assert_array_equal(
    checks.to_pixels(images, 4, 'set', '[n, H, W, C]'), expected
  )
  images[5, 1, 2] = 300
  message = errors.refusal(checks.to_pixels, images, 4, 'set', '[n, H, W, C]')
  assert 'element [5, 1, 2] is 300' in message


def test_names_may_be_bytes():
  names = np.array([b'cat', 'd\u00f6g'.encode()])
  assert checks.to_strings(names, 'names') == ('cat', 'd\u00f6g')


def test_images_of_one_value_are_refused():
  white = np.full((2, 4, 4, 1), 255, np.uint8)
  message = errors.refusal(checks.require_contrast, [white, white], 'set')
  assert message.startswith('set: all pixels of all images are 255')
  checks.require_contrast([white, white - 1], 'set')
  white[1, 2, 2] = 0
  checks.require_contrast([white], 'set')


@pytest.mark.parametrize('order', '<>')
def test_characters_that_unicode_does_not_have_are_refused(order):
  codes = np.array([[99, 97], [100, 0x110000]], f'{order}u4')
  names = codes.view(f'{order}U2')[:, 0]
  message = errors.refusal(checks.to_strings, names, 'names')
  assert 'names: a character that Unicode does not have' in message
  assert checks.to_strings(names[:1], 'names') == ('ca',)
