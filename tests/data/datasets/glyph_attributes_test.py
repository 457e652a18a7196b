"""The built-in set `glyph_attributes`: its pixels, its values, its splits."""

import hashlib

import numpy as np
import pytest

from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import glyph_attributes
from hyperudl.data.datasets import glyphs
from tests.testing import errors

CLASSES = glyph_attributes.describe_classes()


@pytest.fixture(scope='module')
def images():
  """The set as it is released, drawn once for all tests."""
  return glyph_attributes.generate()


def of(attribute, split='test'):
  """Numbers of the classes of an attribute in a split."""
  same = CLASSES['alphabets'] == attribute
  return np.flatnonzero(same & (CLASSES['split'] == split))


def one_scene(draws=0.5, **points):
  """One image f64[28, 28, 3]; values that are not named are in the middle."""
  values = {
    name: np.mean(ranges, axis=1)[None]
    for name, ranges in glyph_attributes.RANGES.items()
  }
  values |= {name: np.array([point]) for name, point in points.items()}
  letter = points.get('letter', np.zeros((1, 28, 28)))
  values.pop('letter', None)
  draws = np.broadcast_to(draws, (1, 9))
  return glyph_attributes.draw_scenes(letter, values, draws)[0] / 255


# The pixels.


def test_pixels_have_the_committed_checksum(images):
  assert images.shape == (1810, 20, 28, 28, 3)
  assert images.dtype == np.uint8
  digest = hashlib.sha256(images.tobytes()).hexdigest()
  assert digest == glyph_attributes.CHECKSUM


def test_a_seed_gives_the_same_pixels_and_another_others(images):
  again = glyph_attributes.generate(glyph_attributes.Recipe(images=2))
  np.testing.assert_array_equal(again, images[:, :2])
  calls = []
  other = glyph_attributes.generate(
    glyph_attributes.Recipe(seed=1, images=2),
    progress=lambda *call: calls.append(call),
  )
  assert (other != again).any((2, 3, 4)).all()
  assert calls == sorted(calls)
  assert calls[-1] == (1810, 1810)


def test_an_impossible_recipe_is_refused():
  recipe = glyph_attributes.Recipe(images=0)
  assert 'images = 0' in errors.refusal(glyph_attributes.generate, recipe)


