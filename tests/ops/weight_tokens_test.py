"""Weight slices against loops over indices by hand."""

import jax
import numpy as np
import pytest

from hyperudl.ops import weight_tokens
from tests.testing import errors

SHAPE = (3, 2, 4, 5)  # kh, kw, cin, cout: all different


def _kernel():
  return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def _output_slices_by_loops(kernel):
  kh, kw, cin, cout = kernel.shape
  slices = np.zeros((cout, kh * kw * cin), np.float32)
  for o in range(cout):
    entry = 0
    for a in range(kh):
      for b in range(kw):
        for i in range(cin):
          slices[o, entry] = kernel[a, b, i, o]
          entry += 1
  return slices


def _spatial_slices_by_loops(kernel):
  kh, kw, cin, cout = kernel.shape
  slices = np.zeros((kh * kw, cin * cout), np.float32)
  for a in range(kh):
    for b in range(kw):
      for i in range(cin):
        for o in range(cout):
          slices[a * kw + b, i * cout + o] = kernel[a, b, i, o]
  return slices


LOOPS = {
  'output': _output_slices_by_loops,
  'spatial': _spatial_slices_by_loops,
}


@pytest.mark.parametrize('allocation', weight_tokens.ALLOCATIONS)
def test_slices_are_where_the_loops_put_them(allocation):
  kernel = _kernel()
  expected = LOOPS[allocation](kernel)
  assert weight_tokens.slices_shape(SHAPE, allocation) == expected.shape
  np.testing.assert_array_equal(
    weight_tokens.disassemble({'kernel': kernel}, allocation), expected
  )
  layer = weight_tokens.assemble(expected, SHAPE, allocation)
  np.testing.assert_array_equal(layer.pop('kernel'), kernel)
  assert not layer


@pytest.mark.parametrize('allocation', weight_tokens.ALLOCATIONS)
def test_entries_beyond_the_slice_are_ignored(allocation):
  kernel = _kernel()
  slices = np.asarray(weight_tokens.disassemble({'kernel': kernel}, allocation))
  wide = np.concatenate(
    [slices, np.full((slices.shape[0], 3), np.nan, np.float32)], axis=-1
  )
  layer = weight_tokens.assemble(wide, SHAPE, allocation)
  np.testing.assert_array_equal(layer['kernel'], kernel)


def test_extra_entries_follow_the_kernel_of_their_channel():
  names = ('scale', 'bias')
  layer = {
    'kernel': _kernel(),
    'scale': np.arange(5, dtype=np.float32),
    'bias': np.arange(5, 10, dtype=np.float32),
  }
  slices = np.asarray(weight_tokens.disassemble(layer, 'output', names))
  assert (
    slices.shape == weight_tokens.slices_shape(SHAPE, 'output', 2) == (5, 26)
  )
  np.testing.assert_array_equal(slices[:, 24], layer['scale'])
  np.testing.assert_array_equal(slices[:, 25], layer['bias'])
  assembled = weight_tokens.assemble(slices, SHAPE, 'output', names)
  jax.tree.map(np.testing.assert_array_equal, assembled, layer)


def test_a_linear_layer_has_one_token_per_class_with_the_bias_last():
  slices = np.array([[1, 2, 3, 9, 0], [4, 5, 6, 8, 0]], np.float32)
  head = weight_tokens.assemble(slices, (3, 2), 'output', ('bias',))
  np.testing.assert_array_equal(head['kernel'], [[1, 4], [2, 5], [3, 6]])
  np.testing.assert_array_equal(head['bias'], [9, 8])
  np.testing.assert_array_equal(
    weight_tokens.disassemble(head, 'output', ('bias',)), slices[:, :4]
  )


@pytest.mark.parametrize(
  'call, arguments, message',
  [
    (weight_tokens.slices_shape, (SHAPE, 'input'), 'output, spatial'),
    (weight_tokens.slices_shape, (SHAPE, 'spatial', 1), "allocation='output'"),
    (weight_tokens.slices_shape, ((7, 5), 'spatial'), "use 'output'"),
    (
      weight_tokens.assemble,
      (np.zeros((5, 23)), SHAPE, 'output'),
      '5 tokens of at least 24 entries',
    ),
    (
      weight_tokens.assemble,
      (np.zeros((4, 24)), SHAPE, 'output'),
      '5 tokens of at least 24 entries',
    ),
    (
      weight_tokens.assemble,
      (np.zeros((5, 24)), SHAPE, 'output', ('bias',)),
      '5 tokens of at least 25 entries',
    ),
  ],
)
def test_impossible_layouts_are_refused_with_the_remedy(
  call, arguments, message
):
  assert message in errors.refusal(call, *arguments)
