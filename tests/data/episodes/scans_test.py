"""The look of scans: strokes, frames, backgrounds, patches and noise."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from hyperudl.core import config as config_lib
from hyperudl.data.episodes import augment
from hyperudl.data.episodes import scans


def characters(n=200):
  """Images of a cross in the middle, f32[n, 28, 28, 1]."""
  x = np.zeros((n, 28, 28, 1), np.float32)
  x[:, 6:22, 13:15] = 1
  x[:, 13:15, 6:22] = 1
  return x


def run(function, images):
  return jax.tree.map(np.asarray, jax.jit(function)(jax.random.key(0), images))


def test_strokes_are_thicker_thinner_or_as_they_were():
  x = np.random.default_rng(0).uniform(size=(300, 28, 28, 1)).astype('f')
  y = run(scans.stroke_width, x)
  kinds = []
  for before, after in zip(x[..., 0], y[..., 0]):
    difference = after - before
    thick = ndimage.maximum_filter(before, 3, mode='nearest') - before
    thin = ndimage.minimum_filter(before, 3, mode='nearest') - before
    weights = [(difference * d).sum() / (d * d).sum() for d in (thick, thin)]
    fits = [
      np.abs(difference - w * d).max() < 1e-5
      for w, d in zip(weights, (thick, thin))
    ]
    kinds.append(2 if np.abs(difference).max() == 0 else fits.index(True))
    if kinds[-1] < 2:
      assert 0 <= weights[kinds[-1]] <= (1.0, 0.6)[kinds[-1]]
  np.testing.assert_allclose(
    np.bincount(kinds) / 300, [0.5, 0.2, 0.3], atol=0.1
  )


def test_frames_are_narrow_and_empty_outside():
  y, inside = run(scans.frame, np.ones((400, 28, 28, 1), np.float32))
  assert (y[inside == 0] == 0).all()
  columns = inside[:, 14, :, 0].mean(axis=1)
  rows = inside[:, :, 14, 0].mean(axis=1)
  assert ((columns == 1) | (rows == 1)).all()
  assert abs((columns < 1).mean() - 0.7) < 0.1
  assert abs((rows < 1).mean() - 0.1) < 0.06
  assert 0.35 < columns.min() < 0.5
  # Content that filled the image fills its frame, but for the last pixel.
  assert y[inside > 0].mean() > 0.9


def test_backgrounds_are_darker_than_ink():
  x = characters()
  y = run(scans.background, x)
  ink = np.array([image[i > 0].mean() for image, i in zip(y, x)])
  rest = np.array([image[i == 0].mean() for image, i in zip(y, x)])
  assert (ink > rest).all()
  assert rest.std() > 0.05 and ink.max() <= 1 and rest.min() >= 0


@pytest.mark.parametrize(
  'function,share', [('blotches', 0.5), ('occlude', 0.25)]
)
def test_some_images_are_covered_in_part(function, share):
  x = np.full((400, 28, 28, 1), 0.5, np.float32)
  y = run(getattr(scans, function), x)
  covered = (np.abs(y - x) > 0.05).mean(axis=(1, 2, 3))
  assert abs((covered > 0).mean() - share) < 0.1
  assert covered.max() < 0.25


def test_grain_has_its_size():
  y = run(scans.grain, np.zeros((400, 28, 28, 1), np.float32))
  sizes = y.std(axis=(1, 2, 3))
  assert sizes.max() < 0.3
  assert abs(np.mean(sizes) - 0.1) < 0.02


def test_every_image_is_another_scan_in_half_of_the_episodes():
  pixels = (255 * characters(40)).astype(np.uint8)
  config = config_lib.DataConfig(augment='scans')
  classes = np.zeros(40, int)

  @jax.jit
  def draw(key):
    class_key, image_key = jax.random.split(key)
    return augment.apply(config, class_key, image_key, pixels, classes)

  scanned = []
  for seed in range(40):
    x = np.asarray(draw(jax.random.key(seed)))
    assert x.min() >= 0 and x.max() <= 1
    scanned.append(not np.isin(x, (0, 1)).all())
    assert (len(np.unique(x, axis=0)) == 40) == scanned[-1]
  assert 10 < sum(scanned) < 30
