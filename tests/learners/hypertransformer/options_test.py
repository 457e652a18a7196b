"""HyperTransformer: what its less common settings mean."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import config
from hyperudl.learners.hypertransformer import weight_generator
from tests.testing import hypertransformer as helper


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


def test_shares_of_rows_are_hidden_in_training_alone():
  y = jnp.array([0] * 40 + [-1] * 40)

  class Hide(nn.Module):
    settings: config.Settings

    @nn.compact
    def __call__(self, train):
      return (
        weight_generator.Writer(self.settings, parent=None)
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
