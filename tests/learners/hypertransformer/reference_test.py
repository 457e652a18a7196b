"""HyperTransformer: sizes and settings of the published scripts."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from configs import hypertransformer as hypertransformer_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.nets import transformer
from hyperudl.training import optimizers
from tests.testing import hypertransformer as helper


def _support(way, size, shot=1):
  channels = 1 if size == 28 else 3
  x = jnp.zeros((way * shot, size, size, channels))
  return core.Examples(x, jnp.zeros((way * shot,), jnp.int32))


def _count(way, size, **settings):
  """Numbers of parameters, generated weights; widths and tokens by layer."""
  learner = learners.make('hypertransformer', way, settings)
  support = _support(way, size)
  params = jax.eval_shape(
    learner.init, jax.random.key(0), core.Episode(support, support)
  )
  layers = [f'block{i}' for i in range(4)] + ['head']
  generators = [params['writer'][name] for name in layers]
  widths = [g['encoder']['out0']['kernel'].shape[1] for g in generators]
  tokens = [g['weights'].shape[0] for g in generators]
  adapt = lambda params: learner.adapt(
    params, support, jax.random.key(0), train=False
  )
  task = jax.eval_shape(adapt, params)
  weights = sum(layer['kernel'].size for layer in task.values())
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  return total, weights + task['head']['bias'].size, widths, tokens


@pytest.mark.slow
def test_sizes_are_those_of_the_reference_scripts():
  halves = {'key_query': 0.5, 'value': 0.5, 'inner': 0.5, 'heads': 8}
  mini = {'channels': 16, 'features': 16, 'shared_dim': 16, **halves}
  tiered = {'shared_dim': 16, **halves}
  # The reference has one more bias, as wide as the last encoder.
  for sizes, total, weights, widths, tokens in (
    (_count(20, 28), 843_304, 1_980, [80, 104, 104, 104, 72], [8] * 4 + [20]),
    (
      _count(20, 28, shared='3-layer-bn'),
      834_248,
      1_980,
      [80, 104, 104, 104, 72],
      [8] * 4 + [20],
    ),
    (
      _count(5, 84, **mini),
      2_632_146,
      9_349,
      [80, 176, 176, 176, 433],
      [16] * 4 + [5],
    ),
    (
      _count(5, 84, **tiered),
      883_954,
      2_949,
      [64, 104, 104, 104, 233],
      [8] * 4 + [5],
    ),
  ):
    assert sizes == (total - widths[-1], weights, widths, tokens)


@pytest.mark.parametrize(
  'way, size, shot, channels, lengths',
  [
    (20, 28, 1, 8, [28, 40]),
    (20, 28, 5, 8, [108, 120]),
    (5, 84, 1, 16, [21, 10]),
  ],
)
def test_sequences_are_as_long_as_those_of_the_reference(
  way, size, shot, channels, lengths
):
  learner = learners.make('hypertransformer', way, {'channels': channels})
  support, key = _support(way, size, shot), jax.random.key(0)
  params = jax.eval_shape(learner.init, key, core.Episode(support, support))
  lengths_of_sequences = []

  def spy(call, args, kwargs, context):
    is_encoder = isinstance(context.module, transformer.Encoder)
    if is_encoder and context.method_name == '__call__':
      lengths_of_sequences.append(args[0].shape[0])
    return call(*args, **kwargs)

  with nn.intercept_methods(spy):
    jax.eval_shape(
      lambda p: learner.adapt(p, support, key, train=False), params
    )
  assert lengths_of_sequences == [lengths[0]] * 4 + [lengths[1]]


@pytest.mark.parametrize('depth', [3, 4])
def test_the_strided_networks_of_the_reference(depth):
  learner = helper.make(net='strided', stride=2, depth=depth)
  episode = helper.episode_of(size=32)
  params = jax.eval_shape(learner.init, jax.random.key(0), episode)
  adapt = lambda p: learner.adapt(
    p, episode.support, jax.random.key(0), train=False
  )
  task = jax.eval_shape(adapt, params)
  # VALID, stride 2, mean over positions: as many features as channels.
  assert set(task) == {*(f'block{i}' for i in range(depth)), 'head'}
  assert task['head']['kernel'].shape == (4, helper.WAY)
  for i in range(depth):
    assert task[f'block{i}']['kernel'].shape == (3, 3, 4 if i else 1, 4)


@pytest.mark.parametrize(
  'settings, parts',
  [
    ({'logits_features': 'passthrough'}, 4 * 3 * 3),
    ({'logits_features': 'mix'}, 4 * 3 * 3 + 4),
    ({'features': 0}, 0),
    ({}, 4),
  ],
  ids=str,
)
def test_the_width_of_the_last_layers_tokens(settings, parts):
  # Embedding, then layer features and the four shared ones; or the slice of 36
  # weights and a bias, where that is wider.
  learner = helper.make(**settings)
  params = jax.eval_shape(learner.init, jax.random.key(0), helper.episode_of())
  width = params['writer']['head']['encoder']['out0']['kernel'].shape[1]
  assert width == 6 + max(37, parts + 4)
  assert ('head_features' in params['writer']) == (parts not in (0, 36))


@pytest.mark.parametrize(
  'variant, way, shot, queries, channels, rate, heads, size, shared, act',
  [
    ('omniglot', 20, 1, 60, 8, 0.02, 2, 1.0, 32, 'relu'),
    ('omniglot', 20, 5, 100, 8, 0.02, 2, 1.0, 32, 'relu'),
    ('miniimagenet', 5, 1, 100, 16, 0.01, 8, 0.5, 16, 'lrelu'),
    ('miniimagenet', 5, 5, 100, 16, 0.01, 8, 0.5, 16, 'lrelu'),
    ('tieredimagenet', 5, 1, 100, 8, 0.01, 8, 0.5, 16, 'lrelu'),
  ],
)
def test_the_reference_configs_are_the_published_scripts(
  variant, way, shot, queries, channels, rate, heads, size, shared, act
):
  config = hypertransformer_config.get_config(
    f'reference,{variant},shot={shot}'
  )
  config_lib.validate(config)
  assert config.episode.way == way
  learner, optimizer = config.learner, config.optimizer
  assert way * config.episode.query == queries
  assert (learner.channels, learner.features) == (channels, channels)
  assert (learner.net, learner.depth, learner.stride) == ('maxpool', 4, 1)
  assert (learner.embedding, learner.layers, learner.heads) == (32, 3, heads)
  assert {learner.key_query, learner.value, learner.inner} == {size}
  assert (learner.shared, learner.shared_dim) == ('4-layer', shared)
  assert (learner.nonlinearity, learner.activation) == (act, act)
  assert (learner.allocation, learner.generator) == ('output', 'joint')
  unused = (learner.generate_bias, learner.generate_norm, learner.decoder)
  assert not any((*unused, learner.add_learned, learner.warmup_steps))
  assert (optimizer.name, optimizer.momentum, optimizer.clip) == ('sgd', 0, 0)
  schedule = optimizer.schedule, optimizer.decay_rate, optimizer.decay_steps
  assert schedule == ('exponential', 0.95, 100_000)
  assert (optimizer.learning_rate, config.batch) == (rate, 1)
  assert (config.steps, config.checkpoint_steps) == (4_000_000, 50_000)
  assert config.data.support_query == 'reference'
  augment = 'rot90' if variant == 'omniglot' else 'images'
  assert config.data.augment == augment
  assert config.eval.episodes == 1024
  ranges = '0-1149/1150-1199/1200-1622' if variant == 'omniglot' else ''
  assert config.data.classes == ranges
  settings = config_lib.learner_settings(config)
  learner = learners.make('hypertransformer', way, settings)
  _takes_a_step(learner, config, variant)


def _takes_a_step(learner, config, variant):
  """Traces an update at the sizes of the script."""
  shape = (28, 28, 1) if variant == 'omniglot' else (84, 84, 3)
  rows = lambda count: core.Examples(
    jax.ShapeDtypeStruct((count, *shape), jnp.float32),
    jax.ShapeDtypeStruct((count,), jnp.int32),
  )
  rules = config.episode
  episode = core.Episode(
    rows(rules.way * rules.shot), rows(rules.way * rules.query)
  )
  optimizer = optimizers.make_optimizer(config.optimizer, config.steps)
  key = jax.eval_shape(lambda: jax.random.key(0))

  def update(params, state, episode, key):
    loss = lambda params: learner.loss(params, episode, key, 0)[0]
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params = jax.eval_shape(learner.init, key, episode)
  state = jax.eval_shape(optimizer.init, params)
  updated, _ = jax.eval_shape(update, params, state, episode, key)
  sizes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert sizes(updated) == sizes(params)
