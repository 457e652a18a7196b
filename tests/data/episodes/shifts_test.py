"""Shift families against scipy, loops and the strengths they show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data.episodes import shifts

NAMES = [shifts.family_name(i) for i in range(15)]  # of gray images
APPLY = jax.jit(shifts.apply, static_argnames='group')
# 40 episodes of one family at once.
MANY = jax.jit(
  lambda keys, images, group: jax.vmap(
    lambda key: shifts.apply(key, images, group)
  )(keys),
  static_argnames='group',
)
KEYS = jax.random.split(jax.random.key(5), 40)


def random_images(n=3, height=28, width=28, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  return rng.random((n, height, width, channels), dtype=np.float32)


def many(name, images):
  shifted, family = MANY(KEYS, images, group=name)
  assert set(np.asarray(family)) == {shifts.family_index(name)}
  return np.asarray(shifted)


def slopes(name):
  """Slopes at the centre of a row ramp and a column ramp, [keys, 2, 2]."""
  rows, columns = np.mgrid[-14:15, -14:15].astype(np.float32)
  shifted = many(name, np.stack([rows, columns])[..., None])[..., 0]
  down = (shifted[:, :, 15, 14] - shifted[:, :, 13, 14]) / 2
  right = (shifted[:, :, 14, 15] - shifted[:, :, 14, 13]) / 2
  return np.stack([down, right], axis=-1)


def assert_range(values, low, high):
  """All within the range, and 40 draws reach near both ends of it."""
  assert low - 1e-3 <= values.min() and values.max() <= high + 1e-3
  assert values.min() < low + 0.2 * (high - low)
  assert values.max() > high - 0.2 * (high - low)


def line(shifted, images):
  """Intercept, slope and residual of `shifted` against `images`."""
  slope, intercept = np.polyfit(images.ravel(), shifted.ravel(), 1)
  return intercept, slope, shifted - intercept - slope * images


def test_groups_are_disjoint_but_for_clean():
  groups = [set(names) - {'clean'} for names in shifts.FAMILIES.values()]
  assert [len(names) for names in groups] == [5, 5, 3, 1]
  assert len(set.union(*groups)) == 14
  assert sorted(NAMES) == sorted(set.union(*groups) | {'clean'})
  assert [shifts.family_index(name) for name in NAMES] == list(range(15))


def test_an_unknown_group_lists_the_choices():
  with pytest.raises(core.BadInput, match=r"'snow'.*heldout.*pixelate"):
    shifts.apply(jax.random.key(0), random_images(), 'snow')


def test_none_and_clean_leave_the_images_alone():
  images = random_images()
  for group in ('none', 'clean'):
    shifted, family = APPLY(KEYS[0], images, group=group)
    np.testing.assert_array_equal(shifted, images)
    assert shifts.family_name(family) == 'clean'


def test_zoom_shrinks_by_1_18_to_1_6():
  found = slopes('zoom')
  np.testing.assert_allclose(found[:, 0, 0], found[:, 1, 1], rtol=1e-4)
  np.testing.assert_allclose(found[:, [0, 1], [1, 0]], 0, atol=1e-4)
  assert_range(found[:, 0, 0], 1.18, 1.6)


def test_stretch_is_reciprocal_and_goes_both_ways():
  logs = np.log(slopes('stretch')[:, [0, 1], [0, 1]])
  np.testing.assert_allclose(logs.sum(axis=1), 0, atol=1e-4)
  assert_range(np.abs(logs[:, 0]), 0.3, 0.6)
  assert 10 < (logs[:, 0] > 0).sum() < 30


def test_rotation_and_shear_draw_size_and_sign():
  found = slopes('rotation')
  angles = np.arctan2(found[:, 0, 1], found[:, 0, 0])
  np.testing.assert_allclose(found[:, 1, 0], -np.sin(angles), atol=1e-4)
  np.testing.assert_allclose(found[:, 1, 1], np.cos(angles), atol=1e-4)
  assert_range(np.abs(angles), 0.35, 0.7)
  assert 10 < (angles > 0).sum() < 30
  found = slopes('shear')
  np.testing.assert_allclose(found[:, 0], np.tile([1, 0], (40, 1)), atol=1e-4)
  np.testing.assert_allclose(found[:, 1, 1], 1, atol=1e-4)
  assert_range(np.abs(found[:, 1, 0]), 0.5, 0.8)
  assert 10 < (found[:, 1, 0] > 0).sum() < 30


def test_contrast_is_one_line_for_all_images():
  images = random_images(3, 6, 6, 3)
  lines = [line(shifted, images) for shifted in many('contrast', images)]
  assert max(np.abs(rest).max() for *_, rest in lines) < 1e-5
  strength = 1 - np.array([slope for _, slope, _ in lines])
  assert_range(strength, 0.3, 0.9)
  assert_range(np.array([start for start, *_ in lines]) / strength, 0, 1)


def test_polarity_is_one_line_through_one():
  images = random_images(3, 6, 6, 3)
  lines = [line(shifted, images) for shifted in many('polarity', images)]
  assert max(np.abs(rest).max() for *_, rest in lines) < 1e-5
  np.testing.assert_allclose([start for start, *_ in lines], 1, atol=1e-5)
  assert_range(-np.array([slope for _, slope, _ in lines]), 0.3, 1.0)


@pytest.mark.parametrize(
  'name,low,high', [('noise', 0.15, 0.5), ('strong_noise', 0.5, 1.0)]
)
def test_noise_is_normal_and_new_for_each_pixel(name, low, high):
  images = random_images(3, 30, 30, 3)
  noise = many(name, images) - images
  strength = noise.std(axis=(1, 2, 3, 4))
  assert_range(strength, low, high)
  noise /= strength[:, None, None, None, None]
  assert abs(noise.mean()) < 0.01
  assert abs((noise**3).mean()) < 0.02
  assert abs((noise**4).mean() - 3) < 0.05
  for axis in range(5):  # episodes, images, rows, columns, channels
    first, second = np.take(noise, 0, axis), np.take(noise, 1, axis)
    assert abs((first * second).mean()) < 0.05
  shifted = noise.std(axis=(2, 3, 4))  # one strength for all images
  assert np.abs(shifted - 1).max() < 0.1


def test_polarity_noise_does_both():
  images = random_images(3, 30, 30, 3)
  shifted = many('polarity_noise', images)
  start, slope, rest = zip(*(line(s, images) for s in shifted))
  assert np.abs(np.array(start) - 1).max() < 0.06
  assert_range(-np.array(slope), 0.25, 1.05)
  assert_range(np.std(rest, axis=(1, 2, 3, 4)), 0.15, 0.6)


def test_stripes_are_one_plane_wave():
  images = random_images(2, 28, 28, 3)
  wave = many('stripes', images) - images
  np.testing.assert_allclose(wave, wave[:, :1, :, :, :1] + 0 * wave, atol=1e-6)
  wave = wave[:, 0, :, :, 0]
  # f(p + q) + f(p - q) = 2 cos(w q) f(p) gives the frequency of each axis.
  square = np.zeros(len(wave))
  for axis in (1, 2):
    length = wave.shape[axis]
    before, here, after = (
      np.take(wave, range(i, length - 2 + i), axis) for i in range(3)
    )
    cos = (here * (before + after)).sum((1, 2)) / (2 * here**2).sum((1, 2))
    rest = before + after - 2 * cos[:, None, None] * here
    assert np.abs(rest).max() < 1e-4
    square += np.arccos(np.clip(cos, -1, 1)) ** 2
  assert_range(np.sqrt(square), 0.5, 1.5)
  assert_range(np.sqrt(2) * wave.std(axis=(1, 2)), 0.27, 0.83)


def test_salt_and_pepper_hits_a_fifth_of_the_pixels():
  images = 0.25 + 0.5 * random_images(3, 30, 30, 3)
  shifted = many('salt_and_pepper', images)
  salt, pepper = shifted == 1, shifted == 0
  assert abs(salt.mean() - 0.1) < 0.01
  assert abs(pepper.mean() - 0.1) < 0.01
  hit = salt | pepper
  np.testing.assert_array_equal(hit, hit[..., :1] & hit)
  np.testing.assert_array_equal(shifted[~hit], np.stack([images] * 40)[~hit])
  assert (hit[:, 0] != hit[:, 1]).mean() > 0.2


def test_occlusion_covers_one_square_of_each_image_with_one_value():
  images = 2 + random_images(3, 24, 16, 2)
  shifted = many('occlusion', images)
  hit = shifted != np.stack([images] * 40)
  np.testing.assert_array_equal(hit.sum(axis=(2, 3, 4)), 9 * 6 * 2)
  corners = set()
  for episode, mask in zip(shifted, hit):
    values = np.unique(episode[mask])
    assert len(values) == 1 and 0 <= values[0] <= 1
    for image in mask[..., 0]:
      rows, columns = np.where(image)
      assert np.ptp(rows) == 8 and np.ptp(columns) == 5  # a full block
      corners.add((rows.min(), columns.min()))
  rows, columns = np.array(sorted(corners)).T
  assert {rows.min(), rows.max()} == {0, 15}
  assert {columns.min(), columns.max()} == {0, 10}


@pytest.mark.parametrize(
  'group,clean,others',
  [
    ('training', 1 / 6, 1 / 6),
    ('heldout', 0, 1 / 3),
    ('training+adaptation', 1 / 11, 1 / 11),
    ('phase2', 1 / 6, 1 / 12),
    ('final', 0, 1 / 3),
    ('all', 1 / 15, 1 / 15),
  ],
)
def test_groups_draw_families_with_their_frequency(group, clean, others):
  keys = jax.random.split(jax.random.key(0), 4000)
  tiny = jnp.zeros((1, 1, 1, 1))
  draw = jax.vmap(lambda key: shifts.apply(key, tiny, group)[1])
  share = np.bincount(jax.jit(draw)(keys), minlength=15) / 4000
  names = set(shifts.families(group))
  expected = [
    0 if n not in names else clean if n == 'clean' else others for n in NAMES
  ]
  np.testing.assert_allclose(share, expected, atol=0.025)


def test_a_family_is_the_same_in_a_group_under_map_and_vmap_and_alone():
  images = random_images(2 * 48, 6, 8, 3).reshape(48, 2, 6, 8, 3)
  keys = jax.random.split(jax.random.key(1), 48)
  one = lambda pair: shifts.apply(*pair, 'phase2')
  mapped, family = jax.jit(lambda *a: jax.lax.map(one, a))(keys, images)
  both, family2 = jax.jit(jax.vmap(lambda *pair: one(pair)))(keys, images)
  np.testing.assert_array_equal(family, family2)
  np.testing.assert_allclose(mapped, both, atol=1e-5)
  names = [shifts.family_name(i) for i in family]
  assert len(set(names)) > 8
  for name in ('polarity_noise', 'stripes', 'stretch'):
    i = names.index(name)
    alone, _ = APPLY(keys[i], images[i], group=name)
    np.testing.assert_allclose(mapped[i], alone, atol=1e-5)


def test_one_compilation_serves_all_keys():
  traces = []

  @jax.jit
  def apply(key, images):
    traces.append(1)
    return shifts.apply(key, images, 'phase2')

  families = {int(apply(key, random_images(1, 4, 4))[1]) for key in KEYS}
  assert len(families) > 5
  assert len(traces) == 1
