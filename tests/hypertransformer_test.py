"""HyperTransformer: sizes of the reference, a second route, and its laws."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl import emit
from hyperudl.learners import hypertransformer
from hyperudl.nets import conv
from tests import transformer_test

WAY = 3
TINY = {
  'channels': 4,
  'depth': 2,
  'features': 4,
  'shared': '2-layer',
  'shared_dim': 4,
  'embedding': 6,
  'layers': 1,
  'key_query': 0.5,
}
SETTINGS = {
  'reference': {},
  'everything written': {
    'depth': 1,
    'generate_bias': True,
    'generate_norm': True,
    'attention': 'sigmoid',
  },
  'spatial': {
    'depth': 1,
    'allocation': 'spatial',
    'net': 'strided',
    'norm': 'none',
    'features': -1,
    'shared': 'none',
    'inner': 0.0,
  },
  'logits only': {
    'depth': 1,
    'trained_layers': 1,
    'logits_scale': 0.5,
    'logits_features': 'mix',
    'dropout': 0.3,
    'shared_dropout': 0.3,
    'feature_dropout': 0.3,
    'label_smoothing': 0.2,
    'l2_reg_weight': 0.03,
  },
}


def _episode(unlabelled=0, size=12, seed=0):
  """3-way 2-shot, 4 queries per class; images tell their class apart."""
  rng = np.random.default_rng(seed)
  patterns = rng.uniform(size=(WAY, size, size, 1))

  def examples(y):
    x = 0.7 * patterns[y] + 0.3 * rng.uniform(size=(len(y), size, size, 1))
    return jnp.asarray(x, jnp.float32)

  y = np.tile(np.arange(WAY), 2)
  query_y = np.tile(np.arange(WAY), 4)
  x, query_x = examples(y), examples(query_y)
  y[len(y) - unlabelled :] = -1
  to_labels = lambda y: jnp.asarray(y, jnp.int32)
  return core.Episode(
    core.Examples(x, to_labels(y)), core.Examples(query_x, to_labels(query_y))
  )


def _random(shapes):
  """Parameters of these shapes, none of which is zero."""
  rng = np.random.default_rng(1)
  return jax.tree.map_with_path(
    lambda path, leaf: np.float32(
      0.3 * rng.normal(size=leaf.shape) + (path[-1].key == 'scale')
    ),
    shapes,
  )


class Run(NamedTuple):
  value: jax.Array
  metrics: dict
  task: dict
  logits: jax.Array
  grads: dict


@functools.cache
def _build(name='reference'):
  """(parameters, jitted (params, episode) -> Run in training)."""
  learner = hypertransformer.make(WAY, **{**TINY, **SETTINGS[name]})
  init = lambda: learner.init(jax.random.key(0), _episode())

  def loss(params, episode):
    key = jax.random.key(1)
    value, metrics = learner.loss(params, episode, key, 0)
    task = learner.adapt(params, episode.support, key, train=True)
    logits = learner.predict(params, task, episode.query.x, None)
    return value, (metrics, task, logits)

  @jax.jit
  def run(params, episode):
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (value, aux), grads = value_and_grad(params, episode)
    return Run(value, *aux, grads)

  return _random(jax.eval_shape(init)), run


def _tasks_close(one, other):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    one,
    other,
  )


def _count(way, size, **settings):
  """Number of parameters, and the width of the encoder of each layer."""
  learner = hypertransformer.make(way, **settings)
  channels = 1 if size == 28 else 3
  x = jnp.zeros((way, size, size, channels))
  support = core.Examples(x, jnp.zeros((way,), jnp.int32))
  params = jax.eval_shape(
    learner.init, jax.random.key(0), core.Episode(support, support)
  )
  layers = [f'block{i}' for i in range(4)] + ['head']
  widths = [
    params['writer'][name]['encoder']['out0']['kernel'].shape[1]
    for name in layers
  ]
  return sum(leaf.size for leaf in jax.tree.leaves(params)), widths


def test_sizes_are_those_of_the_reference_scripts():
  halves = {'key_query': 0.5, 'value': 0.5, 'inner': 0.5, 'heads': 8}
  mini = {'channels': 16, 'features': 16, 'shared_dim': 16, **halves}
  tiered = {'shared_dim': 16, **halves}
  # The reference has one more bias, as wide as the last encoder.
  for sizes, total, widths in (
    (_count(20, 28), 843_304, [80, 104, 104, 104, 72]),
    (_count(20, 28, shared='3-layer-bn'), 834_248, [80, 104, 104, 104, 72]),
    (_count(5, 84, **mini), 2_632_146, [80, 176, 176, 176, 433]),
    (_count(5, 84, **tiered), 883_954, [64, 104, 104, 104, 233]),
  ):
    assert sizes == (total - widths[-1], widths)


@pytest.mark.parametrize('name', SETTINGS)
def test_the_task_has_the_shapes_of_the_network_that_eats_it(name):
  settings = {**TINY, **SETTINGS[name]}
  params, run = _build(name)
  _, metrics, task, logits, _ = run(params, _episode(unlabelled=1))
  strided = settings.get('net') == 'strided'
  net = conv.ConvNet(
    channels=(settings['channels'],) * settings['depth'],
    padding='VALID' if strided else 'SAME',
    pool=not strided,
    norm=settings.get('norm', 'batch'),
    order='conv_act_pool_norm',
    head=WAY,
    features='mean' if strided else 'flatten',
  )
  wanted = jax.eval_shape(net.init, jax.random.key(0), _episode().query.x)
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(task) == shapes(wanted['params'])
  assert logits.shape == (12, WAY)
  assert np.isfinite(logits).all()
  assert np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize('name', SETTINGS)
def test_the_gradient_reaches_every_leaf(name):
  params, run = _build(name)
  grads = run(params, _episode(unlabelled=1)).grads
  norms = jax.tree.map(lambda leaf: float(jnp.linalg.norm(leaf)), grads)
  assert min(jax.tree.leaves(norms)) > 1e-6, norms


def _numpy_block(p, x):
  """Convolution, ReLU, max-pooling, batch norm, one window at a time."""
  n, height, width, _ = x.shape
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  z = np.zeros((n, height, width, p['kernel'].shape[-1]))
  for i in range(height):
    for j in range(width):
      window = padded[:, i : i + 3, j : j + 3]
      z[:, i, j] = np.tensordot(window, p['kernel'], 3)
  z = np.maximum(z, 0)
  z = z[:, : height // 2 * 2, : width // 2 * 2]
  z = z.reshape(n, height // 2, 2, width // 2, 2, -1).max((2, 4))
  z = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5)
  return z * p['scale'] + p['bias']


def _numpy_conv(x, p, index, stride, pad):
  kernel, bias = p[f'kernel{index}'], p[f'bias{index}']
  x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
  size = kernel.shape[0]
  starts = range(0, x.shape[1] - size + 1, stride)
  windows = lambda i, j: x[:, i : i + size, j : j + size]
  rows = [
    [np.tensordot(windows(i, j), kernel, 3) for j in starts] for i in starts
  ]
  return np.asarray(rows).transpose(2, 0, 1, 3) + bias


def _numpy_slices(layer, h, shared, y, slices_shape, last_bias=True):
  tokens, size = slices_shape
  features = np.concatenate([h, shared], axis=-1)
  width = max(size, features.shape[1])
  sequence = np.zeros((tokens + len(y), 6 + width))
  sequence[:tokens, :6] = layer['weights']
  sequence[tokens:, :6] = layer['labels'][y]
  sequence[tokens:, 6 : 6 + features.shape[1]] = features
  mask = np.zeros(len(sequence))
  out = transformer_test.numpy_encoder(
    layer['encoder'], sequence, mask, layers=1, last_bias=last_bias
  )
  return out[:tokens, 6 : 6 + size]


def test_the_written_network_is_what_numpy_writes():
  params, run = _build()
  episode = _episode(unlabelled=2)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  writer, y = p['writer'], np.asarray(episode.support.y)
  relu = lambda x: np.maximum(x, 0)
  z = 2 * np.asarray(episode.support.x, np.float64) - 1
  # SAME with stride 2 pads 12 rows by (0, 1).
  shared = relu(_numpy_conv(z, writer['shared'], 0, 2, (0, 1)))
  shared = relu(_numpy_conv(shared, writer['shared'], 1, 1, (1, 1)))
  shared = shared.mean((1, 2))
  task = {}
  for name, cin in (('block0', 1), ('block1', 4)):
    one = _numpy_conv(z, writer[f'{name}_features'], 0, 2, (0, 0))
    h = one.mean((1, 2))
    if name == 'block0':  # the map of block 1 is too small for the second
      two = _numpy_conv(relu(one), writer[f'{name}_features'], 1, 1, (0, 0))
      h = np.concatenate([h, two.mean((1, 2))], axis=-1)
    slices = _numpy_slices(writer[name], h, shared, y, (4, 9 * cin))
    kernel = np.stack([s.reshape(3, 3, cin) for s in slices], axis=-1)
    task[name] = {**p['net'][name], 'kernel': kernel}
    z = _numpy_block(task[name], z)
  h = _numpy_conv(z, writer['head_features'], 0, 1, (0, 0)).mean((1, 2))
  slices = _numpy_slices(writer['head'], h, shared, y, (WAY, 37), False)
  task['head'] = {'kernel': slices[:, :36].T, 'bias': slices[:, 36]}
  result = run(params, episode)
  ours, our_logits = result.task, result.logits
  for name in ('block0', 'block1'):
    assert not np.any(ours[name].pop('conv_bias'))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
    ours,
    task,
  )
  z = 2 * np.asarray(episode.query.x, np.float64) - 1
  for name in ('block0', 'block1'):
    z = _numpy_block(task[name], z)
  logits = z.reshape(12, -1) @ task['head']['kernel'] + task['head']['bias']
  np.testing.assert_allclose(our_logits, logits, rtol=1e-2, atol=1e-2)


def test_the_order_of_support_rows_does_not_matter():
  params, run = _build()
  episode = _episode(unlabelled=2)
  order = np.array([3, 0, 5, 2, 4, 1])
  support = core.Examples(episode.support.x[order], episode.support.y[order])
  shuffled = episode._replace(support=support)
  _tasks_close(run(params, episode).task, run(params, shuffled).task)


def test_the_labels_of_support_rows_matter():
  params, run = _build()
  episode = _episode()
  support = episode.support._replace(y=(episode.support.y + 1) % WAY)
  one = run(params, episode).logits
  other = run(params, episode._replace(support=support)).logits
  assert np.abs(one - other).max() > 0.01


def test_only_unlabelled_rows_read_the_row_without_label():
  params, run = _build()
  moved = jax.tree.map(np.copy, params)
  for name in ('block0', 'block1', 'head'):
    moved['writer'][name]['labels'][WAY] += 3.0
  labelled, mixed = _episode(), _episode(unlabelled=2)
  _tasks_close(run(params, labelled).task, run(moved, labelled).task)
  one, other = run(params, mixed).logits, run(moved, mixed).logits
  assert np.isfinite(one).all()
  assert np.abs(one - other).max() > 0.01


def test_with_all_convolutions_learned_only_the_logits_are_written():
  params, run = _build('logits only')
  assert set(params['writer']) == {
    *('shared', 'head_features', 'head'),
    'logits_scale',
  }
  one = run(params, _episode(seed=0)).task
  other = run(params, _episode(seed=1)).task
  kernel = params['net']['block0']['kernel']
  np.testing.assert_array_equal(one['block0']['kernel'], kernel)
  np.testing.assert_array_equal(other['block0']['kernel'], kernel)
  assert np.abs(one['head']['kernel'] - other['head']['kernel']).max() > 0.01


@pytest.mark.parametrize('trained, learned', [(1, 'block0'), (-1, 'block1')])
def test_learned_layers_are_the_first_or_the_last(trained, learned):
  learner = hypertransformer.make(WAY, **TINY, trained_layers=trained)
  params = jax.eval_shape(learner.init, jax.random.key(0), _episode())
  assert {n for n, layer in params['net'].items() if 'kernel' in layer} == {
    learned
  }
  assert learned not in params['writer']


def test_bias_and_norm_are_the_entries_behind_the_kernel():
  params, run = _build('everything written')
  assert 'net' not in params
  block = run(params, _episode()).task['block0']
  extra = jnp.stack([block['conv_bias'], block['scale'], block['bias']])
  slices = emit.disassemble(block['kernel'], 'output', extra)
  assert slices.shape == (4, 9 + 3)
  # The encoder ends in a layer norm over its 6 + 12 entries; undoing its
  # scale and bias entry by entry gives back what has unit variance.
  norm = params['writer']['block0']['encoder']['norm0b']
  assert norm['scale'].shape == (18,)
  raw = (slices - norm['bias'][6:]) / norm['scale'][6:]
  assert np.abs(raw).max() < np.sqrt(18)
  assert 0.5 < np.mean(np.square(raw)) < 1.5


def test_the_scale_of_the_logits_is_a_factor():
  params, run = _build('logits only')
  writer = {**params['writer']}
  writer['logits_scale'] = 2 * writer['logits_scale']
  one = run(params, _episode())
  other = run({**params, 'writer': writer}, _episode())
  twice = jax.tree.map(lambda leaf: 2 * leaf, one.task['head'])
  _tasks_close(twice, other.task['head'])
  np.testing.assert_allclose(other.logits, 2 * one.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
  'norm, transductive', [('batch', True), ('layer', False), ('group', False)]
)
def test_only_batch_statistics_let_queries_see_each_other(norm, transductive):
  params, run = _build('logits only')
  episode = _episode()
  task = run(params, episode).task
  settings = {**TINY, 'depth': 1, 'norm': norm}
  learner = hypertransformer.make(WAY, **settings)
  predict = jax.jit(lambda x: learner.predict(params, task, x, None))
  one = predict(episode.query.x)[0]
  other = predict(episode.query.x.at[1:].multiply(0.1))[0]
  assert (np.abs(one - other).max() > 1e-3) == transductive


def test_regularisers_are_what_their_formulas_say():
  params, run = _build('logits only')
  episode = _episode()
  result = run(params, episode)
  targets = 0.8 * np.eye(WAY)[episode.query.y] + 0.2 / WAY
  fit = optax.softmax_cross_entropy(result.logits, targets).mean()
  squares = sum(
    np.sum(np.square(result.task[name]['kernel'])) for name in result.task
  )
  decay = 0.03 * squares
  np.testing.assert_allclose(result.metrics['cross_entropy'], fit, rtol=1e-4)
  np.testing.assert_allclose(result.metrics['regularisation'], decay, 1e-4)
  np.testing.assert_allclose(result.value, fit + decay, rtol=1e-4)


def test_dropout_acts_in_training_only():
  learner = hypertransformer.make(WAY, **{**TINY, **SETTINGS['logits only']})
  params, _ = _build('logits only')
  support = _episode().support

  @jax.jit
  def heads(keys):
    one = lambda key, train: learner.adapt(params, support, key, train=train)
    both = lambda key: (one(key, True)['head'], one(key, False)['head'])
    return jax.lax.map(both, keys)

  trained, still = heads(jax.random.split(jax.random.key(0), 2))
  np.testing.assert_array_equal(*still['kernel'])
  assert np.abs(np.subtract(*trained['kernel'])).max() > 0.01


def test_25_steps_lower_the_loss_on_a_fixed_episode():
  params, run = _build()
  episode = _episode(unlabelled=1)
  values = []
  for _ in range(26):
    result = run(params, episode)
    values.append(result.value)
    params = jax.tree.map(
      lambda leaf, grad: leaf - np.float32(0.02) * np.asarray(grad),
      params,
      result.grads,
    )
  assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'net': 'resnet'}, 'maxpool, strided'),
    ({'shared': '5-layer'}, 'none, 2-layer, 3-layer'),
    ({'shared_padding': 'same'}, 'SAME, VALID'),
    ({'allocation': 'input'}, 'output, spatial'),
    ({'allocation': 'spatial', 'generate_bias': True}, "use allocation='out"),
    ({'norm': 'instance'}, 'batch'),
    ({'activation': 'tanh'}, 'lrelu'),
    ({'attention': 'linear'}, 'softmax, sigmoid'),
    ({'nonlinearity': 'tanh'}, 'relu, gelu, lrelu'),
    ({'logits_features': 'none'}, 'default, passthrough, mix'),
    ({'logits_features': 'mix', 'net': 'strided'}, "needs net='maxpool'"),
    ({'trained_layers': -5}, 'depth=4'),
    ({'generate_norm': True, 'norm': 'none'}, 'needs a norm'),
    ({'features': 0, 'shared': 'none'}, 'without features'),
    ({'dropout': 1.0}, 'dropout=1.0'),
    ({'embedding': 0}, 'embedding=0'),
    ({'inner': 33, 'heads': 2}, 'not a multiple'),
    ({'value': 0.0}, 'value=0.0'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused_in_make(settings, message):
  with pytest.raises(ValueError, match=message):
    hypertransformer.make(WAY, **settings)
