"""Corruptions of colour images: ranges, what each keeps and what it changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hyperudl.data.episodes import corruptions
from hyperudl.data.episodes import shifts

NAMES = tuple(corruptions.CORRUPTIONS)
APPLY = jax.jit(shifts.apply, static_argnames='group')


@functools.cache
def images(size=32, channels=3, n=4):
  rng = np.random.default_rng(0)
  x = rng.uniform(size=(n, size, size, channels))
  x = ndimage.gaussian_filter(x, (0, 2, 2, 0))
  return ((x - x.min()) / np.ptp(x)).astype(np.float32)


def draw(name, seed=0, **sizes):
  x = images(**sizes)
  return x, np.asarray(APPLY(jax.random.key(seed), x, group=name)[0])


@pytest.mark.parametrize(
  'name, size, channels',
  [*((name, 32, 3) for name in NAMES), ('saturation', 20, 1), ('fog', 20, 1)],
)
def test_results_are_images_unlike_the_input(name, size, channels):
  x, y = draw(name, size=size, channels=channels)
  assert y.shape == x.shape and y.dtype == np.float32
  assert np.isfinite(y).all()
  assert y.min() >= -1e-5 and y.max() <= 1 + 1e-5
  changed = np.abs(y - x).mean()
  if (name, channels) == ('saturation', 1):
    np.testing.assert_allclose(y, x, atol=1e-5)  # gray has no colour
  else:
    assert changed > 0.001
  other = draw(name, 1, size=size, channels=channels)[1]
  if (name, channels) != ('saturation', 1):
    assert np.abs(other - y).max() > 1e-3


def test_groups_of_colour_are_disjoint_but_for_clean():
  groups = [set(g) - {'clean'} for g in shifts.COLOR_FAMILIES.values()]
  assert sum(map(len, groups)) == len(set.union(*groups)) == 14
  assert set(shifts.families('color_phase2')) == groups[0] | groups[1] | {
    'clean'
  }


@pytest.mark.parametrize('name', ['defocus', 'motion_blur', 'zoom_blur'])
def test_blurs_keep_flat_images_and_smooth_others(name):
  flat = jnp.full((1, 24, 24, 3), 0.37)
  y = APPLY(jax.random.key(3), flat, group=name)[0]
  # A zoom at the very edge may look out of the image by rounding.
  np.testing.assert_allclose(y[:, 1:-1, 1:-1], 0.37, atol=1e-4)
  x, y = draw(name)
  rough = lambda v: np.abs(np.diff(v, axis=1)).mean()
  assert rough(y) < rough(x)


def test_filters_are_those_of_scipy():
  rng = np.random.default_rng(0)
  kernel = rng.uniform(size=(5, 5))
  x = images(12, 2, 2)
  filtered = corruptions.correlate(
    jnp.asarray(x), jnp.asarray(kernel, jnp.float32)
  )
  weights = kernel[None, :, :, None]
  expected = ndimage.correlate(x.astype(float), weights, mode='nearest')
  np.testing.assert_allclose(filtered, expected, rtol=1e-4)


def test_saturation_keeps_the_gray_where_nothing_is_clipped():
  x = 0.45 + 0.1 * images()
  seen = set()
  for seed in range(12):
    y = np.asarray(APPLY(jax.random.key(seed), x, group='saturation')[0])
    np.testing.assert_allclose(
      corruptions.to_gray(y), corruptions.to_gray(x), atol=1e-4
    )
    gap = lambda v: np.asarray(v - corruptions.to_gray(v)).std()
    factor = gap(y) / gap(x)
    assert factor < 0.41 or 1.99 < factor < 4.01
    seen.add(factor > 1)
  assert seen == {True, False}


def test_shot_noise_grows_with_the_signal():
  x = jnp.stack([jnp.full((64, 64, 1), v) for v in (0.1, 0.4)])
  y = APPLY(jax.random.key(0), x, group='shot_noise')[0]
  dark, bright = np.asarray(y - x).std(axis=(1, 2, 3))
  assert 1.6 < bright / dark < 2.4  # the root of the ratio, 2


def test_impulses_hit_numbers_evenly_from_both_ends():
  x = jnp.full((2, 64, 64, 3), 0.5)
  for seed in range(5):
    y = np.asarray(APPLY(jax.random.key(seed), x, group='impulse_noise')[0])
    salt, pepper = (y == 1).mean(), (y == 0).mean()
    assert 0.04 < salt + pepper < 0.21
    assert abs(salt - pepper) < 0.02
    assert set(np.unique(y)) == {0.0, 0.5, 1.0}


def test_fog_is_smooth_bright_and_its_own_for_each_image():
  x = jnp.zeros((3, 32, 32, 3))
  y = np.asarray(APPLY(jax.random.key(0), x, group='fog')[0])
  assert np.abs(np.diff(y, axis=1)).max() < 0.2
  assert y.min() >= 0.4 * 0.5 - 1e-5
  assert np.abs(y[0] - y[1]).max() > 0.05
  np.testing.assert_array_equal(y[..., 0], y[..., 2])


def test_tint_is_one_colour_for_all():
  x = images()
  y = np.asarray(APPLY(jax.random.key(5), x, group='tint')[0])
  slope, level = np.polyfit(x[..., 0].ravel(), y[..., 0].ravel(), 1)
  assert 0.33 < slope < 0.67
  np.testing.assert_allclose(y[..., 0], slope * x[..., 0] + level, atol=1e-5)
