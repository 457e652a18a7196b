"""What writes the weights of a layer: masks, state of before, decoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.learners.hypertransformer import layer_generator
from hyperudl.nets import transformer
from tests.nets import transformer_test


def close(one, other, **options):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **options), one, other
  )


def generator(separate=False, decoder=False):
  def encoder(name):
    return transformer.Encoder(layers=2, heads=2, name=name)

  return layer_generator.LayerGenerator(
    3, 4, 6, 5, encoder, separate=separate, decoder=decoder
  )


@pytest.mark.parametrize(
  'kind', [{}, {'decoder': True}, {'separate': True}], ids=str
)
def test_hiding_a_row_is_as_if_it_were_not_there(kind):
  net = generator(**kind)
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)
  y = jnp.array([0, 1, 2, -1, -1, 0])
  hidden = jnp.array([0, 1, 0, 1, 0, 0])
  variables = net.init(jax.random.key(0), features, y, train=False)
  apply = lambda *args, **options: net.apply(
    variables, *args, train=False, **options
  )
  kept = np.flatnonzero(hidden == 0)
  masked = apply(features, y, removed=hidden)
  np.testing.assert_allclose(
    masked, apply(features[kept], y[kept]), rtol=1e-4, atol=1e-5
  )
  assert np.abs(masked - apply(features, y)).max() > 1e-3


@pytest.mark.parametrize(
  'kind', [{}, {'decoder': True}, {'separate': True}], ids=str
)
def test_slices_of_before_are_an_input_and_zero_by_default(kind):
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
  net = generator(separate=True)
  features, y = jnp.ones((3, 7)), jnp.arange(3)
  init = lambda: net.init(jax.random.key(0), features, y, train=False)
  params = jax.eval_shape(init)['params']
  assert params['encoder']['out0']['kernel'].shape[1] == 5 + 7
  assert params['decoder']['out0']['kernel'].shape[1] == 5 + 6
  assert params['decoder']['cross0']['source']['kernel'].shape[0] == 5 + 7


def test_a_decoder_is_attention_to_itself_then_to_the_source():
  net = transformer.Encoder(layers=1, heads=2)
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  tokens, source = draw(4, 8), draw(5, 6)
  mask = jnp.array([0, 0, 1, 0, 0])
  options = {'source': source, 'source_mask': mask}
  variables = net.init(jax.random.key(0), tokens, **options)
  variables = jax.tree.map(lambda leaf: draw(*leaf.shape), variables)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
  p, x, z = p['params'], np.float64(tokens), np.float64(source)

  def attend(layer, query, key, value, mask):
    query, key, value = (a.reshape(len(a), 2, -1) for a in (query, key, value))
    logits = np.einsum('qhd,khd->hqk', query, key) / np.sqrt(query.shape[-1])
    logits = logits - 1e8 * mask
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum('hqk,khd->qhd', weights, value).reshape(len(query), -1)
    return mixed @ layer['out']['kernel'] + layer['out']['bias']

  dense = lambda layer, a: a @ layer['kernel'] + layer['bias']
  own = np.split(dense(p['attention0']['in'], x), 3, axis=-1)
  x = transformer_test.layer_norm(
    p['norm0a'], x + attend(p['attention0'], *own, np.zeros(4))
  )
  cross = p['cross0']
  seen = np.split(dense(cross['source'], z), 2, axis=-1)
  looked = attend(cross, dense(cross['query'], x), *seen, np.asarray(mask))
  x = transformer_test.layer_norm(p['norm0c'], x + looked)
  hidden = np.maximum(dense(p['hidden0'], x), 0)
  x = transformer_test.layer_norm(p['norm0b'], x + dense(p['out0'], hidden))
  found = net.apply(variables, tokens, **options)
  np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-3)
