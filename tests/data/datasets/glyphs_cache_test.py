"""The cache of a built-in set is used only if it is whole and fresh."""

import hashlib
import json
import os

import numpy as np
import pytest

from hyperudl.data.datasets import glyph_attributes
from hyperudl.data.datasets import glyphs
from hyperudl.data.datasets import glyphs_cache
from tests.testing import errors


@pytest.fixture(scope='module')
def images():
  """Random pixels, which are faster to make than the true ones."""
  shape = (1623, 20, 28, 28)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture
def drawings(images, monkeypatch):
  """A list with an entry for each call of `generate`."""
  calls = []

  def generate(*, progress=None):
    calls.append('generate')
    if progress:
      progress(glyphs.CLASSES, glyphs.CLASSES)
    return images.copy()

  digest = hashlib.sha256(images).hexdigest()
  monkeypatch.setattr(glyphs, 'CHECKSUM', digest)
  monkeypatch.setattr(glyphs, 'generate', generate)
  return calls


def messages(caplog):
  """The warnings so far."""
  return [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']


def test_the_true_pixels_pass_through_the_cache_without_a_warning(
  tmp_path, caplog
):
  first, second = glyphs_cache.load(tmp_path), glyphs_cache.load(tmp_path)
  np.testing.assert_array_equal(first['images'], second['images'])
  digest = hashlib.sha256(second['images']).hexdigest()
  assert digest == glyphs.CHECKSUM
  assert not messages(caplog)


def test_each_set_has_its_own_cache(tmp_path, drawings, monkeypatch):
  shape = (glyph_attributes.CLASSES, 2, 3, 3, 3)
  scenes = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
  digest = hashlib.sha256(scenes).hexdigest()
  monkeypatch.setattr(glyph_attributes, 'CHECKSUM', digest)
  monkeypatch.setattr(glyph_attributes, 'generate', lambda **_: scenes)
  glyphs_cache.load(tmp_path)
  first = glyphs_cache.load(tmp_path, 'glyph_attributes')
  monkeypatch.delattr(glyph_attributes, 'generate')
  second = glyphs_cache.load(tmp_path, 'glyph_attributes')
  np.testing.assert_array_equal(second['images'], scenes)
  np.testing.assert_array_equal(second['alphabets'], first['alphabets'])
  assert sorted(os.listdir(tmp_path)) == ['glyph_attributes.npz', 'glyphs.npz']


def test_cache_round_trip(tmp_path, drawings, images, caplog):
  folder = tmp_path / 'not' / 'there'
  calls = []
  first = glyphs_cache.load(folder, progress=lambda *call: calls.append(call))
  second = glyphs_cache.load(folder)
  assert len(drawings) == 1
  assert calls == [(1623, 1623)]
  assert set(first) == {'images', 'class_names', 'alphabets', 'split'}
  for name, array in first.items():
    np.testing.assert_array_equal(second[name], array)
  np.testing.assert_array_equal(second['images'], images)
  assert os.listdir(folder) == ['glyphs.npz']  # no temporary file stays
  assert not messages(caplog)


def flip(path):
  """Changes one byte in the middle of the pixels."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def truncate(size):
  return lambda path: path.write_bytes(path.read_bytes()[:size])


def rewrite(**changes):
  """Replaces arrays of a cache; `recipe` is a dict of what is new in it."""

  def damage(path):
    with np.load(path) as file:
      arrays = dict(file)
    recipe = json.loads(str(arrays['recipe'])) | changes.get('recipe', {})
    np.savez(path, **(arrays | changes | {'recipe': json.dumps(recipe)}))

  return damage


@pytest.mark.parametrize(
  'damage',
  [
    flip,
    truncate(-1000),
    truncate(1000),
    truncate(0),
    lambda path: path.write_text('not an archive'),
    lambda path: np.savez(path, recipe=glyphs_cache.recipe_text()),
    rewrite(images=np.zeros((1623, 20, 28, 28), np.uint8)),
    rewrite(images=np.zeros((1623, 19, 28, 28), np.uint8)),
    rewrite(recipe={'version': 'older'}),
    rewrite(recipe={'seed': 5}),
    rewrite(recipe={'elastic': 1.5}),
  ],
)
def test_a_damaged_or_stale_cache_is_drawn_anew(
  tmp_path, drawings, images, caplog, damage
):
  path = tmp_path / 'glyphs.npz'
  glyphs_cache.load(tmp_path)
  damage(path)
  np.testing.assert_array_equal(glyphs_cache.load(tmp_path)['images'], images)
  (warning,) = messages(caplog)
  assert str(path) in warning
  glyphs_cache.load(tmp_path)
  assert len(drawings) == 2  # once for the first load, once for the damage
  assert len(messages(caplog)) == 1


def test_another_set_of_that_name_is_refused(tmp_path, drawings):
  path = tmp_path / 'glyphs.npz'
  np.savez(path, images=np.zeros((2, 3, 4, 4), np.uint8))
  before = path.read_bytes()
  message = errors.refusal(glyphs_cache.load, tmp_path)
  assert 'glyphs is the name of the built-in set, and this is an' in message
  assert path.read_bytes() == before and not drawings


def test_an_unwritable_directory_does_without_cache(tmp_path, drawings, caplog):
  # A file where the directory should be stops even the superuser.
  (tmp_path / 'file').write_text('')
  loaded = glyphs_cache.load(tmp_path / 'file')
  assert len(loaded['images']) == 1623
  (warning,) = messages(caplog)
  assert 'The set is not cached' in warning


def test_a_full_disk_leaves_no_partial_file(
  tmp_path, drawings, caplog, monkeypatch
):
  def fail(source, target):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  assert len(glyphs_cache.load(tmp_path)['images']) == 1623
  (warning,) = messages(caplog)
  assert 'No space left' in warning
  assert os.listdir(tmp_path) == []


def test_pixels_of_another_cpu_are_used_with_both_checksums_named(
  tmp_path, drawings, images, caplog, monkeypatch
):
  monkeypatch.setattr(glyphs, 'CHECKSUM', 'f' * 64)
  for _ in range(2):  # drawn, then read from the cache
    np.testing.assert_array_equal(glyphs_cache.load(tmp_path)['images'], images)
  assert len(drawings) == 1
  digest = hashlib.sha256(images.tobytes()).hexdigest()
  warnings = messages(caplog)
  assert len(warnings) == 2
  assert all('f' * 64 in text and digest in text for text in warnings)
