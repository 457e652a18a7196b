"""HyperTransformer: what its less common settings mean."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import hypertransformer as hypertransformer_config
from hyperudl import config as config_lib
from hyperudl import core
from hyperudl import layerwriting
from hyperudl import optimizers
from hyperudl.learners import hypertransformer
from hyperudl.nets import writer
from hyperudl.nets import writer_losses
from hyperudl.nets import writer_settings
from tests import hypertransformer_helper as helper


def close(one, other, **options):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **options), one, other
  )


def test_learned_weights_are_added_to_written_ones():
  params, run = helper.build('separate')
  episode = helper.episode_of(unlabelled=1)
  before = run(params, episode)
  # The last layer: what it adds changes no activation that writes a layer.
  moved = jax.tree.map(np.copy, params)
  moved['net']['head']['kernel'] += 0.5
  after = run(moved, episode)
  gap = after.task['head']['kernel'] - before.task['head']['kernel']
  np.testing.assert_allclose(gap, 0.5, rtol=1e-5)
  own = params['net']['block0']['kernel']
  written = before.task['block0']['kernel'] - own
  ratio = np.sum(written**2) / np.sum(own**2)
  own = params['net']['block1']['kernel']
  written = before.task['block1']['kernel'] - own
  ratio += np.sum(written**2) / np.sum(own**2)
  np.testing.assert_allclose(before.metrics['variation'], ratio, rtol=1e-4)


def test_the_total_loss_is_the_sum_of_its_parts():
  params, run = helper.build('separate')
  episode = helper.episode_of(unlabelled=1)
  result = run(params, episode)
  m = result.metrics
  fit = optax.softmax_cross_entropy_with_integer_labels(
    result.logits, episode.query.y
  ).mean()
  np.testing.assert_allclose(m['cross_entropy'], fit, rtol=1e-4)
  np.testing.assert_allclose(m['warmup'], 0.3, rtol=1e-5)
  # One head, on block 0, at step 7 of 10.
  z = helper.block_of('separate').apply(
    {'params': result.task['block0']}, 2 * episode.query.x - 1
  )
  head = params['heads'][0]
  logits = z.mean(axis=(1, 2)) @ head['kernel'] + head['bias']
  warm = optax.softmax_cross_entropy_with_integer_labels(
    logits, episode.query.y
  ).mean()
  total = 0.7 * fit + 0.3 * warm + 0.01 * m['variation']
  total += 0.1 * m['shared_loss']
  np.testing.assert_allclose(result.value, total, rtol=1e-4)


def test_the_shared_head_knows_training_classes_by_their_number():
  params, run = helper.build('separate')
  episode = helper.episode_of(unlabelled=1)
  uniform = jax.tree.map(np.copy, params)
  uniform['shared']['head']['kernel'][:] = 0
  uniform['shared']['head']['bias'][:] = 0
  np.testing.assert_allclose(
    run(uniform, episode).metrics['shared_loss'], np.log(7), rtol=1e-5
  )
  # A head that always answers class 3 is right for a third of what is known.
  uniform['shared']['head']['bias'][3] = 50
  labels = np.asarray(episode.support.y)
  share = (labels == 2).sum() / (labels >= 0).sum()
  found = run(uniform, episode).metrics['shared_accuracy']
  np.testing.assert_allclose(found, share, rtol=1e-5)
  episode = episode._replace(extra={'class_ids': jnp.array([6, 7, 3])})
  assert np.isnan(run(params, episode).value)


def test_every_cross_entropy_is_of_smoothed_labels():
  settings = {
    **helper.TINY,
    **helper.SETTINGS['separate'],
    **dict.fromkeys(('remove_labelled', 'remove_unlabelled'), 0.0),
  }
  episode, key = helper.episode_of(unlabelled=1), jax.random.key(1)
  found = {}
  for smoothing in (0.0, 0.3):
    learner = hypertransformer.make(
      helper.WAY, **settings, label_smoothing=smoothing
    )
    params = helper._random(
      jax.eval_shape(lambda learner=learner: learner.init(key, episode))
    )
    loss = jax.jit(lambda p, learner=learner: learner.loss(p, episode, key, 3))
    found[smoothing] = loss(params)
  # The head's answers on their own: uniform logits cost log 7 either way, and
  # a sure right answer costs nothing unless labels are smoothed.
  shared = lambda smoothing: float(found[smoothing][1]['shared_loss'])
  features = np.asarray(
    layerwriting.shared_features(
      hypertransformer.settings_of(helper.WAY, **settings),
      params,
      2 * episode.support.x - 1,
    )
  )
  head = params['shared']['head']
  logits = features @ head['kernel'] + head['bias']
  ids = np.array([6, 0, 3])
  known = np.asarray(episode.support.y) >= 0
  y = ids[np.asarray(episode.support.y)[known]]
  for smoothing in found:
    targets = (1 - smoothing) * np.eye(7)[y] + smoothing / 7
    wanted = optax.softmax_cross_entropy(logits[known], targets).mean()
    np.testing.assert_allclose(shared(smoothing), wanted, rtol=1e-4)

  # The warm-up's head has the rest of the loss.
  def warm(smoothing):
    value, m = found[smoothing]
    rest = 0.1 * m['shared_loss'] + 0.01 * m['variation']
    return float(value - rest - 0.3 * m['cross_entropy'])

  assert abs(warm(0.3) - warm(0.0)) > 1e-3


def test_shared_features_are_dropped_in_their_own_stage():
  settings = {**helper.TINY, 'stage': 'shared', 'shared_head_classes': 7}
  episode = helper.episode_of()
  learner = hypertransformer.make(helper.WAY, **settings, shared_dropout=0.5)
  params = learner.init(jax.random.key(0), episode)
  losses = {
    float(learner.loss(params, episode, jax.random.key(k), 0)[0])
    for k in range(3)
  }
  assert len(losses) == 3
  task = learner.adapt(params, episode.support, jax.random.key(0), train=True)
  still = learner.adapt(params, episode.support, jax.random.key(1), train=True)
  np.testing.assert_array_equal(task, still)


def test_shares_of_rows_are_hidden_in_training_alone():
  y = jnp.array([0] * 40 + [-1] * 40)

  class Hide(nn.Module):
    settings: writer_settings.Settings

    @nn.compact
    def __call__(self, train):
      return (
        writer.Writer(self.settings, parent=None)
        .bind({}, rngs={'dropout': self.make_rng('dropout')})
        ._removed(y, None, train)
      )

  def shares(labelled, unlabelled, count=300):
    s = hypertransformer.settings_of(
      helper.WAY, remove_labelled=labelled, remove_unlabelled=unlabelled
    )
    draw = lambda key: Hide(s).apply({}, True, rngs={'dropout': key})
    hidden = jax.vmap(draw)(jax.random.split(jax.random.key(0), count))
    assert Hide(s).apply({}, False, rngs={'dropout': jax.random.key(0)}) is None
    hidden = np.asarray(hidden)
    return hidden[:, :40].mean(axis=1), hidden[:, 40:].mean(axis=1)

  known, free = shares(0.0, 1.0)
  assert known.max() == 0
  # q ~ U(0, 1): mean 1/2, variance 1/12 and that of 40 draws, E q (1-q) / 40.
  assert abs(free.mean() - 0.5) < 0.06
  assert abs(free.var() - (1 / 12 + 1 / 6 / 40)) < 0.02
  known, free = shares(0.4, 0.0)
  assert free.max() == 0 and 0.15 < known.mean() < 0.25


@pytest.mark.parametrize('depth', [3, 4])
def test_the_strided_networks_of_the_reference(depth):
  settings = {**helper.TINY, 'net': 'strided', 'stride': 2, 'depth': depth}
  learner = hypertransformer.make(
    helper.WAY, **settings, logits_features='default'
  )
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
  # Embedding, then the features: own ones and the shared four; or the slice of
  # 36 weights and a bias, where that is wider.
  learner = hypertransformer.make(helper.WAY, **{**helper.TINY, **settings})
  params = jax.eval_shape(learner.init, jax.random.key(0), helper.episode_of())
  width = params['writer']['head']['encoder']['out0']['kernel'].shape[1]
  assert width == 6 + max(37, parts + 4)
  assert ('head_features' in params['writer']) == (parts not in (0, 36))


@pytest.mark.parametrize(
  'step, weights',
  [
    (0, [1, 0, 0, 0]),
    (15, [0.5, 0.5, 0, 0]),
    (30, [0, 1, 0, 0]),
    (84, [0, 0, 0.2, 0.8]),
    (90, [0, 0, 0, 1]),
    (1000, [0, 0, 0, 1]),
  ],
)
def test_warm_up_moves_from_layer_to_layer(step, weights):
  found = writer_losses.warmup_weights(jnp.int32(step), 90, 3)
  np.testing.assert_allclose(found, weights, atol=1e-6)


def test_norms_of_their_own_for_support_and_queries():
  params, run = helper.build('decoder')
  episode = helper.episode_of()
  before = run(params, episode)
  moved = jax.tree.map(np.copy, params)
  moved['support_norms']['block0']['scale'] *= 3
  after = run(moved, episode)
  block = lambda result: result.task['block0']
  close(block(before), block(after), rtol=1e-5)
  kernel = lambda result: result.task['block1']['kernel']
  assert np.abs(kernel(after) - kernel(before)).max() > 1e-3
  # With those of the queries alone, what is written stays.
  moved = jax.tree.map(np.copy, params)
  moved['net']['block0']['scale'] *= 3
  again = run(moved, episode)
  np.testing.assert_allclose(
    kernel(again), kernel(before), rtol=1e-4, atol=1e-4
  )
  assert np.abs(again.logits - before.logits).max() > 1e-3


def test_prototypes_are_class_means_of_the_written_network():
  params, run = helper.build('prototypes')
  episode = helper.episode_of(unlabelled=1)
  result = run(params, episode)
  block = helper.block_of('prototypes')
  embed = lambda x: block.apply(
    {'params': result.task['cnn']['block0']}, 2 * x - 1
  ).reshape(len(x), -1)
  features, queries = embed(episode.support.x), embed(episode.query.x)
  y = np.asarray(episode.support.y)
  means = np.stack([np.asarray(features)[y == c].mean(0) for c in range(3)])
  np.testing.assert_allclose(
    result.task['prototypes'], means, rtol=1e-4, atol=1e-5
  )
  wanted = -np.square(queries[:, None] - means).sum(-1)
  wanted *= np.exp(params['log_scale'])
  np.testing.assert_allclose(result.logits, wanted, rtol=1e-3, atol=1e-3)


def test_a_network_may_be_written_from_other_supports():
  episode = helper.episode_of()
  other = helper.episode_of(seed=5).support
  stack = lambda *all: jax.tree.map(lambda *rows: jnp.stack(rows), *all)

  def with_others(*others):
    plain = [core.Examples(one.x, one.y) for one in others]
    support = episode.support._replace(context={'emit_from': stack(*plain)})
    return episode._replace(support=support)

  params, run = helper.build('prototypes')
  own, foreign = (
    run(params, episode),
    run(params, episode._replace(support=other)),
  )
  mean = run(params, with_others(episode.support, other)).task
  kernel = lambda task: task['cnn']['block0']['kernel']
  wanted = (kernel(own.task) + kernel(foreign.task)) / 2
  np.testing.assert_allclose(kernel(mean), wanted, rtol=1e-4, atol=1e-5)
  assert np.abs(kernel(own.task) - kernel(foreign.task)).max() > 1e-2
  # Prototypes are of the own support under that network.
  replaced = run(params, with_others(other)).task
  np.testing.assert_allclose(kernel(replaced), kernel(foreign.task), atol=1e-5)
  embed = lambda x: (
    helper.block_of('prototypes')
    .apply({'params': replaced['cnn']['block0']}, 2 * x - 1)
    .reshape(len(x), -1)
  )
  features, y = np.asarray(embed(episode.support.x)), episode.support.y
  means = np.stack([features[np.asarray(y) == c].mean(0) for c in range(3)])
  np.testing.assert_allclose(
    replaced['prototypes'], means, rtol=1e-4, atol=1e-5
  )
  params, run = helper.build()
  with pytest.raises(core.BadInput, match=r"needs learner\.head='prototypes'"):
    run(params, with_others(other))


def test_the_stage_of_shared_features_trains_nothing_else():
  learner = hypertransformer.make(
    helper.WAY, **helper.TINY, stage='shared', shared_head_classes=7
  )
  episode = helper.episode_of()
  params = learner.init(jax.random.key(0), episode)
  assert set(params) == {'shared'}
  whole = hypertransformer.make(helper.WAY, **helper.TINY)
  later = jax.eval_shape(whole.init, jax.random.key(0), episode)
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(params['shared']['features']) == shapes(
    later['shared']['features']
  )
  value = jax.jit(lambda p: learner.loss(p, episode, jax.random.key(1), 0)[0])
  first = value(params)
  for _ in range(30):
    grads = jax.grad(value)(params)
    params = jax.tree.map(lambda leaf, g: leaf - 0.3 * g, params, grads)
  assert value(params) < 0.7 * first


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'generator': 'both'}, 'joint, separate'),
    ({'generator': 'separate', 'decoder': True}, 'has a decoder anyway'),
    ({'variation_weight': 0.1}, 'set add_learned=True'),
    ({'shared_head_weight': 0.1}, 'number of training classes'),
    ({'stage': 'shared'}, 'number of training classes'),
    ({'stage': 'shared', 'shared': 'none'}, 'needs shared features'),
    ({'stage': 'first'}, 'all, shared'),
    ({'warmup_steps': 5, 'depth': 1}, 'depth=1'),
    ({'warmup_steps': -5}, 'warmup_steps=-5'),
    ({'remove_labelled': 1.5}, 'expected at most 1'),
    ({'separate_norm': True, 'norm': 'none'}, 'needs learned norms'),
    ({'head': 'linear'}, 'written, prototypes'),
    ({'head': 'prototypes', 'logits_features': 'mix'}, 'of the last layer'),
    ({'head': 'prototypes', 'logits_nonlinear': True}, 'of the last layer'),
    (
      {'logits_features': 'passthrough', 'logits_nonlinear': True},
      'is of a convolution',
    ),
    ({'skip_last_nonlinearity': True, 'inner': 0.0}, 'inner=0 has none'),
    ({'shared': 'none', 'shared_dropout': 0.1}, "shared='none' has none"),
  ],
  ids=str,
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    hypertransformer.make(helper.WAY, **settings)


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
  learner = hypertransformer.make(way, **config_lib.learner_settings(config))
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
  found, _ = jax.eval_shape(update, params, state, episode, key)
  sizes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert sizes(found) == sizes(params)
