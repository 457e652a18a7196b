"""Packed states come back bit for bit; leaves that differ are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.storage import serialization


def test_packed_leaves_of_any_dtype_come_back():
  params = {
    'a': jnp.arange(3, dtype=jnp.bfloat16),
    'b': [jnp.array([True, False, True]), jnp.zeros((0, 2))],
    'c': np.float64(2.5) * np.ones((2, 1)),
    'd': np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    'e': jnp.uint32(7),
  }
  data, meta = serialization.pack({'params': params}, 3, {})
  serialization.check_meta(meta, 3)
  tree = serialization.fill(
    {'params': params}, serialization.unpack(data, meta)
  )
  for name, want in serialization.name_leaves(params).items():
    got = serialization.name_leaves(tree['params'])[name]
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(got, want)
  data[0] ^= 1
  with pytest.raises(ValueError, match='checksum of params/a is wrong'):
    serialization.unpack(data, meta)
  with pytest.raises(ValueError, match='holds step 3'):
    serialization.check_meta(meta, 4)


def test_leaves_are_named_by_their_path_and_nested_by_it():
  tree = core.TrainState(1, {'block0': {'kernel': 2}, 'layers': [3, 4]}, ())
  named = serialization.name_leaves(tree)
  assert named == {
    'step': 1,
    'params/block0/kernel': 2,
    'params/layers/0': 3,
    'params/layers/1': 4,
  }
  assert serialization.fill(tree, named) == tree
  assert serialization.fill(None, named) == {
    'step': 1,
    'params': {'block0': {'kernel': 2}, 'layers': {'0': 3, '1': 4}},
  }


def test_the_first_leaf_that_differs_is_described():
  leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  expected = {'a': leaf(2), 'b': leaf(3, 1)}
  for stored, problem in (
    ({'a': np.zeros(2, np.float32), 'b': leaf(3, 1)}, None),
    ({'b': leaf(3, 1)}, 'a is missing, expected float32[2]'),
    ({'a': leaf(2), 'b': leaf(3)}, 'b is float32[3], expected float32[3, 1]'),
    ({'a': np.zeros(2)}, 'a is float64[2], expected float32[2]'),
    ({**expected, 'c': leaf()}, 'c is float32[], expected none'),
  ):
    assert serialization.mismatch(stored, expected) == problem


@pytest.mark.parametrize('value', [np.nan, -np.inf])
def test_parameters_that_are_not_finite_are_refused(value):
  state = {'params': {'w': jnp.array([1.0, value])}}
  with pytest.raises(core.NonFinite, match='params/w is not finite at step 7'):
    serialization.pack(state, 7, {})
  data, _ = serialization.pack({'params': {}, 'other': state}, 7, {})
  assert data.nbytes == 8
