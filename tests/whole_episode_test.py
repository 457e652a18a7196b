"""Augmentation of whole episodes: what it is, and what it is held for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from hyperudl import core
from hyperudl.data import whole_episode
from tests import episodes_helper as helpers

NONE = whole_episode.Rates(**helpers.NO_AUGMENT)
IMAGES = np.random.default_rng(0).random((6, 8, 8, 1), dtype=np.float32)
CLASSES = np.array([0, 1, 2, 0, 1, 2])


def transform(key, images=IMAGES, classes=CLASSES, **changes):
  rates = NONE._replace(**changes)
  return np.asarray(
    whole_episode.transform(
      jax.random.key(key), jnp.asarray(images), jnp.asarray(classes), rates
    )
  )


def test_without_probabilities_nothing_happens():
  np.testing.assert_array_equal(transform(0), IMAGES)
  np.testing.assert_array_equal(transform(0, per_label=True), IMAGES)


@pytest.mark.parametrize('name', whole_episode.PROBABILITIES)
def test_an_episode_is_changed_alike_and_as_often_as_said(name):
  same = np.repeat(IMAGES[:1], 6, axis=0)
  changed = [transform(key, same, **{name: 0.5}) for key in range(24)]
  for images in changed:
    np.testing.assert_allclose(images, images[:1].repeat(6, axis=0), atol=1e-6)
    assert images.min() >= 0 and images.max() <= 1
  share = np.mean([np.abs(images - same).max() > 1e-6 for images in changed])
  assert 0.2 < share < 0.8


def test_with_per_label_each_class_has_its_own_change():
  same = np.repeat(IMAGES[:1], 6, axis=0)
  found = transform(1, same, rotate=1.0, per_label=True)
  np.testing.assert_array_equal(found[:3], found[3:])
  assert np.abs(found[0] - found[1]).max() > 0.05
  # Support and queries in separate calls.
  apart = transform(1, same[:2], CLASSES[4:], rotate=1.0, per_label=True)
  np.testing.assert_allclose(apart, found[4:], atol=1e-6)


def test_changes_are_what_their_names_say():
  np.testing.assert_allclose(transform(0, negate=1.0), 1 - IMAGES, atol=1e-6)
  box = ndimage.uniform_filter(IMAGES, (0, 3, 3, 0), mode='nearest')
  np.testing.assert_allclose(transform(0, smooth=1.0), box, atol=1e-6)
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
  harder = transform(0, contrast=1.0)
  rows = np.argsort(IMAGES.ravel())
  assert (np.diff(harder.ravel()[rows]) >= -1e-6).all()
  ends = transform(
    0, np.stack([0 * IMAGES[0], 1 + 0 * IMAGES[0]]), [0, 0], contrast=1.0
  )
  np.testing.assert_allclose(ends[0], 0, atol=1e-6)
  np.testing.assert_allclose(ends[1], 1, atol=1e-6)
  small = transform(1, np.ones((1, 20, 20, 1), np.float32), [0], resize=1.0)
  assert 0.7**2 - 0.1 < small.mean() < 1.0 and small[0, 0, 0, 0] < 1


def test_episodes_are_augmented_in_training_alone():
  settings = {'augment': 'episode', 'episode_augment': (('negate', 1.0),)}
  plain = helpers.draw()
  np.testing.assert_array_equal(helpers.draw(**settings).query.x, plain.query.x)
  other = helpers.draw(train=True, **settings)
  np.testing.assert_allclose(other.query.x, 1 - plain.query.x, atol=1e-6)
  np.testing.assert_allclose(other.support.x, 1 - plain.support.x, atol=1e-6)


def test_a_rate_is_a_probability():
  with pytest.raises(core.BadInput, match=r'episode_augment\.roll=1.5'):
    helpers.draw(episode_augment=(('roll', 1.5),))


def test_a_class_is_a_shape_under_jit():
  run = jax.jit(
    lambda key: whole_episode.transform(
      key, jnp.asarray(IMAGES), CLASSES, NONE._replace(rotate=1.0)
    )
  )
  assert run(jax.random.key(0)).shape == IMAGES.shape
