"""The built-in set `glyphs`: its pixels, its characters, its splits."""

import hashlib
import pathlib

import numpy as np
import pytest
from scipy import ndimage

from hyperudl import core
from hyperudl.data.datasets import glyphs


@pytest.fixture(scope='module')
def images():
  """The set as it is released, drawn once for all tests."""
  return glyphs.generate()


def nearest_neighbour(images, *, shot=1, query=8, episodes=300):
  """Accuracy in percent of the cosine between pixels, 5-way."""
  draw = np.random.default_rng(7)
  truth = np.repeat(np.arange(5), query)
  correct = []
  for _ in range(episodes):
    classes = draw.choice(len(images), 5, replace=False)
    rows = np.stack([draw.permutation(images.shape[1]) for _ in classes])
    chosen = images[classes[:, None], rows[:, : shot + query]]
    chosen = chosen.reshape(5, shot + query, -1).astype(np.float32)
    chosen /= np.linalg.norm(chosen, axis=-1, keepdims=True)
    support = chosen[:, :shot].reshape(5 * shot, -1)
    queries = chosen[:, shot:].reshape(5 * query, -1)
    correct.append((queries @ support.T).argmax(1) // shot == truth)
  return 100 * np.mean(correct)


# The pixels.


def test_images_have_omniglots_shape_and_full_range(images):
  assert images.shape == (1623, 20, 28, 28)
  assert images.dtype == np.uint8
  assert images.min() == 0
  assert images.max() == 255


def test_pixels_have_the_committed_checksum(images):
  assert hashlib.sha256(images.tobytes()).hexdigest() == glyphs.CHECKSUM


def test_a_seed_gives_the_same_pixels_and_another_others(images):
  again = glyphs.generate(glyphs.Recipe(drawers=3))
  calls = []
  other = glyphs.generate(
    glyphs.Recipe(seed=1, drawers=3),
    progress=lambda *call: calls.append(call),
  )
  # The first drawers do not depend on how many there are.
  np.testing.assert_array_equal(again, images[:, :3])
  assert (other != again).any((2, 3)).all()
  assert calls == sorted(calls)
  assert len(calls) > 10
  assert calls[-1] == (1623, 1623)


def test_every_image_has_ink_and_most_of_it_inside_the_frame(images):
  full = images > 127
  assert full.any((2, 3)).all()
  ink = full.mean((2, 3))
  assert ink.max() < 0.4  # strokes, not blots
  assert 0.08 < ink.mean() < 0.13
  inside = full[:, :, 1:-1, 1:-1].sum((2, 3)) / full.sum((2, 3))
  assert (inside > 0.95).mean() > 0.97


def test_classes_differ_from_one_another(images):
  mean = images.mean(1).reshape(len(images), -1)
  mean /= np.linalg.norm(mean, axis=1, keepdims=True)
  cosine = mean @ mean.T
  np.fill_diagonal(cosine, 0)
  assert cosine.max() < 0.99
  assert len(np.unique(images[:, 0].reshape(len(images), -1), axis=0)) == 1623


def test_pixels_are_about_as_hard_as_omniglots(images):
  # The recipe's own set gets 46.9, Omniglot 49.9, chance 20.
  assert 44 < nearest_neighbour(images) < 52
  assert 67 < nearest_neighbour(images, shot=5, episodes=100) < 77


@pytest.mark.slow
def test_larger_strengths_make_pixels_harder(images):
  usual = nearest_neighbour(images[:, :9])
  hard = nearest_neighbour(glyphs.generate(glyphs.Recipe(0, 1.5, 1.25, 9)))
  soft = nearest_neighbour(glyphs.generate(glyphs.Recipe(0, 0.5, 0.5, 9)))
  assert 30 < hard < usual - 6
  assert soft > usual + 10


def test_each_strength_moves_strokes_and_without_only_the_pen_differs():
  still = glyphs.generate(glyphs.Recipe(0, 0, 0, 3)).astype(int)
  by_pen = np.take_along_axis(
    still, still.sum((2, 3)).argsort(1)[:, :, None, None], axis=1
  )
  # Without bends and warps a wider pen covers all that a narrower one does.
  assert (np.diff(by_pen, axis=1) >= 0).all()
  for elastic, affine in ((1, 0), (0, 1)):
    recipe = glyphs.Recipe(0, elastic, affine, 3)
    moved = glyphs.generate(recipe).astype(int)
    assert (np.abs(moved - still).mean((2, 3)) > 1).mean() > 0.99


def test_a_drawer_has_one_style_within_an_alphabet(images):
  alphabets = glyphs.describe_classes()['alphabets']
  ink = images.mean((2, 3))
  ink = ink / ink.mean(1, keepdims=True)  # the class's own ink taken out
  latin, math = (ink[alphabets == name] for name in ('LATIN', 'MATH'))
  same = np.corrcoef(latin[::2].mean(0), latin[1::2].mean(0))[0, 1]
  other = np.corrcoef(latin.mean(0), math.mean(0))[0, 1]
  assert same > 0.95
  assert abs(other) < 0.7


def test_ink_is_the_distance_to_the_line_found_by_brute_force():
  skeleton = glyphs.read_skeletons()[0][100]
  recipe = glyphs.Recipe(elastic=0, affine=0)
  style, noise = np.zeros((1, 5)), np.zeros((1, 56))
  image = glyphs.draw_character(skeleton, style, noise, recipe)[0]
  # Forwards: the line's points are shrunk by exp(-.13) about the centre.
  points = (np.argwhere(skeleton) + 0.5) / 64 - 0.5
  points = points * np.exp(-0.13) * 28
  pixels = np.argwhere(np.ones((28, 28))) - 13.5
  distance = np.linalg.norm(pixels[:, None] - points, axis=-1).min(1)
  ink = 255 * np.clip(0.5 + 0.98 - distance, 0, 1).reshape(28, 28)
  assert np.abs(ink - image).max() < 30  # the distance is interpolated
  assert np.abs(ink - image).mean() < 1


def test_warp_is_the_inverse_of_turn_shear_stretch_and_shift():
  draw = np.random.default_rng(0)
  style, noise = draw.normal(size=(1, 5)), draw.normal(size=(1, 6))
  rows, columns, scale = glyphs.warp_grid(style, noise, 1.25)
  r, h, a, s, _ = style[0]
  angle = 1.25 * (0.12 * r + 0.06 * noise[0, 0])
  shear = 1.25 * (0.14 * h + 0.05 * noise[0, 1])
  aspect = np.exp(1.25 * (0.10 * a + 0.06 * noise[0, 2]))
  size = np.exp(1.25 * (0.13 * s + 0.08 * noise[0, 3]) - 0.13)
  turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  stretch = np.diag([aspect**-0.5, aspect**0.5])
  forwards = size * np.array(turn) @ [[1, 0], [shear, 1]] @ stretch
  source = np.stack([rows[0], columns[0]]).reshape(2, -1)
  target = forwards @ source + 1.25 * 0.045 * noise[0, 4:, None]
  axis = (np.arange(28) + 0.5) / 28 - 0.5
  grid = np.stack(np.meshgrid(axis, axis, indexing='ij')).reshape(2, -1)
  np.testing.assert_allclose(target, grid, atol=1e-12)
  np.testing.assert_allclose(scale, size)


def test_normals_are_standard_and_streams_are_unrelated():
  first, second = (glyphs.standard_normals(3, i, (200_000,)) for i in (0, 1))
  for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
    assert abs(np.mean(first**power) - moment) < 0.06
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.01


@pytest.mark.parametrize(
  'name, value',
  [
    ('seed', -1),
    ('seed', 2**64),
    ('seed', 0.5),
    ('drawers', 0),
    ('elastic', -1.0),
    ('affine', float('nan')),
    ('affine', float('inf')),
  ],
)
def test_a_number_out_of_range_is_refused_by_name(name, value):
  with pytest.raises(core.BadInput, match=name):
    glyphs.generate(glyphs.Recipe(**{name: value}))


# The characters and their splits.


def test_skeletons_are_thin_lines_of_distinct_characters():
  skeletons, codes, alphabets = glyphs.read_skeletons()
  assert len(skeletons) == len(set(codes.tolist())) == 1623
  assert (skeletons.sum((1, 2)) >= 18).all()
  # 3x3 inked pixels are wider than a line, save where eight lines meet.
  assert ndimage.minimum_filter(skeletons, (1, 3, 3)).sum() <= 1
  assert len(set(alphabets.tolist())) == 18
  size = pathlib.Path(glyphs.__file__).with_name('glyph_skeletons.npz')
  assert size.stat().st_size < 100_000


def test_splits_share_no_alphabet_and_are_large_enough():
  described = glyphs.describe_classes()
  split, alphabets = described['split'], described['alphabets']
  members = {
    name: set(alphabets[split == name]) for name in ('train', 'valid', 'test')
  }
  assert sum(map(len, members.values())) == len(set(alphabets))
  assert members['valid'] == set(glyphs.SPLITS['valid'])
  assert members['test'] == set(glyphs.SPLITS['test'])
  counts = {name: int((split == name).sum()) for name in members}
  assert counts == {'train': 1251, 'valid': 103, 'test': 269}
  assert len(set(described['class_names'])) == 1623
