"""The encoder and decoder against NumPy, and laws of a set encoder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl.nets import transformer
from tests.testing import errors

TOKENS, WIDTH, HEADS = 7, 10, 2


def _tokens(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(TOKENS, WIDTH)).astype(np.float32)


def _build(**settings):
  """An encoder, and parameters none of which is zero."""
  encoder = transformer.Encoder(layers=2, heads=HEADS, **settings)
  shapes = jax.eval_shape(encoder.init, jax.random.key(0), _tokens())
  rng = np.random.default_rng(1)
  params = {
    name: jax.tree.map_with_path(
      lambda path, leaf: np.float32(
        0.3 * rng.normal(size=leaf.shape) + (path[-1].key == 'scale')
      ),
      layer,
    )
    for name, layer in shapes['params'].items()
  }
  apply = jax.jit(
    lambda params, *args: encoder.apply({'params': params}, *args)
  )
  return apply, params


def _linear(params, x):
  return x @ params['kernel'] + params.get('bias', 0.0)


def layer_norm(params, x):
  mean = x.mean(-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(-1, keepdims=True)
  x = (x - mean) / np.sqrt(variance + 1e-6) * params['scale']
  return x + params.get('bias', 0.0)


def _attention(params, x, kind, mask):
  """One head and one query at a time, float64."""
  projected, v_total = (
    _linear(params['in'], x),
    params['out']['kernel'].shape[0],
  )
  q_total = (projected.shape[1] - v_total) // 2
  query, key = projected[:, :q_total], projected[:, q_total : 2 * q_total]
  value = projected[:, 2 * q_total :]
  q_width, v_width = q_total // HEADS, v_total // HEADS
  mixed = np.zeros_like(value)
  for head in range(HEADS):
    q_cols = slice(head * q_width, (head + 1) * q_width)
    v_cols = slice(head * v_width, (head + 1) * v_width)
    for row in range(len(x)):
      logits = key[:, q_cols] @ query[row, q_cols] / math.sqrt(q_width)
      if kind == 'softmax':
        weights = np.exp(logits - logits.max()) * (1 - mask)
        weights /= weights.sum()
      else:
        weights = (1 - mask) / (1 + np.exp(-logits))
      mixed[row, v_cols] = weights @ value[:, v_cols]
  return _linear(params['out'], mixed)


NONLINEAR = {
  'relu': lambda x: np.maximum(x, 0),
  'gelu': lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
  'lrelu': lambda x: np.where(x > 0, x, 0.1 * x),
}


def numpy_encoder(
  params,
  x,
  mask,
  *,
  norm='post',
  attention='softmax',
  activation='relu',
  inner=1.0,
  skip_last_nonlinearity=False,
  last_bias=True,
  layers=2,
):
  """The encoder in float64; `params` and settings as in `Encoder`."""
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  last = 'norm' if norm == 'pre' else f'norm{layers - 1}{"b" if inner else "a"}'
  assert ('bias' in params[last]) == last_bias
  x = np.asarray(x, np.float64)
  for index in range(layers):

    def feed(x, index=index):
      hidden = _linear(params[f'hidden{index}'], x)
      if not (skip_last_nonlinearity and index == layers - 1):
        hidden = NONLINEAR[activation](hidden)
      return _linear(params[f'out{index}'], hidden)

    attend = lambda x, index=index: _attention(
      params[f'attention{index}'], x, attention, mask
    )
    first, second = params[f'norm{index}a'], params.get(f'norm{index}b')
    if norm == 'post':
      x = layer_norm(first, x + attend(x))
      x = layer_norm(second, x + feed(x)) if inner else x
    else:
      x = x + attend(layer_norm(first, x))
      x = x + feed(layer_norm(second, x)) if inner else x
  return layer_norm(params['norm'], x) if norm == 'pre' else x


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'norm': 'pre', 'activation': 'gelu'},
    {'attention': 'sigmoid', 'activation': 'lrelu'},
    {'skip_last_nonlinearity': True},
    {'inner': 0.0, 'last_bias': False},
  ],
  ids=str,
)
def test_the_encoder_equals_numpy(settings):
  apply, params = _build(key_query=0.5, value=16, **settings)
  mask = np.array([0, 0, 1, 0, 0, 1, 0])
  expected = numpy_encoder(params, _tokens(), mask, **settings)
  np.testing.assert_allclose(
    apply(params, _tokens(), mask), expected, rtol=2e-5, atol=2e-5
  )


@pytest.mark.parametrize('norm', transformer.NORMS)
def test_permuted_tokens_give_permuted_outputs(norm):
  apply, params = _build(norm=norm)
  order = np.random.default_rng(2).permutation(TOKENS)
  np.testing.assert_allclose(
    apply(params, _tokens()[order]),
    np.asarray(apply(params, _tokens()))[order],
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('attention', transformer.ATTENTIONS)
def test_a_masked_token_is_as_good_as_removed(attention):
  apply, params = _build(attention=attention)
  mask = np.array([0, 1, 0, 0, 1, 0, 0])
  tokens = _tokens()
  tokens[1] = 1e3
  np.testing.assert_allclose(
    np.asarray(apply(params, tokens, mask))[mask == 0],
    apply(params, tokens[mask == 0]),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize('attention', transformer.ATTENTIONS)
def test_with_all_tokens_masked_none_is_attended_to(attention):
  apply, params = _build(attention=attention)
  one, other = _tokens(), _tokens()
  other[1:] *= -3.0
  mask = np.ones(TOKENS)
  np.testing.assert_allclose(
    apply(params, one, mask)[0], apply(params, other, mask)[0], rtol=1e-5
  )


def test_widths_are_fractions_rounded_up_to_heads_or_absolute():
  assert transformer.inner_width(1.0, 104, 2) == 104
  assert transformer.inner_width(0.5, 80, 8) == 40
  assert transformer.inner_width(0.5, 104, 8) == 56  # 52 is no multiple
  assert transformer.inner_width(0.5, 433, 8) == 216  # int(216.5)
  assert transformer.inner_width(3, 10, 4) == 32
  assert transformer.inner_width(16, 10, 4) == 16
  assert transformer.inner_width(0.001, 80, 2) == 2  # never none
  assert transformer.inner_width(0, 80, 2) == 0  # without
  message = errors.refusal(transformer.inner_width, 18, 10, 4)
  assert 'not a multiple of heads=4' in message
  _, params = _build(key_query=0.5, value=16, inner=2.0)
  attention = params['attention0']
  assert attention['in']['kernel'].shape == (10, 6 + 6 + 16)
  assert attention['out']['kernel'].shape == (16, 10)
  assert params['hidden0']['kernel'].shape == (10, 20)


@pytest.mark.parametrize('attention', transformer.ATTENTIONS)
def test_every_parameter_has_a_gradient(attention):
  apply, params = _build(attention=attention)
  target = jax.random.normal(jax.random.key(3), (TOKENS, WIDTH))
  grads = jax.grad(lambda params: jnp.sum(target * apply(params, _tokens())))(
    params
  )
  norms = jax.tree.map(lambda leaf: float(jnp.linalg.norm(leaf)), grads)
  assert min(jax.tree.leaves(norms)) > 1e-2, norms


def test_each_projection_starts_within_its_own_glorot_bound():
  encoder = transformer.Encoder(layers=1, heads=HEADS, key_query=0.2, value=90)
  params = jax.jit(encoder.init)(jax.random.key(0), _tokens())['params']
  kernel = np.abs(params['attention0']['in']['kernel'])
  for part, width in ((kernel[:, :2], 2), (kernel[:, 4:], 90)):
    bound = math.sqrt(6 / (WIDTH + width))
    assert 0.8 * bound < part.max() <= bound


def test_dropout_acts_in_training_only():
  apply, params = _build(dropout=0.5)
  plain, _ = _build()
  encoder = transformer.Encoder(layers=2, heads=HEADS, dropout=0.5)
  train = jax.jit(
    lambda key: encoder.apply(
      {'params': params}, _tokens(), train=True, rngs={'dropout': key}
    )
  )
  still = apply(params, _tokens())
  np.testing.assert_array_equal(still, plain(params, _tokens()))
  one, other = train(jax.random.key(0)), train(jax.random.key(1))
  assert np.abs(np.asarray(one - still)).max() > 0.1
  assert np.abs(np.asarray(one - other)).max() > 0.1


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

  parts = np.split(_linear(p['attention0']['in'], x), 3, axis=-1)
  x = layer_norm(p['norm0a'], x + attend(p['attention0'], *parts, np.zeros(4)))
  cross = p['cross0']
  parts = np.split(_linear(cross['source'], z), 2, axis=-1)
  mixed = attend(cross, _linear(cross['query'], x), *parts, np.asarray(mask))
  x = layer_norm(p['norm0c'], x + mixed)
  hidden = np.maximum(_linear(p['hidden0'], x), 0)
  x = layer_norm(p['norm0b'], x + _linear(p['out0'], hidden))
  np.testing.assert_allclose(
    net.apply(variables, tokens, **options), x, rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize(
  'settings, choices',
  [
    ({'norm': 'batch'}, 'post, pre'),
    ({'attention': 'linear'}, 'softmax, sigmoid'),
    ({'activation': 'tanh'}, 'relu, gelu, lrelu'),
  ],
  ids=str,
)
def test_unknown_settings_are_refused_listing_the_choices(settings, choices):
  assert choices in errors.refusal(_build, **settings)
