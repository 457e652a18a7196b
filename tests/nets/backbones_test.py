"""Backbones: ResNet-12 against a plain forward pass and its published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.nets import backbones


def plain(params, x, blocks):
  """ResNet-12 by `lax` operations in their published order."""

  def layer(p, x):
    x = jax.lax.conv_general_dilated(
      x, p['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return (x - mean) / jnp.sqrt(variance + 1e-5) * p['scale'] + p['bias']

  leaky = lambda x: jnp.maximum(x, 0.1 * x)
  for b in range(blocks):
    y = leaky(layer(params[f'block{b}_0'], x))
    y = leaky(layer(params[f'block{b}_1'], y))
    y = layer(params[f'block{b}_2'], y)
    x = leaky(y + layer(params[f'block{b}_shortcut'], x))
    x = jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
    )
  return jnp.mean(x, (1, 2))


def test_resnet12_is_a_plain_forward_pass():
  net = backbones.make('resnet12', (4, 6), 'batch', features='mean')
  x = jax.random.normal(jax.random.key(0), (3, 12, 12, 2))
  params = net.init(jax.random.key(1), x)['params']
  noise = lambda leaf: (
    leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  )
  params = jax.tree.map(noise, params)  # scales of both signs, biases
  got = jax.jit(net.apply)({'params': params}, x)
  np.testing.assert_allclose(got, plain(params, x, 2), atol=2e-4)


def test_resnet12_has_its_published_size():
  net = backbones.make('resnet12', (64, 160, 320, 640), 'batch')
  shapes = jax.eval_shape(
    net.init, jax.random.key(0), jnp.zeros((1, 84, 84, 3))
  )
  sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
  assert sum(sizes) == pytest.approx(12.42e6, rel=0.01)
  features = backbones.make('resnet12', (64, 160, 320, 640), 'batch', 5, 'mean')
  logits = jax.eval_shape(
    features.init_with_output, jax.random.key(0), jnp.zeros((2, 84, 84, 3))
  )[0]
  assert logits.shape == (2, 5)


@pytest.mark.parametrize(
  'arguments, text',
  [
    (('vgg', (4,), 'batch'), 'backbone'),
    (('resnet12', (4,), 'none'), 'needs a norm'),
    (('conv', (4,), 'domain'), 'norm must be one of'),
    (('resnet12', (6,), 'group'), 'groups must divide'),
    (('resnet12', (4,), 'batch', 5, 'max'), 'features'),
  ],
  ids=str,
)
def test_what_does_not_exist_is_refused(arguments, text):
  with pytest.raises(ValueError, match=text):
    backbones.make(*arguments)


@pytest.mark.parametrize(
  'name, settings',
  [
    ('protonet', {}),
    ('maml', {'inner_steps': 1, 'step_norms': True, 'rates': 'leaf'}),
    ('hypermaml', {'hidden': 8}),
  ],
  ids=str,
)
def test_learners_differentiate_through_it(name, settings):
  learner = learners.make(
    name, 2, {'backbone': 'resnet12', 'channels': (4, 4), **settings}
  )
  keys = jax.random.split(jax.random.key(0), 2)
  y = jnp.arange(2)
  episode = core.Episode(
    core.Examples(jax.random.uniform(keys[0], (2, 8, 8, 3)), y),
    core.Examples(jax.random.uniform(keys[1], (2, 8, 8, 3)), y),
  )
  params = jax.jit(learner.init)(keys[0], episode)
  loss = lambda p: learner.loss(p, episode, keys[1], jnp.int32(5))[0]
  grads = jax.jit(jax.grad(loss))(params)
  name = lambda path: jax.tree_util.keystr(path)
  norms = {
    name(path): float(jnp.linalg.norm(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
  }
  assert all(np.isfinite(list(norms.values())))
  assert norms[next(k for k in norms if 'block0_shortcut' in k)] > 0