def correct(support, query, truth):
  """Hits of the nearest image by cosine and by distance, and of class means."""
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  flat = support.reshape(-1, support.shape[-1])
  squares = lambda x: (x**2).sum(1) - 2 * query @ x.T
  shot = support.shape[1]
  nearest = (unit(query) @ unit(flat).T).argmax(1) // shot
  closest, mean = squares(flat).argmin(1), squares(support.mean(1)).argmin(1)
  return [(y == truth).mean() for y in (nearest, closest // shot, mean)]


@pytest.mark.parametrize('split', class_table.SPLITS)
@pytest.mark.parametrize('attribute', glyph_attributes.ATTRIBUTES)
@pytest.mark.slow
def test_raw_pixels_know_little_of_any_attribute(images, attribute, split):
  draw = np.random.default_rng(7)
  truth, hits = np.repeat(np.arange(5), 10), []
  for _ in range(100):
    classes = draw.choice(of(attribute, split), 5, replace=False)
    rows = np.stack([draw.permutation(20)[:15] for _ in classes])
    chosen = images[classes[:, None], rows].reshape(5, 15, -1) / np.float32(255)
    query = chosen[:, 5:].reshape(50, -1)
    hits.append(correct(chosen[:, :5], query, truth))
  assert (100 * np.mean(hits, axis=0) < 20 + 10).all()  # of 5 ways, 5 shots


# The scene, against what its parts should look like.


def test_the_tile_has_its_place_size_and_hue():
  place, half = (3.0, -4.0), (5.0, 8.0)
  # Without contrast of the tile's lightness only its hue differs.
  scene = one_scene(tile=(0.0, 1.0), place=place, size=np.log(half))
  plain = one_scene(tile=(0.0, 0.0), place=place, size=np.log(half))
  change = (scene - plain).sum(0), np.abs(scene - plain).sum(-1)
  inside = np.argwhere(change[1] > 0.1) - 13.5
  np.testing.assert_allclose(inside.mean(0), place, atol=0.5)
  sides = inside.max(0) - inside.min(0) + 1
  np.testing.assert_allclose(sides, 2 * np.array(half), atol=1)
  red, green, blue = (scene - plain)[16, 9]
  np.testing.assert_allclose(red, 0.3 / np.sqrt(2), atol=0.01)
  np.testing.assert_allclose([green, blue], [-red, 0], atol=0.01)


def test_a_letter_fills_its_tile_and_has_the_hue_of_the_ink():
  letter = np.zeros((1, 28, 28))
  letter[0, :14] = 1  # ink in the upper half
  shapes = {'place': (0.0, 0.0), 'size': np.log([8.0, 6.0])}
  scene = one_scene(letter=letter, ink=(0.0, 1.0), **shapes)
  plain = one_scene(letter=letter, ink=(0.0, 0.0), **shapes)
  rows, columns = np.nonzero(np.abs(scene - plain).sum(-1) > 0.1)
  assert abs(rows.min() - (13.5 - 1.15 * 8)) < 1 and abs(rows.max() - 13) < 2
  assert abs((columns.max() - columns.min() + 1) - 2 * 1.15 * 6) < 1.5
  np.testing.assert_allclose(
    (scene - plain)[10, 13], [0.212, -0.212, 0], atol=0.01
  )


@pytest.mark.parametrize('angle, log_length', [(0.4, 1.4), (2.0, 1.8)])
def test_stripes_have_their_direction_and_wavelength(angle, log_length):
  draws = np.full(9, 0.5)
  draws[2] = 1e-9  # no gradient of the lightness
  ground = one_scene(
    draws, texture=(angle, log_length), size=np.log([1e-3, 1e-3])
  )
  spectrum = np.abs(
    np.fft.fft2(ground[..., 0] - ground[..., 0].mean(), (256,) * 2)
  )
  peak = np.unravel_index(spectrum[:, :128].argmax(), (256, 128))
  row, column = ((np.array(peak) + 128) % 256 - 128) / 256
  assert 1 / np.hypot(row, column) == pytest.approx(np.exp(log_length), rel=0.1)
  turn = (np.arctan2(row, column) - angle + np.pi / 2) % np.pi - np.pi / 2
  assert abs(turn) < 0.1


def test_an_image_has_the_value_of_its_class(images):
  # Letters aside, the mean colour of the tile's centre tells the tile's class.
  for index in of('tile')[:5]:
    name = CLASSES['class_names'][index]
    turn, saturation = map(float, name.split()[1:])
    hue = 2 * np.pi * turn
    direction = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    expected = 0.3 * np.sqrt(saturation) * np.array([np.cos(hue), np.sin(hue)])
    chroma = images[index].reshape(20, -1, 3) / 255 @ direction.T
    # Every scene has pixels of this hue, in a tile of 10 pixels or more.
    near = np.linalg.norm(chroma - expected, axis=-1) < 0.02
    assert (near.sum(1) > 20).all()


# The classes.


def test_each_split_has_classes_of_every_attribute():
  assert len(CLASSES['split']) == glyph_attributes.CLASSES == 1810
  for split, letters, others in (
    ('train', 400, 200),
    ('valid', 60, 20),
    ('test', 100, 30),
  ):
    for attribute in glyph_attributes.ATTRIBUTES:
      count = letters if attribute == 'letter' else others
      assert len(of(attribute, split)) == count


def test_splits_share_no_value():
  known = [glyph_attributes.read_values(split) for split in class_table.SPLITS]
  letters = np.concatenate([values.letters for values in known])
  assert len(set(letters)) == 560
  alphabets = glyphs.describe_classes()['alphabets']
  sets = [set(alphabets[values.letters]) for values in known]
  assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]
  for attribute, ranges in glyph_attributes.RANGES.items():
    points = np.concatenate([values.points[attribute] for values in known])
    low, high = np.array(ranges).T
    unit = (points - low) / (high - low)
    assert (unit >= 0).all() and (unit < 1).all()
    distance = np.linalg.norm(unit[:, None] - unit, axis=-1)
    np.fill_diagonal(distance, 1)
    assert distance.min() > 0.02  # random points would be .003 apart
