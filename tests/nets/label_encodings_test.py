"""Label encodings for any number of classes: their angles and assignment."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.nets import label_encodings
from tests.testing import errors

SLOTS = label_encodings.SLOTS
assign = jax.jit(label_encodings.assign, static_argnums=2)


def support(seed=0, shot=2, way=3):
  x = np.random.default_rng(seed).random((way * shot, 4, 4, 1), np.float32)
  return x, np.repeat(np.arange(way), shot)


def test_equiangular_vectors_have_one_length_and_one_angle():
  vectors = np.asarray(label_encodings.equiangular(32), np.float64)
  expected = np.full((SLOTS, SLOTS), -1 / (SLOTS - 1))
  np.fill_diagonal(expected, 1)
  np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-6)


def test_an_assignment_is_of_the_classes_not_of_names_rows_or_empty_rows():
  x, y = support()
  slots = np.asarray(assign(x, y, 5))
  assert len(set(slots)) == 5 and set(slots) <= set(range(SLOTS))
  order = np.random.default_rng(1).permutation(len(y))
  noise = np.random.default_rng(2).random((3, 4, 4, 1), np.float32)
  more = np.concatenate([x[order], noise])
  labels = np.concatenate([y[order], [-1, -1, -2]])
  np.testing.assert_array_equal(assign(more, labels, 5)[:3], slots[:3])
  names = np.array([4, 0, 3])
  np.testing.assert_array_equal(assign(x, names[y], 5)[names], slots[:3])
  np.testing.assert_array_equal(assign(x, y, 3), slots[:3])


def test_assignments_are_uniform_over_supports():
  draws = [support(seed) for seed in range(1_000)]
  x, y = (np.stack(part) for part in zip(*draws))
  run = jax.jit(jax.vmap(lambda x, y: label_encodings.assign(x, y, 3)))
  slots = np.asarray(run(x, y))
  for label in range(3):
    counts = np.bincount(slots[:, label], minlength=SLOTS)
    chi_square = ((counts - 50) ** 2 / 50).sum()
    assert 5 < chi_square < 46  # 19 degrees of freedom
  assert (np.sort(slots, axis=1)[:, 1:] != np.sort(slots, axis=1)[:, :-1]).all()


def test_images_that_differ_by_their_order_of_pixels_get_other_numbers():
  x, y = support()
  turned = jnp.rot90(x, axes=(1, 2))
  assert (assign(x, y, 3) != assign(turned, y, 3)).any()


def test_too_many_classes_or_too_few_dimensions_are_refused():
  check = label_encodings.check
  check('learned', 50, 4)
  check('random_table', 20, 4)
  check('equiangular', 20, 20)
  refuse = lambda *args: errors.refusal(check, *args, error=ValueError)
  assert "there are 21 classes: choose 'learned'" in refuse(
    'random_table', 21, 64
  )
  assert 'width of 20 or more, not 16' in refuse('equiangular', 5, 16)
