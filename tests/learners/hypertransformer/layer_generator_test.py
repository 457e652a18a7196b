"""The generator of a layer: tokens, masks, previous weights, decoders."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import layer_generator
from hyperudl.nets import transformer

KINDS = pytest.mark.parametrize(
  'kind', [{}, {'decoder': True}, {'generator': 'separate'}], ids=str
)


def generator(tokens=4, size=6, embedding=5, **settings):
  config = hypertransformer.Config(
    way=3, embedding=embedding, layers=2, heads=2, **settings
  )
  return layer_generator.LayerGenerator(config, tokens, size)


@KINDS
def test_masking_a_row_is_as_good_as_removing_it(kind):
  net = generator(**kind)
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)
  y = jnp.array([0, 1, 2, -1, -1, 0])
  masked = jnp.array([0, 1, 0, 1, 0, 0])
  variables = net.init(jax.random.key(0), features, y, train=False)
  apply = lambda *args, **options: net.apply(
    variables, *args, train=False, **options
  )
  rest = np.flatnonzero(masked == 0)
  without = apply(features, y, removed=masked)
  np.testing.assert_allclose(
    without, apply(features[rest], y[rest]), rtol=1e-4, atol=1e-5
  )
  assert np.abs(without - apply(features, y)).max() > 1e-3


@KINDS
def test_previous_slices_are_an_input_and_zero_by_default(kind):
  net = generator(**kind)
  features, y = jnp.ones((3, 7)), jnp.arange(3)
  variables = net.init(jax.random.key(0), features, y, train=False)
  apply = lambda **options: net.apply(
    variables, features, y, train=False, **options
  )
  none = apply()
  np.testing.assert_array_equal(none, apply(previous=jnp.zeros((4, 6))))
  assert np.abs(none - apply(previous=jnp.ones((4, 6)))).max() > 1e-3


def test_the_separate_generator_pads_nothing():
  net = generator(generator='separate')
  features, y = jnp.ones((3, 7)), jnp.arange(3)
  init = lambda: net.init(jax.random.key(0), features, y, train=False)
  params = jax.eval_shape(init)['params']
  assert params['encoder']['out0']['kernel'].shape[1] == 5 + 7
  assert params['decoder']['out0']['kernel'].shape[1] == 5 + 6
  assert params['decoder']['cross0']['source']['kernel'].shape[0] == 5 + 7


@pytest.mark.parametrize('size', [3, 7])
def test_weight_tokens_come_first_and_unlabelled_rows_have_their_own_row(size):
  net = generator(tokens=2, size=size, embedding=2)
  rng = np.random.default_rng(0)
  features = rng.normal(size=(4, 5)).astype(np.float32)
  y = np.array([2, -1, 0, -1])
  sequences = []

  def add_100(call, args, kwargs, context):
    """Stands in for the encoder, and stores the sequence that it gets."""
    if not isinstance(context.module, transformer.Encoder):
      return call(*args, **kwargs)
    sequence, mask = args
    assert mask is None and kwargs == {'train': True}
    sequences.append(np.asarray(sequence))
    return sequence + 100.0

  tables = {
    'labels': rng.normal(size=(4, 2)).astype(np.float32),
    'weights': rng.normal(size=(2, 2)).astype(np.float32),
  }
  with nn.intercept_methods(add_100):
    slices = net.apply({'params': tables}, features, y, train=True)
  width = max(size, 5)
  expected = np.zeros((6, 2 + width), np.float32)
  expected[:2, :2] = tables['weights']
  expected[2:, :2] = tables['labels'][[2, 3, 0, 3]]
  expected[2:, 2:7] = features
  np.testing.assert_array_equal(sequences[0], expected)
  np.testing.assert_array_equal(slices, np.full((2, size), 100.0))
