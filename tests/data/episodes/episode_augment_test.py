"""Augmentation of whole episodes against numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data.episodes import augment
from hyperudl.data.episodes import episode_augment
from tests.testing import episodes as helpers

IMAGES = np.random.default_rng(0).random((6, 8, 8, 1), dtype=np.float32)
CLASSES = np.array([0, 1, 2, 0, 1, 2])


def transform(key, images=IMAGES, classes=CLASSES, image_key=9, **changes):
  config = config_lib.EpisodeAugmentConfig(**changes)
  return np.asarray(
    episode_augment.augment(
      jax.random.key(key),
      jax.random.key(image_key),
      *(jnp.asarray(images), jnp.asarray(classes), config),
    )
  )


def stretch(images):
  """Each image and channel from its darkest to its lightest pixel."""
  low = images.min(axis=(1, 2), keepdims=True)
  return (images - low) / (images.max(axis=(1, 2), keepdims=True) - low)


def test_without_probabilities_nothing_happens():
  np.testing.assert_array_equal(transform(0), IMAGES)
  np.testing.assert_array_equal(transform(0, per_label=True), IMAGES)


ALIKE = [name for name in episode_augment.PROBABILITIES if name != 'noise']


@pytest.mark.parametrize('name', ALIKE)
def test_all_images_change_alike_with_the_given_probability(name):
  same = np.repeat(IMAGES[:1], 6, axis=0)
  changed = [transform(key, same, **{name: 0.5}) for key in range(24)]
  for images in changed:
    np.testing.assert_allclose(images, images[:1].repeat(6, axis=0), atol=1e-6)
    assert images.min() >= 0 and images.max() <= 1
  rate = np.mean([np.abs(images - same).max() > 1e-6 for images in changed])
  assert 0.2 < rate < 0.8


@pytest.mark.slow
def test_with_per_label_each_class_changes_alike():
  same = np.repeat(IMAGES[:1], 6, axis=0)
  images = transform(1, same, rotate=1.0, per_label=True)
  np.testing.assert_array_equal(images[:3], images[3:])
  assert np.abs(images[0] - images[1]).max() > 0.05
  # Support and queries in separate calls.
  apart = transform(1, same[:2], CLASSES[4:], rotate=1.0, per_label=True)
  np.testing.assert_allclose(apart, images[4:], atol=1e-6)


def test_transforms_are_those_of_numpy_and_scipy():
  np.testing.assert_allclose(transform(0, negate=1.0), 1 - IMAGES, atol=1e-6)
  box = ndimage.uniform_filter(IMAGES, (0, 3, 3, 0), mode='constant')
  np.testing.assert_allclose(transform(0, smooth=1.0), stretch(box), atol=1e-5)
  rolled = transform(3, roll=1.0)
  places = [
    (i, j)
    for i in range(-2, 3)
    for j in range(-2, 3)
    if (np.roll(IMAGES, (i, j), (1, 2)) == rolled).all()
  ]
  assert len(places) == 1
  turned = transform(5, rot90=True)
  assert any((np.rot90(IMAGES, k, (1, 2)) == turned).all() for k in range(4))
  small = transform(1, np.ones((1, 20, 20, 1), np.float32), [0], resize=1.0)
  assert 0.7**2 - 0.1 < small.mean() < 1.0 and small[0, 0, 0, 0] < 1


def test_contrast_bends_pixels_about_the_mean_of_their_image():
  pixels = 2 * IMAGES - 1
  mean = pixels.mean(axis=(1, 2), keepdims=True)
  strengths = []
  for key in range(8):
    images = transform(key, contrast=1.0)
    gaps = {
      a: np.abs(images - stretch(mean + np.tanh(a * (pixels - mean)) / a)).max()
      for a in np.linspace(0.5, 2.5, 801)
    }
    strengths.append(min(gaps, key=gaps.get))
    assert gaps[strengths[-1]] < 1e-3
  assert min(strengths) < 1.2 and max(strengths) > 1.8
  assert (transform(0, 0 * IMAGES, contrast=1.0) == 0).all()  # and no NaN


def test_noise_has_one_strength_in_an_episode_and_differs_between_images():
  gray = np.full((40, 28, 28, 1), 0.5, np.float32)
  y = np.zeros(40, np.int32)
  strengths = []
  for key in range(12):
    noise = transform(key, gray, y, noise=1.0) - 0.5
    # What is cut at 0 and 1 is not in the tails of one standard deviation.
    spread = np.quantile(noise, 0.8413, axis=(1, 2, 3))
    assert spread.std() < 0.1 * spread.mean()
    strengths.append(spread.mean())
    assert abs(np.corrcoef(noise.reshape(40, -1)) - np.eye(40)).max() < 0.2
    # Queries get the same strength and other noise.
    query = transform(key, gray, y, image_key=8, noise=1.0) - 0.5
    spread = np.quantile(query, 0.8413)
    assert spread == pytest.approx(strengths[-1], rel=0.02)
    assert abs(np.corrcoef(noise.ravel(), query.ravel())[0, 1]) < 0.03
  assert 0.09 < min(strengths) < 0.25 and 0.35 < max(strengths) < 0.51


@pytest.mark.slow
def test_noise_comes_with_its_probability_and_with_per_label_by_class():
  rate = np.mean([(transform(k, noise=0.5) != IMAGES).any() for k in range(40)])
  assert 0.25 < rate < 0.75
  gray = np.full((60, 8, 8, 1), 0.5, np.float32)
  classes = np.repeat([0, 1, 2], 20)
  images = transform(1, gray, classes, noise=1.0, per_label=True)
  spread = np.abs(images - 0.5).mean(axis=(1, 2, 3)).reshape(3, 20)
  assert len(np.unique(images[:, 0, 0])) > 40
  # Sampling error within a class, the strength between them.
  assert spread.std(axis=1).max() < 0.15 * spread.mean()
  assert np.ptp(spread.mean(axis=1)) > 0.02


def test_rolling_is_cut_to_whole_pixels():
  # Up to .3 of 8 pixels is 2.4: less than one pixel, 42% of the draws, is none
  # (rounded, it would be 21%).
  run = jax.jit(
    lambda key: episode_augment.augment(
      *(key, key),
      jnp.asarray(IMAGES[:1]),
      CLASSES[:1],
      config_lib.EpisodeAugmentConfig(roll=1.0),
    )
  )
  places = []
  for key in jax.random.split(jax.random.key(0), 200):
    rolled = np.asarray(run(key))
    places += [
      (i, j)
      for i in range(-2, 3)
      for j in range(-2, 3)
      if (np.roll(IMAGES[:1], (i, j), (1, 2)) == rolled).all()
    ]
  places = np.array(places)
  assert places.shape == (200, 2) and set(places.ravel()) == {-2, -1, 0, 1, 2}
  unmoved = (places == 0).mean(axis=0)
  assert (np.abs(unmoved - 0.42) < 0.11).all()


@pytest.mark.slow
def test_episodes_are_augmented_before_single_images():
  rates = (('negate', 1.0),)
  images = helpers.draw(train=True, augment='images')
  idle = helpers.draw(train=True, augment='episode+images')
  np.testing.assert_allclose(idle.query.x, images.query.x, atol=1e-6)
  negated = helpers.draw(
    train=True, augment='episode+images', episode_augment=rates
  )
  config = config_lib.DataConfig(
    augment='episode+images',
    episode_augment=config_lib.EpisodeAugmentConfig(negate=1.0),
  )
  keys = jax.random.split(jax.random.key(0))
  pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
  augmented = augment.apply(config, *keys, pixels, np.arange(5))
  negative = 1 - pixels.astype(np.float32) / 255
  expected = augment.augment_images(keys[1], jnp.asarray(negative))
  np.testing.assert_allclose(augmented, expected, atol=1e-6)
  assert np.abs(negated.query.x - images.query.x).max() > 0.05


def test_evaluations_are_augmented_on_request():
  settings = {'augment': 'episode', 'episode_augment': (('negate', 1.0),)}
  plain = helpers.draw()
  images = helpers.draw(augment_tests=True, **settings)
  np.testing.assert_allclose(images.query.x, 1 - plain.query.x, atol=1e-6)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'augment': 'rot90', 'episode_augment': (('roll', 0.5),)}, 'roll does'),
    ({'augment': 'images', 'episode_augment': (('rot90', True),)}, 'rot90 doe'),
    ({'augment': 'rot90', 'augment_individually': True}, "choose 'images'"),
  ],
)
def test_settings_without_effect_are_refused_in_training(settings, message):
  with pytest.raises(core.BadInput, match=message):
    helpers.draw(train=True, **settings)
  # An evaluation may choose less than the training had.
  helpers.draw(augment_tests=True, **settings)
  with pytest.raises(core.BadInput, match='augment_tests does nothing'):
    helpers.draw(augment_tests=True, augment='none')


def test_episodes_are_augmented_in_training_alone():
  settings = {'augment': 'episode', 'episode_augment': (('negate', 1.0),)}
  plain = helpers.draw()
  np.testing.assert_array_equal(helpers.draw(**settings).query.x, plain.query.x)
  other = helpers.draw(train=True, **settings)
  np.testing.assert_allclose(other.query.x, 1 - plain.query.x, atol=1e-6)
  np.testing.assert_allclose(other.support.x, 1 - plain.support.x, atol=1e-6)


def test_a_probability_above_one_is_refused():
  with pytest.raises(
    core.BadInput, match=r'episode_augment\.roll = 1\.5 is above'
  ):
    helpers.draw(episode_augment=(('roll', 1.5),))


def test_whole_episodes_are_augmented_under_jit():
  run = jax.jit(
    lambda key: episode_augment.augment(
      *(key, key),
      jnp.asarray(IMAGES),
      CLASSES,
      config_lib.EpisodeAugmentConfig(rotate=1.0),
    )
  )
  assert run(jax.random.key(0)).shape == IMAGES.shape
