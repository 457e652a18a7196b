"""HyperTransformer: the parts of its loss, its heads and its stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import losses
from tests.testing import hypertransformer as helper


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
  # A head that always predicts class 3 is correct for a third of known rows.
  uniform['shared']['head']['bias'][3] = 50
  labels = np.asarray(episode.support.y)
  fraction = (labels == 2).sum() / (labels >= 0).sum()
  accuracy = run(uniform, episode).metrics['shared_accuracy']
  np.testing.assert_allclose(accuracy, fraction, rtol=1e-5)
  episode = episode._replace(extra={'class_ids': jnp.array([6, 7, 3])})
  assert np.isnan(run(params, episode).value)


def test_every_cross_entropy_is_of_smoothed_labels():
  settings = {
    **helper.SETTINGS['separate'],
    **dict.fromkeys(('remove_labelled', 'remove_unlabelled'), 0.0),
    'label_smoothing': 0.3,
  }
  learner = helper.make(**settings)
  episode, key = helper.episode_of(unlabelled=1), jax.random.key(1)
  params = helper.random_params(
    jax.eval_shape(lambda: learner.init(key, episode))
  )

  @jax.jit
  def run(params):
    task = learner.adapt(params, episode.support, key, train=True)
    logits = learner.predict(params, task, episode.query.x, None)
    return *learner.loss(params, episode, key, 3), task, logits

  value, m, task, logits = run(params)
  smoothed = lambda logits, y: optax.softmax_cross_entropy(
    logits,
    0.7 * np.eye(logits.shape[1])[y] + 0.3 / logits.shape[1],
  ).mean()
  dense = lambda head, x: x @ head['kernel'] + head['bias']
  config = hypertransformer.Config(
    way=helper.WAY, **{**helper.TINY, **settings}
  )
  pixels = lambda part: 2 * part.x - 1
  known = np.asarray(episode.support.y) >= 0
  features = feature_extractors.shared_features(
    config, params, episode.support.x
  )
  ids = np.array([6, 0, 3])[np.asarray(episode.support.y)[known]]
  shared = smoothed(dense(params['shared']['head'], features)[known], ids)
  np.testing.assert_allclose(m['shared_loss'], shared, rtol=1e-4)
  y = np.asarray(episode.query.y)
  z = helper.block_of('separate').apply(
    {'params': task['block0']}, pixels(episode.query)
  )
  warm = smoothed(dense(params['heads'][0], z.mean(axis=(1, 2))), y)
  # At step 3 of 10.
  total = 0.7 * warm + 0.3 * smoothed(logits, y)
  total += 0.1 * shared + 0.01 * m['variation']
  np.testing.assert_allclose(value, total, rtol=1e-4)


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
  np.testing.assert_allclose(
    losses.warmup_weights(jnp.int32(step), 90, 3), weights, atol=1e-6
  )


def test_shared_features_are_dropped_in_their_own_stage():
  episode = helper.episode_of()
  learner = helper.make(
    stage='shared', shared_head_classes=7, shared_dropout=0.5
  )
  params = learner.init(jax.random.key(0), episode)
  values = {
    float(learner.loss(params, episode, jax.random.key(k), 0)[0])
    for k in range(3)
  }
  assert len(values) == 3
  task = learner.adapt(params, episode.support, jax.random.key(0), train=True)
  still = learner.adapt(params, episode.support, jax.random.key(1), train=True)
  np.testing.assert_array_equal(task, still)


def test_the_stage_of_shared_features_trains_nothing_else():
  learner = helper.make(stage='shared', shared_head_classes=7)
  episode = helper.episode_of()
  params = learner.init(jax.random.key(0), episode)
  assert set(params) == {'shared'}
  whole = helper.make()
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
