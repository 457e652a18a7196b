"""Augmentation against numpy, colorsys and jax.image."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data.episodes import augment

KEY = jax.random.key(3)
ROT90 = jax.jit(augment.rot90_classes)


def random_images(n, height, width, channels, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((n, height, width, channels), dtype=np.float32)


def turn_of(turned, image):
  """The number of quarter turns between two images."""
  (turn,) = [k for k in range(4) if (np.rot90(image, k) == turned).all()]
  return turn


def test_rot90_turns_whole_classes():
  images = (255 * random_images(12, 5, 5, 2)).astype(np.uint8)
  classes = np.array([0, 1, 2, 3] * 3)
  seen = []
  for i in range(50):
    turned = np.asarray(ROT90(jax.random.key(i), images, classes))
    assert turned.dtype == np.uint8
    turns = np.array([turn_of(t, x) for t, x in zip(turned, images)])
    turns = turns.reshape(3, 4)
    assert (turns == turns[0]).all()
    seen.append(turns[0])
  seen = np.array(seen)
  # All four turns alike, and classes turn independently of each other.
  assert (np.abs(np.bincount(seen.ravel(), minlength=4) - 50) < 25).all()
  assert 0.1 < (seen[:, 0] == seen[:, 1]).mean() < 0.45


def test_rot90_of_support_and_queries_agree_in_separate_calls():
  images = random_images(4, 3, 3, 1)
  classes = np.array([2, 0, 1, 2])
  together = ROT90(KEY, images, classes)
  apart = [ROT90(KEY, images[i:][:2], classes[i:][:2]) for i in (0, 2)]
  np.testing.assert_array_equal(together, np.concatenate(apart))


def test_rot90_refuses_oblong_images():
  with pytest.raises(core.BadInput, match='5x4'):
    augment.rot90_classes(KEY, np.zeros((1, 5, 4, 1)), np.zeros(1, int))


def test_hue_is_that_of_colorsys():
  images = random_images(1, 6, 6, 3)
  images[0, 0] = [
    [0, 0, 0],
    [1, 1, 1],
    [0.4] * 3,
    [1, 0, 0],
    [0, 1, 1],
    [0.5, 0.5, 0],
  ]
  for turn in (-0.2, 0.05, 0.2, 1.0):
    expected = np.zeros_like(images)
    for row, column in np.ndindex(6, 6):
      hue, saturation, value = colorsys.rgb_to_hsv(*images[0, row, column])
      expected[0, row, column] = colorsys.hsv_to_rgb(
        (hue + turn) % 1, saturation, value
      )
    turned = augment.shift_hue(images, turn)
    np.testing.assert_allclose(turned, expected, atol=2e-6)


def test_flip_mirrors_about_half_of_the_images():
  images = random_images(200, 2, 3, 1)
  flipped = np.asarray(augment.flip(KEY, images))
  same = (flipped == images).all(axis=(1, 2, 3))
  mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
  assert (same ^ mirrored).all()
  assert 70 < mirrored.sum() < 130


def test_crop_is_a_resized_window_within_the_image():
  n, height, width = 60, 20, 30
  rows, columns = np.mgrid[:height, :width].astype(np.float32)
  images = random_images(n, height, width, 3)
  images[..., 0], images[..., 1] = rows, columns
  cropped = np.asarray(jax.jit(augment.crop)(KEY, images))
  # The ramps show where each window lies.
  middle = slice(8, 12)
  row, column = cropped[:, middle, 15, 0], cropped[:, 10, middle, 1]
  side = (row[:, -1] - row[:, 0]) / 3
  np.testing.assert_allclose(
    side, (column[:, -1] - column[:, 0]) / 3, atol=1e-4
  )
  assert 0.6 - 1e-4 < side.min() < 0.65 and 0.95 < side.max() < 1 + 1e-4
  first = np.stack([v[:, 0] + 0.5 - side * 8.5 for v in (row, column)], axis=1)
  last = first + side[:, None] * np.array([height, width])
  assert (first > -1e-3).all() and (last < [height + 1e-3, width + 1e-3]).all()
  assert np.abs(np.corrcoef(first.T)[0, 1]) < 0.7

  def reference(image, side, first):
    return jax.image.scale_and_translate(
      image,
      image.shape,
      (0, 1),
      jnp.full(2, 1 / side),
      -first / side,
      'linear',
      antialias=False,
    )

  expected = jax.jit(jax.vmap(reference))(images, side, first)
  np.testing.assert_allclose(cropped, expected, atol=2e-3)


@pytest.mark.parametrize('channels', [1, 3])
def test_colours_change_once_per_call_and_stay_in_range(channels):
  flat = np.full((3, 4, 4, channels), 0.5, np.float32)
  change = jax.jit(augment.augment_images)
  keys = jax.random.split(KEY, 60)
  levels = np.stack([change(key, flat) for key in keys])
  np.testing.assert_allclose(
    levels, levels[:, :1, :1, :1] + 0 * levels, atol=1e-6
  )
  levels = levels[:, 0, 0, 0, 0]
  assert 0.2 <= levels.min() < 0.26 and 0.74 < levels.max() <= 0.8
  images = random_images(4, 8, 8, channels)
  changed = np.stack([change(key, images) for key in keys])
  assert changed.shape == (60, 4, 8, 8, channels)
  assert changed.min() >= 0 and changed.max() <= 1


def test_contrast_is_drawn_between_08_and_12():
  # Half black, half white around .5: brightness clips, the crop mixes, but
  # grey stripes of small amplitude keep their ratio.
  stripes = np.zeros((1, 4, 40, 1), np.float32)
  stripes[:, :, 20:] = 0.1
  stripes += 0.45
  change = jax.jit(augment.augment_images)
  keys = jax.random.split(KEY, 80)
  ratio = [float(np.ptp(change(key, stripes))) / 0.1 for key in keys]
  assert 0.8 - 1e-3 <= min(ratio) < 0.84 and 1.16 < max(ratio) <= 1.2 + 1e-3


def test_colours_may_change_per_image():
  # One image with a step from red to grey, thirty times; crops keep colours.
  one = np.full((1, 8, 8, 3), 0.5, np.float32)
  one[:, :4] = (0.6, 0.5, 0.45)
  change = lambda each: np.asarray(
    jax.jit(lambda key: augment.augment_images(key, one.repeat(30, 0), each))(
      KEY
    )
  )
  ends = lambda images: (images[:, 0, 4], images[:, -1, 4])
  hue = lambda top: np.argsort(top, axis=-1)[:, -1]
  for each in (False, True):
    top, bottom = ends(change(each))
    # Brightness: the level of grey. Contrast: the distance to it. Hue: the
    # largest channel, and how far the middle one is.
    level, distance = bottom[:, 0], np.abs(top - bottom).max(axis=-1)
    middle = np.median(top, axis=-1) - top.min(axis=-1)
    ranges = [np.ptp(v) for v in (level, distance, middle)]
    assert (min(ranges) > 0.01) if each else (max(ranges) < 1e-4), ranges
    assert (len(set(hue(top))) > 1) == each
