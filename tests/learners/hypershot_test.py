"""HyperShot: the kernel matrix, the generated classifier, fine-tuning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hypershot as hypershot_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.learners import hypershot
from hyperudl.nets import conv
from tests.testing import by_hand
from tests.testing import episodes
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'hypershot': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY, SHOT = 3, 2
TINY = {'channels': (4, 5), 'hidden': 6, 'target': (7,)}


def built(**settings):
  learner = learners.make('hypershot', WAY, {**TINY, **settings})
  episode = episodes.episode_of(shot=SHOT)
  return learner, jax.jit(learner.init)(jax.random.key(1), episode), episode


def features_of(params, x):
  net = conv.ConvNet(channels=(4, 5), head=None, features='mean')
  return np.asarray(net.apply({'params': params['net']}, x), np.float64)


def dense(layer, x):
  return x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])


def relations(a, b, kernel):
  if kernel == 'cosine':
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
  return a @ b.T


def logits_by_hand(params, episode, kernel):
  """Logits of queries and of class means, layer by layer."""
  z, y = features_of(params, episode.support.x), np.asarray(episode.support.y)
  means = np.stack([z[y == c].mean(axis=0) for c in range(WAY)])
  x = relations(means, means, kernel).reshape(-1)
  x = np.maximum(dense(params['common'][0], x), 0)
  first, second = (
    dense(head[1], np.maximum(dense(head[0], x), 0)) for head in params['heads']
  )

  def classify(features):
    hidden = relations(features, means, kernel) @ first[:21].reshape(WAY, 7)
    hidden = np.maximum(hidden + first[21:], 0)
    return hidden @ second[:21].reshape(7, WAY) + second[21:]

  return classify(features_of(params, episode.query.x)), classify(means)


@pytest.mark.parametrize(
  'kernel', ['cosine', pytest.param('dot', marks=pytest.mark.slow)]
)
def test_logits_and_loss_are_those_by_hand(kernel):
  learner, params, episode = built(kernel=kernel)
  query, means = logits_by_hand(params, episode, kernel)
  task = learner.adapt(params, episode.support, None, train=True)
  logits = learner.predict(params, task, episode.query.x, None)
  np.testing.assert_allclose(logits, query, rtol=1e-3, atol=1e-4)
  value, metrics = learner.loss(params, episode, None, 0)
  y = np.concatenate([episode.query.y, np.arange(WAY)])
  both = by_hand.cross_entropy(np.concatenate([query, means]), y)
  np.testing.assert_allclose(value, both, rtol=1e-3)
  alone, _, _ = built(kernel=kernel, support_loss=False)
  np.testing.assert_allclose(
    alone.loss(params, episode, None, 0)[0],
    by_hand.cross_entropy(query, np.asarray(episode.query.y)),
    rtol=1e-3,
  )
  np.testing.assert_allclose(
    metrics['support_loss'],
    by_hand.cross_entropy(means, np.arange(WAY)),
    rtol=1e-3,
  )


def test_the_hypernetwork_has_the_published_widths():
  learner = learners.make('hypershot', 5, {})
  support = core.Examples(jnp.zeros((5, 28, 28, 1)), jnp.arange(5))
  shapes = jax.eval_shape(
    learner.init, jax.random.key(0), core.Episode(support, support)
  )
  kernels = lambda layers: [layer['kernel'].shape for layer in layers]
  assert kernels(shapes['common']) == [(25, 512)]
  assert [kernels(head) for head in shapes['heads']] == [
    [(512, 512), (512, 5 * 128 + 128)],
    [(512, 512), (512, 128 * 5 + 5)],
  ]


def test_generated_weights_start_with_variance_two_over_fan_in():
  config = hypershot.Config(way=5, target=(40,), hidden=64)
  learner = hypershot.make(config)
  support = core.Examples(jnp.zeros((5, 28, 28, 1)), jnp.arange(5))
  episode = core.Episode(support, support)
  matrix = jnp.sqrt(2.0) * jnp.sin(jnp.arange(25.0)).reshape(5, 5)

  def weights(key):
    return hypershot.generate(config, learner.init(key, episode), matrix)

  keys = jax.random.split(jax.random.key(0), 200)
  size = float(jnp.mean(jnp.square(matrix)))
  for layer, rows in zip(jax.jit(jax.vmap(weights))(keys), (5, 40)):
    variance = jnp.mean(jnp.square(layer['kernel']))
    np.testing.assert_allclose(variance, size * 2 / rows, rtol=0.1)


def test_rows_without_a_label_do_not_count():
  learner, params, episode = built(norm='layer')
  y = episode.support.y.at[4].set(-1)
  adapt = functools.partial(learner.adapt, train=False)
  one = adapt(params, core.Examples(episode.support.x, y), None)
  x = episode.support.x.at[4].set(0.0)
  other = adapt(params, core.Examples(x, y), None)
  jax.tree.map(np.testing.assert_array_equal, one['target'], other['target'])


def test_fine_tuning_fits_the_class_means_on_a_copy():
  learner, params, episode = built(finetune_steps=20, finetune_rate=1e-2)
  adapt = jax.jit(learner.adapt, static_argnames='train')
  before = adapt(params, episode.support, None, train=True)
  after = adapt(params, episode.support, None, train=False)
  moved = {**params, 'net': after['net']}
  gap = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), moved['net'], params['net']
  )
  assert max(jax.tree.leaves(gap)) > 1e-3
  jax.tree.map(np.testing.assert_array_equal, before['net'], params['net'])

  def fit(task):
    features = features_of({'net': task['net']}, episode.support.x)
    y = np.asarray(episode.support.y)
    means = np.stack([features[y == c].mean(axis=0) for c in range(WAY)])
    x = relations(means, means, 'cosine')
    first, second = task['target']
    logits = dense(second, np.maximum(dense(first, x), 0))
    return by_hand.cross_entropy(logits, np.arange(WAY))

  assert fit(after) < fit(before)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'kernel': 'rbf'}, "kernel = 'rbf' is none of cosine, dot"),
    ({'layers': 0}, 'layers = 0 is below its minimum 1'),
    ({'finetune_steps': -1}, 'finetune_steps = -1 is below its minimum 0'),
    ({'target': (0,)}, 'is below its minimum 1'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(
    learners.make, 'hypershot', WAY, {**TINY, **settings}
  )


@pytest.mark.parametrize(
  'arg, hidden, target',
  [(None, 512, (128,)), ('cub,way=5,shot=1', 128, (64,))],
)
def test_configs_have_the_published_sizes(arg, hidden, target):
  config = hypershot_config.get_config(arg)
  config_lib.validate(config)
  assert config.learner.hidden == hidden and config.learner.target == target
  learners.make('hypershot', 5, config_lib.learner_settings(config))
