"""HyperTransformer: its less common settings.

Guards: learners/hypertransformer/config.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import weight_generator
from tests.testing import errors
from tests.testing import hypertransformer as helper


def close(one, other, **options):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **options), one, other
  )


def test_learned_weights_are_added_to_generated_ones():
  params, run = helper.build('separate')
  episode = helper.episode_of(unlabelled=1)
  before = run(params, episode)
  # The last layer: its weights change no activation that generates a layer.
  moved = jax.tree.map(np.copy, params)
  moved['net']['head']['kernel'] += 0.5
  after = run(moved, episode)
  gap = after.task['head']['kernel'] - before.task['head']['kernel']
  np.testing.assert_allclose(gap, 0.5, rtol=1e-5)
  ratio = 0.0
  for name in ('block0', 'block1'):
    learned = params['net'][name]['kernel']
    generated = before.task[name]['kernel'] - learned
    ratio += np.sum(generated**2) / np.sum(learned**2)
  np.testing.assert_allclose(before.metrics['variation'], ratio, rtol=1e-4)


def test_random_rows_are_removed_in_training_alone():
  y = jnp.array([0] * 40 + [-1] * 40)

  def fractions(labelled, unlabelled, count=300):
    config = hypertransformer.Config(
      way=helper.WAY, remove_labelled=labelled, remove_unlabelled=unlabelled
    )
    draw = lambda key: weight_generator.draw_removed(config, key, y)
    removed = jax.vmap(draw)(jax.random.split(jax.random.key(0), count))
    removed = np.asarray(removed)
    return removed[:, :40].mean(axis=1), removed[:, 40:].mean(axis=1)

  labelled, unlabelled = fractions(0.0, 1.0)
  assert labelled.max() == 0
  # q ~ U(0, 1): mean 1/2, variance 1/12 and that of 40 draws, E q (1-q) / 40.
  assert abs(unlabelled.mean() - 0.5) < 0.06
  assert abs(unlabelled.var() - (1 / 12 + 1 / 6 / 40)) < 0.02
  labelled, unlabelled = fractions(0.4, 0.0)
  assert unlabelled.max() == 0 and 0.15 < labelled.mean() < 0.25
  # The tasks of two keys differ in training, and not at test time.
  learner, episode = helper.make(remove_labelled=1.0), helper.episode_of()
  params, _ = helper.build()
  adapt = jax.jit(
    lambda key, train: learner.adapt(params, episode.support, key, train=train)[
      'head'
    ]['kernel'],
    static_argnums=1,
  )
  tasks = lambda train: [adapt(jax.random.key(k), train) for k in (0, 1)]
  assert np.abs(np.subtract(*tasks(True))).max() > 1e-3
  np.testing.assert_array_equal(*tasks(False))


def test_support_and_queries_may_have_separate_norms():
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
  # Those of the queries alone do not change the generated weights.
  moved = jax.tree.map(np.copy, params)
  moved['net']['block0']['scale'] *= 3
  again = run(moved, episode)
  np.testing.assert_allclose(
    kernel(again), kernel(before), rtol=1e-4, atol=1e-4
  )
  assert np.abs(again.logits - before.logits).max() > 1e-3


def test_prototypes_are_class_means_of_the_generated_network():
  params, run = helper.build('prototypes')
  episode = helper.episode_of(unlabelled=1)
  result = run(params, episode)
  embed = lambda x: helper.block_features(
    helper.block_of('prototypes'), result.task['cnn']['block0'], x
  )
  queries = embed(episode.query.x)
  means = helper.class_means(embed(episode.support.x), episode.support.y)
  np.testing.assert_allclose(
    result.task['prototypes'], means, rtol=1e-4, atol=1e-5
  )
  wanted = -np.square(queries[:, None] - means).sum(-1)
  wanted *= np.exp(params['log_scale'])
  np.testing.assert_allclose(result.logits, wanted, rtol=1e-3, atol=1e-3)


def test_a_network_may_be_generated_from_other_supports():
  episode = helper.episode_of()
  other = helper.episode_of(seed=5).support
  stack = lambda *all: jax.tree.map(lambda *rows: jnp.stack(rows), *all)

  def with_others(*others):
    plain = [core.Examples(one.x, one.y) for one in others]
    support = episode.support._replace(context={'emit_from': stack(*plain)})
    return episode._replace(support=support)

  params, run = helper.build('prototypes')
  same = run(params, episode)
  foreign = run(params, episode._replace(support=other))
  mean = run(params, with_others(episode.support, other)).task
  kernel = lambda task: task['cnn']['block0']['kernel']
  wanted = (kernel(same.task) + kernel(foreign.task)) / 2
  np.testing.assert_allclose(kernel(mean), wanted, rtol=1e-4, atol=1e-5)
  assert np.abs(kernel(same.task) - kernel(foreign.task)).max() > 1e-2
  # Prototypes are of the episode's support under that network.
  replaced = run(params, with_others(other)).task
  np.testing.assert_allclose(kernel(replaced), kernel(foreign.task), atol=1e-5)
  features = helper.block_features(
    helper.block_of('prototypes'), replaced['cnn']['block0'], episode.support.x
  )
  means = helper.class_means(features, episode.support.y)
  np.testing.assert_allclose(
    replaced['prototypes'], means, rtol=1e-4, atol=1e-5
  )
  params, run = helper.build()
  message = errors.refusal(run, params, with_others(other))
  assert "needs learner.head='prototypes'" in message


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'generator': 'both'}, 'joint, separate'),
    ({'generator': 'separate', 'decoder': True}, 'has a decoder anyway'),
    ({'variation_weight': 0.1}, 'needs add_learned=True'),
    ({'shared_head_weight': 0.1}, 'number of training classes'),
    ({'stage': 'shared'}, 'number of training classes'),
    ({'stage': 'shared', 'shared': 'none'}, 'needs shared features'),
    ({'stage': 'first'}, 'all, shared'),
    ({'warmup_steps': 5, 'depth': 1}, 'needs depth >= 2'),
    ({'warmup_steps': -5}, 'warmup_steps = -5 is below its minimum 0'),
    ({'remove_labelled': 1.5}, 'is above its maximum 1'),
    ({'separate_norm': True, 'norm': 'none'}, 'needs learned norms'),
    ({'head': 'linear'}, 'written, prototypes'),
    ({'head': 'prototypes', 'logits_features': 'mix'}, "needs head='written'"),
    ({'head': 'prototypes', 'logits_nonlinear': True}, "needs head='written'"),
    (
      {'logits_features': 'passthrough', 'logits_nonlinear': True},
      'needs a convolution',
    ),
    ({'skip_last_nonlinearity': True, 'inner': 0.0}, 'inner=0 has none'),
    ({'shared': 'none', 'shared_dropout': 0.1}, 'needs shared features'),
  ],
  ids=str,
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
  assert message in errors.refusal(
    learners.make, 'hypertransformer', helper.WAY, settings
  )


@pytest.mark.parametrize('token_features', ['given', 'standardised'])
def test_what_all_images_have_is_not_in_standardised_features(token_features):
  settings = {**helper.SETTINGS['prototypes'], 'token_features': token_features}
  learner, episode = helper.make(**settings), helper.episode_of()
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  params = helper.random_params(shapes)
  moved = jax.tree.map(np.copy, params)
  # The last features of the layer: a constant, after its last nonlinearity.
  moved['writer']['block0_features']['bias1'] += 3.0
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  before, after = (
    adapt(each, episode.support, jax.random.key(1))['cnn']['block0']['kernel']
    for each in (params, moved)
  )
  same = np.allclose(before, after, atol=1e-3)
  assert same == (token_features == 'standardised')


def test_rows_without_attention_are_not_in_standardised_features():
  settings = {'norm': 'layer', 'token_features': 'standardised'}
  learner = helper.make(**helper.SETTINGS['prototypes'], **settings)
  config = hypertransformer.Config(
    way=helper.WAY,
    **helper.TINY | helper.SETTINGS['prototypes'] | settings,
  )
  support = helper.episode_of().support
  shapes = jax.eval_shape(learner.init, jax.random.key(0), helper.episode_of())
  params = helper.random_params(shapes)
  removed = jnp.arange(len(support.y)) >= 4
  others = jnp.where(removed[:, None, None, None], 1 - support.x, support.x)

  def kernel(x, removed):
    cnn = weight_generator.generate(
      config,
      params,
      support._replace(x=x),
      jax.random.key(1),
      False,
      weight_generator.Conditioning(removed=removed),
    )
    return cnn['block0']['kernel']

  later = removed.astype(jnp.float32)
  same = np.testing.assert_allclose
  same(kernel(support.x, later), kernel(others, later), atol=1e-5)
  changed = kernel(support.x, 0 * later) - kernel(others, 0 * later)
  assert np.abs(changed).max() > 1e-2
