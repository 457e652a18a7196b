"""HyperTransformer: laws of the generated network and of the loss.

Tests `weight_generator`, `target_network` and the checks of `config`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.nets import backbones
from hyperudl.nets import conv
from hyperudl.ops import weight_tokens
from tests.testing import errors
from tests.testing import hypertransformer as helper
from tests.testing import laws

LAWS = {
  'hypertransformer': laws.Laws(
    slow='compiling and training it takes too long for every run',
    learning_rate=0.005,
    steps=300,
    reason='it is trained with smaller and more steps than others',
  )
}


def _tasks_close(one, other):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    one,
    other,
  )


@pytest.mark.parametrize('name', helper.SETTINGS)
def test_the_task_has_the_shapes_of_the_network_that_takes_it(name):
  settings = {**helper.TINY, **helper.SETTINGS[name]}
  params, run = helper.build(name)
  _, metrics, task, logits, _ = run(params, helper.episode_of(unlabelled=1))
  strided = settings.get('net') == 'strided'
  prototypes = settings.get('head') == 'prototypes'
  if prototypes:
    assert task['prototypes'].shape[0] == helper.WAY
    task = task['cnn']
  net = conv.ConvNet(
    channels=(settings['channels'],) * settings['depth'],
    padding='VALID' if strided else 'SAME',
    pool=not strided,
    norm=settings.get('norm', 'batch'),
    order='conv_act_pool_norm',
    head=None if prototypes else helper.WAY,
    features='mean' if strided else 'flatten',
  )
  x = helper.episode_of().query.x
  wanted = jax.eval_shape(net.init, jax.random.key(0), x)
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(task) == shapes(wanted['params'])
  assert logits.shape == (12, helper.WAY)
  assert np.isfinite(logits).all()
  assert np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize('name', helper.SETTINGS)
def test_the_gradient_reaches_every_leaf(name):
  params, run = helper.build(name)
  grads = run(params, helper.episode_of(unlabelled=1)).grads
  norms = jax.tree.map(lambda leaf: float(jnp.linalg.norm(leaf)), grads)
  assert min(jax.tree.leaves(norms)) > 1e-6, norms


def test_the_order_of_support_rows_does_not_matter():
  params, run = helper.build()
  episode = helper.episode_of(unlabelled=2)
  order = np.array([3, 0, 5, 2, 4, 1])
  support = core.Examples(episode.support.x[order], episode.support.y[order])
  shuffled = episode._replace(support=support)
  _tasks_close(run(params, episode).task, run(params, shuffled).task)


def test_the_labels_of_support_rows_matter():
  params, run = helper.build()
  episode = helper.episode_of()
  support = episode.support._replace(y=(episode.support.y + 1) % helper.WAY)
  one = run(params, episode).logits
  other = run(params, episode._replace(support=support)).logits
  assert np.abs(one - other).max() > 0.01


def test_only_unlabelled_rows_read_the_row_without_label():
  params, run = helper.build()
  moved = jax.tree.map(np.copy, params)
  for name in ('block0', 'block1', 'head'):
    moved['writer'][name]['labels'][helper.WAY] += 3.0
  labelled, mixed = helper.episode_of(), helper.episode_of(unlabelled=2)
  _tasks_close(run(params, labelled).task, run(moved, labelled).task)
  one, other = run(params, mixed).logits, run(moved, mixed).logits
  assert np.isfinite(one).all()
  assert np.abs(one - other).max() > 0.01


def test_with_all_convolutions_learned_only_the_logits_are_generated():
  params, run = helper.build('logits only')
  assert set(params['writer']) == {'head_features', 'head', 'logits_scale'}
  one = run(params, helper.episode_of(seed=0)).task
  other = run(params, helper.episode_of(seed=1)).task
  kernel = params['net']['block0']['kernel']
  np.testing.assert_array_equal(one['block0']['kernel'], kernel)
  np.testing.assert_array_equal(other['block0']['kernel'], kernel)
  assert np.abs(one['head']['kernel'] - other['head']['kernel']).max() > 0.01


@pytest.mark.parametrize('trained, learned', [(1, 'block0'), (-1, 'block1')])
def test_learned_layers_are_the_first_or_the_last(trained, learned):
  learner = helper.make(trained_layers=trained)
  params = jax.eval_shape(learner.init, jax.random.key(0), helper.episode_of())
  assert {n for n, layer in params['net'].items() if 'kernel' in layer} == {
    learned
  }
  assert learned not in params['writer']


def test_bias_and_norm_are_the_entries_behind_the_kernel():
  params, run = helper.build('everything generated')
  assert 'net' not in params
  block = run(params, helper.episode_of()).task['block0']
  slices = weight_tokens.disassemble(
    block, 'output', ('conv_bias', 'scale', 'bias')
  )
  assert slices.shape == (4, 9 + 3)
  # The encoder ends in a layer norm over its 6 + 12 entries; undoing its
  # scale and bias entry by entry gives back what has unit variance.
  norm = params['writer']['block0']['encoder']['norm0b']
  assert norm['scale'].shape == (18,)
  raw = (slices - norm['bias'][6:]) / norm['scale'][6:]
  assert np.abs(raw).max() < np.sqrt(18)
  assert 0.5 < np.mean(np.square(raw)) < 1.5


@pytest.mark.parametrize('net', ['conv', 'conv_stride2'])
def test_a_backbone_that_is_a_chain_can_be_generated(net):
  learner, episode = helper.make(net=net), helper.episode_of()
  params = helper.random_params(
    jax.eval_shape(learner.init, jax.random.key(0), episode)
  )
  adapt = lambda params, support: learner.adapt(
    params, support, jax.random.key(0), train=False
  )
  task = jax.jit(adapt)(params, episode.support)
  wanted = jax.eval_shape(
    backbones.make(net, (4, 4), 'batch', helper.WAY).init,
    jax.random.key(0),
    episode.query.x,
  )['params']
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(task) == shapes(wanted)
  other = jax.jit(adapt)(params, helper.episode_of(seed=1).support)
  gap = task['block1']['kernel'] - other['block1']['kernel']
  assert np.abs(gap).max() > 0.01


def test_the_scale_of_the_logits_is_a_factor():
  params, run = helper.build('logits only')
  writer = {**params['writer']}
  writer['logits_scale'] = 2 * writer['logits_scale']
  one = run(params, helper.episode_of())
  other = run({**params, 'writer': writer}, helper.episode_of())
  twice = jax.tree.map(lambda leaf: 2 * leaf, one.task['head'])
  _tasks_close(twice, other.task['head'])
  np.testing.assert_allclose(other.logits, 2 * one.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
  'norm, transductive', [('batch', True), ('layer', False), ('group', False)]
)
def test_only_batch_statistics_let_queries_see_each_other(norm, transductive):
  params, run = helper.build('logits only')
  episode = helper.episode_of()
  task = run(params, episode).task
  learner = helper.make(depth=1, norm=norm)
  predict = jax.jit(lambda x: learner.predict(params, task, x, None))
  one = predict(episode.query.x)[0]
  other = predict(episode.query.x.at[1:].multiply(0.1))[0]
  assert (np.abs(one - other).max() > 1e-3) == transductive


def test_regularisers_equal_their_formulas():
  params, run = helper.build('logits only')
  episode = helper.episode_of()
  result = run(params, episode)
  targets = 0.8 * np.eye(helper.WAY)[episode.query.y] + 0.2 / helper.WAY
  fit = optax.softmax_cross_entropy(result.logits, targets).mean()
  squares = sum(
    np.sum(np.square(result.task[name]['kernel'])) for name in result.task
  )
  decay = 0.03 * squares
  np.testing.assert_allclose(result.metrics['cross_entropy'], fit, rtol=1e-4)
  np.testing.assert_allclose(result.metrics['regularisation'], decay, 1e-4)
  np.testing.assert_allclose(result.value, fit + decay, rtol=1e-4)


def test_dropout_acts_in_training_only():
  learner = helper.make(**helper.SETTINGS['logits only'])
  params, _ = helper.build('logits only')
  support = helper.episode_of().support

  @jax.jit
  def heads(keys):
    one = lambda key, train: learner.adapt(params, support, key, train=train)
    both = lambda key: (one(key, True)['head'], one(key, False)['head'])
    return jax.lax.map(both, keys)

  trained, still = heads(jax.random.split(jax.random.key(0), 2))
  np.testing.assert_array_equal(*still['kernel'])
  assert np.abs(np.subtract(*trained['kernel'])).max() > 0.01


def test_25_steps_lower_the_loss_on_a_fixed_episode():
  params, run = helper.build()
  episode = helper.episode_of(unlabelled=1)
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
    ({'net': 'vgg'}, 'maxpool, strided'),
    ({'net': 'resnet12'}, 'is no chain of layers'),
    ({'net': 'conv', 'stride': 2}, 'needs kernel_size=3, stride=1'),
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
    ({'trained_layers': -5}, 'trained_layers=-5 needs depth'),
    ({'generate_norm': True, 'norm': 'none'}, 'needs a norm'),
    ({'features': 0, 'shared': 'none'}, 'without features'),
    ({'dropout': 1.0}, 'dropout = 1.0 must be below 1'),
    ({'embedding': 0}, 'embedding = 0 is below its minimum 1'),
    ({'inner': 33, 'heads': 2}, 'not a multiple'),
    ({'value': 0.0}, 'value = 0.0 must be above 0'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused_in_make(settings, message):
  assert message in errors.refusal(
    learners.make, 'hypertransformer', helper.WAY, settings
  )
