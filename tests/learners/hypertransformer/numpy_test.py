"""HyperTransformer by a second route: NumPy in float64, by loops."""

import jax
import numpy as np

from tests.nets import transformer_test
from tests.testing import hypertransformer as helper


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


def test_the_generated_network_equals_numpy():
  params, run = helper.build()
  episode = helper.episode_of(unlabelled=2)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  writer, y = p['writer'], np.asarray(episode.support.y)
  relu = lambda x: np.maximum(x, 0)
  z = 2 * np.asarray(episode.support.x, np.float64) - 1
  # SAME with stride 2 pads 12 rows by (0, 1).
  shared = relu(_numpy_conv(z, p['shared']['features'], 0, 2, (0, 1)))
  shared = relu(_numpy_conv(shared, p['shared']['features'], 1, 1, (1, 1)))
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
  slices = _numpy_slices(writer['head'], h, shared, y, (helper.WAY, 37), False)
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
