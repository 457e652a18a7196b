"""Class weights of a HyperTransformer that start from prototypes."""

import jax
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import class_weights
from tests.testing import hypertransformer as helper

SETTINGS = {'head': 'class_weights', 'class_width': 8, 'logits_scale': 0.1}
Y = np.array([0, 1, 2, 0, 1, -1])


def module(**settings):
  config = hypertransformer.Config(
    way=helper.WAY, **{**helper.TINY, **SETTINGS, **settings}
  )
  return class_weights.ClassWeights(config)


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda width: rng.normal(size=(6, width)).astype(np.float32)
  return draw(5), draw(4)


def apply(params, features, shared, y=Y, **settings):
  weights = module(**settings).apply(
    {'params': params}, features, shared, y, train=False
  )
  return np.asarray(weights)


def init(features, shared, **settings):
  variables = module(**settings).init(
    jax.random.key(0), features, shared, Y, train=False
  )
  return variables['params']


def random(params):
  return helper.random_params(jax.eval_shape(lambda: params))


@pytest.mark.parametrize('layers', [0, 1, 2])
def test_class_weights_are_prototypes_at_the_start(layers):
  features, shared = inputs()
  params = init(features, shared, class_layers=layers)
  weights = apply(params, features, shared, class_layers=layers)
  expected = helper.class_means(features, Y)
  np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_learner_starts_as_prototypes_of_the_same_network():
  episode = helper.episode_of(unlabelled=1)
  learner = helper.make(**SETTINGS)
  params = jax.jit(learner.init)(jax.random.key(0), episode)
  assert {'class_weights', 'writer', 'net', 'shared'} <= set(params)
  plain = helper.make(head='prototypes', logits_scale=0.1)
  first, second = (
    logits(learner, params, episode),
    logits(plain, params, episode),
  )
  np.testing.assert_allclose(first, second, rtol=1e-5)


def logits(learner, params, episode):
  @jax.jit
  def predict(params, support, x):
    task = learner.adapt(params, support, jax.random.key(1), train=False)
    return learner.predict(params, task, x, None)

  return predict(params, episode.support, episode.query.x)


def test_every_parameter_gets_a_gradient():
  episode = helper.episode_of()
  learner = helper.make(**SETTINGS)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  params = helper.random_params(shapes)

  @jax.jit
  def gradient(params):
    loss = lambda p: learner.loss(p, episode, jax.random.key(1), 0)[0]
    return jax.grad(loss)(params)

  gradients = gradient(params)['class_weights']
  del gradients['encoder']['attention0']['in']['bias']  # of keys: no effect
  for leaf in jax.tree.leaves(gradients):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_classes_attend_to_each_other_and_have_no_order():
  features, shared = inputs()
  params = random(init(features, shared))
  weights = apply(params, features, shared)
  order = np.array([2, 0, 1])
  y = np.where(Y < 0, -1, order[Y])
  moved = apply(params, features, shared, y)
  np.testing.assert_allclose(moved[order], weights, rtol=1e-4, atol=1e-5)
  # A change of class 2 moves the weights of class 0, unless there is no layer.
  other = features + np.float32(Y == 2)[:, None]
  assert np.abs(apply(params, other, shared) - weights)[0].max() > 1e-3
  alone = random(init(features, shared, class_layers=0))
  one = apply(alone, features, shared, class_layers=0)
  two = apply(alone, other, shared, class_layers=0)
  np.testing.assert_allclose(one[:2], two[:2], rtol=1e-5)


def test_shared_features_are_read_and_may_be_absent():
  features, shared = inputs()
  params = random(init(features, shared))
  weights = apply(params, features, shared)
  assert np.abs(apply(params, features, -shared) - weights).max() > 1e-3
  # Their scale and mean over the support do not matter.
  scaled = apply(params, features, 5 * shared + 3)
  np.testing.assert_allclose(scaled, weights, rtol=1e-4, atol=1e-5)
  none = np.zeros((6, 0), np.float32)
  params = init(features, none)
  assert apply(params, features, none).shape == (3, 5)


def test_other_supports_give_the_kernels_and_the_own_support_the_weights():
  episode = helper.episode_of()
  learner = helper.make(**SETTINGS)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  params = helper.random_params(shapes)
  other = helper.episode_of(seed=5).support
  others = jax.tree.map(lambda leaf: leaf[None], other)
  support = episode.support._replace(context={'emit_from': others})

  @jax.jit
  def adapt(support):
    return learner.adapt(params, support, jax.random.key(1), train=False)

  mixed, theirs = adapt(support), adapt(other)
  np.testing.assert_allclose(
    *(task['cnn']['block0']['kernel'] for task in (mixed, theirs)), rtol=1e-5
  )
  gap = mixed['prototypes'] - theirs['prototypes']
  assert np.abs(gap).max() > 1e-3


def test_fields_of_class_weights_need_this_head():
  with pytest.raises(core.BadInput, match="class_layers=2 needs head='class_w"):
    hypertransformer.Config(class_layers=2)
