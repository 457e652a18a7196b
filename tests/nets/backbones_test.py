"""Backbones: their layers, and ResNet-12 against a plain forward pass."""

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


def random_parameters(net, x):
  """Parameters with scales of both signs and biases."""
  params = net.init(jax.random.key(1), x)['params']
  noise = lambda leaf: (
    leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
  )
  return jax.tree.map(noise, params)


def test_resnet12_is_a_plain_forward_pass():
  net = backbones.make('resnet12', (4, 6), 'batch', features='mean')
  x = jax.random.normal(jax.random.key(0), (3, 12, 12, 2))
  params = random_parameters(net, x)
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
    (('conv', (4,), 'instance'), 'norm must be one of'),
    (('resnet12', (6,), 'group'), 'groups must divide'),
    (('resnet12', (4,), 'batch', 5, 'max'), 'features'),
  ],
  ids=str,
)
def test_unknown_choices_are_refused(arguments, text):
  with pytest.raises(ValueError, match=text):
    backbones.make(*arguments)


@pytest.mark.parametrize('head', [None, 3])
@pytest.mark.parametrize('name', backbones.BACKBONES)
def test_specs_tell_every_parameter_of_a_backbone(name, head):
  x = jax.random.normal(jax.random.key(0), (3, 8, 8, 2))
  net, specs = backbones.make_with_specs(
    name, (4, 8), 'layer', head, input_shape=x.shape[1:]
  )
  shapes = jax.eval_shape(net.init, jax.random.key(0), x)['params']
  from_specs = {
    spec.name: {
      'kernel': spec.kernel_shape,
      **{other: spec.kernel_shape[-1:] for other in spec.channel_parameters},
    }
    for spec in specs
  }
  assert from_specs == jax.tree.map(lambda leaf: leaf.shape, shapes)
  assert [spec.norm for spec in specs].count('layer') == len(specs) - bool(head)
  assert (specs[-1].name == 'head') == bool(head)
  made = backbones.make(name, (4, 8), 'layer', head)
  assert jax.eval_shape(made.init, jax.random.key(0), x)['params'] == shapes


@pytest.mark.parametrize('name', backbones.BACKBONES)
def test_blocks_one_after_another_are_a_chain(name):
  x = jax.random.normal(jax.random.key(0), (3, 8, 8, 2))
  net, specs = backbones.make_with_specs(
    name, (4, 8), 'batch', input_shape=x.shape[1:]
  )
  if name == 'resnet12':
    assert all(spec.block is None for spec in specs)
    return
  params = random_parameters(net, x)
  z = x
  for spec in specs:
    z = spec.block.apply({'params': params[spec.name]}, z)
  features = net.apply({'params': params}, x)
  np.testing.assert_allclose(z.reshape(3, -1), features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', backbones.BACKBONES)
def test_each_row_is_normalised_by_its_domain(name):
  """Two domains in one batch equal each domain alone under batch norm."""
  x = jax.random.normal(jax.random.key(0), (6, 8, 8, 2))
  domain, batch = (
    backbones.make(name, (4, 8), norm) for norm in ('domain', 'batch')
  )
  params = random_parameters(batch, x)
  member = jax.nn.one_hot(jnp.array([0, 0, 0, 1, 1, 1]), 2)
  together = domain.apply({'params': params}, x, (member, member))
  alone = jnp.concatenate(
    [batch.apply({'params': params}, part) for part in (x[:3], x[3:])]
  )
  np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
  _, statistics = domain.apply(
    {'params': params}, x, (member, member), mutable='statistics'
  )
  statistics = statistics['statistics']
  reused = domain.apply({'params': params}, x, (member, statistics))
  np.testing.assert_allclose(reused, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'name, settings',
  [
    ('protonet', {}),
    ('maml', {'inner_steps': 1, 'step_norms': True, 'rates': 'leaf'}),
    pytest.param('hypermaml', {'hidden': 8}, marks=pytest.mark.slow),
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
