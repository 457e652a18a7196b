"""Encoders of images and strings."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.nets import towers


def test_normalised_patches_do_not_depend_on_colours():
  rng = np.random.default_rng(0)
  ink = (rng.uniform(size=(5, 36, 1)) < 0.3).astype(np.float32)
  ground, colour = rng.uniform(size=(2, 5, 1, 3))
  patches = ground + ink * (colour - ground)
  even, contrast = towers.normalise_contrast(jnp.asarray(patches, jnp.float32))
  d = patches - patches.mean(axis=1, keepdims=True)
  length = np.linalg.norm(d, axis=-1)
  root = np.sqrt((length**2).mean(axis=1, keepdims=True))
  # Exact but for what keeps flat patches finite, FLAT of the mean square.
  np.testing.assert_allclose(contrast, length / root, rtol=0.02)
  np.testing.assert_allclose(even, d / root[..., None], rtol=0.02)
  fraction = ink.mean(axis=1, keepdims=True)
  shape = np.abs(ink - fraction) / np.sqrt(fraction * (1 - fraction))
  np.testing.assert_allclose(contrast, shape[..., 0], rtol=0.02)


def test_a_flat_patch_has_no_contrast_and_finite_gradients():
  def total(patches):
    even, contrast = towers.normalise_contrast(patches)
    return jnp.sum(jnp.square(even)) + jnp.sum(contrast)

  patches = jnp.full((1, 9, 3), 0.4)
  even, contrast = towers.normalise_contrast(patches)
  np.testing.assert_allclose(even, 0.0, atol=1e-4)
  np.testing.assert_allclose(contrast, 1.0, atol=1e-4)
  assert np.isfinite(jax.grad(total)(patches)).all()


def test_inner_products_of_pairs_are_squares_of_inner_products():
  rng = np.random.default_rng(0)
  tiles, string = rng.normal(size=(4, 5)), rng.normal(size=(1, 5))
  pair = lambda v: np.asarray(towers.pairs(jnp.asarray(v)[None])[0])
  assert pair(tiles).shape == (15,)
  by_hand = sum((tile @ string[0]) ** 2 for tile in tiles)
  np.testing.assert_allclose(pair(tiles) @ pair(string), by_hand, rtol=1e-5)


def test_towers_are_second_order_sums_of_patches_and_of_bags_of_words():
  image, string = towers.ImageTower(10, (6,)), towers.TextTower(9, 10, 6)
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 4, 4, 3)))
  ids = jnp.array([[1, 2, 3, 0], [3, 0, 1, 2], [3, 3, 1, 2]])
  image_params = image.init(jax.random.key(0), x)
  text_params = string.init(jax.random.key(1), ids)
  images = image.apply(image_params, x)
  strings = np.asarray(string.apply(text_params, ids))
  np.testing.assert_allclose(strings[0], strings[1], rtol=1e-5)
  assert not np.allclose(strings[0], strings[2])
  # The same from the vectors of patches and the sums of words.
  p = jax.tree.map(np.asarray, text_params['params'])
  v = p['words'][[1, 2, 3]].sum(axis=0) @ p['Dense_0']['kernel']
  v += p['Dense_0']['bias']
  square = np.outer(v, v)
  rows, columns = np.triu_indices(4)
  expected = square[rows, columns] * np.where(rows == columns, 1, 2**0.5)
  np.testing.assert_allclose(strings[0], expected, rtol=1e-4, atol=1e-5)
  # Patches in other places are other images.
  swapped = x[:, :, jnp.array([2, 3, 0, 1])]
  assert not np.allclose(image.apply(image_params, swapped), images)


def test_a_width_is_the_number_of_pairs_of_its_dimension():
  widths = (1, 3, 136, 528)
  assert [towers.pair_dimension(w) for w in widths] == [1, 2, 16, 32]
