"""The invertible shift: identity, inverse, exponential, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from hyperudl.ops import image
from hyperudl.ops import shift_transform


def random_phi(seed, size=0.3):
  rng = np.random.default_rng(seed)
  draw = lambda leaf: jnp.asarray(
    size * rng.normal(size=leaf.shape), leaf.dtype
  )
  phi = jax.tree.map(draw, shift_transform.identity())
  return {**phi, 'negative': jnp.full(1, seed % 2, jnp.float32)}


def smooth_images(side=28, count=3):
  """Blobs near the centre, which interpolation hardly changes."""
  rng = np.random.default_rng(0)
  at = np.stack(np.mgrid[:side, :side], axis=-1) - (side - 1) / 2
  images = []
  for _ in range(count):
    centres = rng.uniform(-4, 4, size=(3, 2))
    blobs = [np.exp(-(((at - c) ** 2).sum(-1)) / 18) for c in centres]
    images.append(np.sum(blobs, axis=0))
  return jnp.asarray(np.stack(images)[..., None], jnp.float32)


@pytest.mark.parametrize('seed', range(4))
def test_the_exponential_is_scipys(seed):
  matrix = np.random.default_rng(seed).normal(size=(2, 2)).astype(np.float32)
  got = shift_transform.exponential(jnp.asarray(matrix))
  np.testing.assert_allclose(got, linalg.expm(matrix), rtol=1e-5, atol=1e-5)
  inverse = shift_transform.exponential(-jnp.asarray(matrix))
  np.testing.assert_allclose(got @ inverse, np.eye(2), atol=1e-5)


def test_zeros_are_the_identity():
  x = jax.random.uniform(jax.random.key(0), (2, 9, 12, 3))
  phi = shift_transform.identity()
  np.testing.assert_allclose(shift_transform.apply(phi, x), x, atol=1e-6)
  np.testing.assert_allclose(shift_transform.invert(phi, x), x, atol=1e-6)


@pytest.mark.parametrize('size', [0.1, 0.3])
def test_the_inverse_undoes_the_shift(size):
  x = smooth_images()
  for seed in range(5):
    phi = random_phi(seed, size)
    phi['translation'] *= 0.3
    there = shift_transform.apply(phi, x)
    back = shift_transform.invert(phi, there)
    middle = np.s_[:, 9:-9, 9:-9]
    np.testing.assert_allclose(back[middle], x[middle], atol=0.05)
    with jax.enable_x64(True):
      # The maps of positions and of values are inverse to 1e-6.
      phi = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), phi)
      matrix = shift_transform.exponential(phi['matrix'])
      inverse = shift_transform.exponential(-phi['matrix'])
      np.testing.assert_allclose(matrix @ inverse, np.eye(2), atol=1e-6)


def test_positions_and_values_of_the_inverse_by_hand():
  """A linear ramp is resampled without an error, but at the borders."""
  rows, columns = np.mgrid[:15, :15] - 7.0
  x = jnp.asarray((2 * rows - columns)[None, ..., None], jnp.float32)
  for seed in range(3):
    phi = random_phi(seed, 0.1)
    matrix = linalg.expm(phi['matrix'])
    source = np.einsum('ij,jhw->ihw', matrix, np.stack([rows, columns]))
    source += 10 * np.asarray(phi['translation'])[:, None, None]
    gain = (1 - 2 * (seed % 2)) * np.exp(phi['gain'][0])
    wanted = gain * (2 * source[0] - source[1]) + phi['bias'][0]
    got = shift_transform.apply(phi, x)[0, ..., 0]
    middle = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(got[middle], wanted[middle], atol=1e-4)
    inverse = np.linalg.inv(matrix)
    source = np.einsum(
      'ij,jhw->ihw',
      inverse,
      np.stack([rows, columns])
      - 10 * np.asarray(phi['translation'])[:, None, None],
    )
    wanted = (2 * source[0] - source[1] - phi['bias'][0]) / gain
    got = shift_transform.invert(phi, x)[0, ..., 0]
    np.testing.assert_allclose(got[middle], wanted[middle], atol=1e-4)


@pytest.mark.parametrize('name', ['shear', 'rotation', 'stretch'])
def test_the_shifts_of_episodes_are_transforms(name):
  """Cubic against bilinear interpolation of the same map."""
  phi = shift_transform.identity()
  x = smooth_images()
  if name == 'shear':
    wanted = image.shear(x, 0.6)
    matrix = [[1.0, 0.0], [0.6, 1.0]]
  elif name == 'rotation':
    wanted = image.rotate(x, 0.5)
    cos, sin = np.cos(0.5), np.sin(0.5)
    matrix = [[cos, sin], [-sin, cos]]
  else:
    wanted = image.scale(x, np.exp(0.4), np.exp(-0.4))
    matrix = np.diag(np.exp([0.4, -0.4]))
  phi['matrix'] = jnp.asarray(linalg.logm(matrix).real, jnp.float32)
  got = shift_transform.apply(phi, x)
  np.testing.assert_allclose(got, wanted, atol=0.06)


def test_there_is_a_gradient_in_every_number_at_the_identity():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)), jnp.float32)
  target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)), jnp.float32)
  for function in (shift_transform.apply, shift_transform.invert):
    loss = lambda phi: jnp.sum(jnp.square(function(phi, x) - target))
    for name, leaf in jax.grad(loss)(shift_transform.identity()).items():
      # Whether dark and bright are exchanged is no number to descend on.
      assert (jnp.abs(leaf) > 1e-4).all() == (name != 'negative'), name


@pytest.mark.parametrize('name', ['apply', 'invert'])
def test_gradients_agree_with_finite_differences(name):
  function = getattr(shift_transform, name)
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    target = jnp.asarray(rng.uniform(size=(2, 9, 9, 1)))
    phi = jax.tree.map(
      lambda leaf: jnp.asarray(0.05 * rng.normal(size=leaf.shape)),
      shift_transform.identity(),
    )
    loss = jax.jit(lambda phi: jnp.sum(jnp.square(function(phi, x) - target)))
    grads = jax.jit(jax.grad(loss))(phi)
    np.testing.assert_array_equal(grads.pop('negative'), 0)
    for part in grads:
      leaf = phi[part]
      for at in np.ndindex(leaf.shape):
        ends = [loss({**phi, part: leaf.at[at].add(h)}) for h in (1e-6, -1e-6)]
        numeric = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(
          grads[part][at], numeric, rtol=1e-5, atol=1e-6
        )
