"""HyperMAML: the update, the warm-up and the inputs of the hypernetwork.

Guards: learners/_head_generator.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hypermaml as hypermaml_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.nets import conv
from hyperudl.ops import losses
from tests.testing import episodes
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'hypermaml': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY = 3
TINY = {'channels': (4, 5), 'hidden': 6, 'inner_rate': 0.5, 'inner_steps': 2}
episode_of = functools.partial(episodes.episode_of, shot=2)


def built(**settings):
  learner = learners.make('hypermaml', WAY, {**TINY, **settings})
  params = jax.jit(learner.init)(jax.random.key(1), episode_of())
  params['head']['bias'] += jnp.array([0.3, -0.2, 0.1])  # zero at first
  return learner, params


def value_and_grad(learner, params, step=0):
  episode = episode_of()
  run = jax.jit(
    jax.value_and_grad(
      lambda p: learner.loss(p, episode, jax.random.key(0), step), has_aux=True
    )
  )
  (value, metrics), grads = run(params)
  return value, grads, metrics


def linear(head, z):
  return z @ head['kernel'] + head['bias']


def delta_by_hand(params, z, y, aggregation='concat'):
  """Row by row, each class apart."""
  head, layers = params['head'], params['hypernetwork']
  predictions = jax.lax.stop_gradient(jax.nn.softmax(linear(head, z)))
  rows = jnp.concatenate([z, predictions, jnp.eye(WAY)[y]], axis=1)
  out = []
  for c in range(WAY):
    x = rows[np.flatnonzero(y == c)]
    x = x.mean(0) if aggregation == 'mean' else x.reshape(-1)
    for name in ('Dense_0', 'Dense_1'):
      x = jnp.maximum(linear(layers[name], x), 0)
    out.append(linear(layers['Dense_2'], x))
  out = jnp.stack(out)
  return {'kernel': out[:, :-1].T, 'bias': out[:, -1]}


def features_of(params, x):
  net = conv.ConvNet(channels=(4, 5), head=None, features='mean')
  return net.apply({'params': params['trunk']}, x)


@pytest.mark.parametrize(
  'aggregation, update',
  [('concat', 'minus'), ('mean', 'plus'), ('concat', 'multiply')],
)
def test_the_head_of_a_task_is_the_universal_one_and_delta(aggregation, update):
  learner, params = built(aggregation=aggregation, update=update)
  episode = episode_of()
  task = jax.jit(functools.partial(learner.adapt, train=False))(
    params, episode.support, jax.random.key(0)
  )
  z = features_of(params, episode.support.x)
  delta = delta_by_hand(params, z, episode.support.y, aggregation)
  apply = {
    'minus': lambda a, b: a - b,
    'plus': lambda a, b: a + b,
    'multiply': lambda a, b: a * b,
  }[update]
  for name in ('kernel', 'bias'):
    expected = apply(np.asarray(params['head'][name]), delta[name])
    np.testing.assert_allclose(
      task['head'][name], expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('step, fraction', [(0, 1.0), (12, 0.5), (40, 0.0)])
def test_the_warm_up_blends_gradient_steps_and_delta(step, fraction):
  learner, params = built(warmup_steps=10, switch_steps=5)
  value, grads, metrics = value_and_grad(learner, params, step)
  np.testing.assert_allclose(metrics['gradient_share'], fraction, rtol=1e-6)
  episode = episode_of()
  z = features_of(params, episode.support.x)
  y, head = episode.support.y, params['head']
  for _ in range(2):
    fit = lambda head: losses.cross_entropy(linear(head, z), y)
    head = jax.tree.map(
      lambda v, g: v - fraction * 0.5 * g, head, jax.grad(fit)(head)
    )
  delta = delta_by_hand(params, z, y)
  head = jax.tree.map(lambda v, d: v - (1 - fraction) * d, head, delta)
  logits = linear(head, features_of(params, episode.query.x))
  expected = losses.cross_entropy(logits, episode.query.y)
  np.testing.assert_allclose(value, expected, rtol=1e-3)
  largest = max(
    float(jnp.abs(g).max()) for g in jax.tree.leaves(grads['hypernetwork'])
  )
  assert (largest > 0) == (fraction < 1)


def test_the_weight_of_gradient_steps_falls_without_a_jump():
  def weights(steps, **settings):
    learner, params = built(**settings)
    episode = episode_of()
    weight = lambda step: learner.loss(params, episode, None, step)[1][
      'gradient_share'
    ]
    return jax.jit(jax.vmap(weight))(jnp.array(steps))

  expected = [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0]
  falling = weights(range(8, 16), warmup_steps=10, switch_steps=4)
  np.testing.assert_allclose(falling, expected, rtol=1e-5)
  np.testing.assert_array_equal(weights([0, 9]), 0)


def test_classes_are_treated_alike():
  learner, params = built(enhance=False, labels='none')
  params['head'] = jax.tree.map(jnp.zeros_like, params['head'])
  support = episode_of().support
  permuted = support._replace(y=(support.y + 1) % WAY)
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  one = adapt(params, support, jax.random.key(0))['head']
  other = adapt(params, permuted, jax.random.key(0))['head']
  np.testing.assert_allclose(
    jnp.roll(one['bias'], 1), other['bias'], rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('aggregation', ['concat', 'mean'])
def test_rows_without_a_label_do_not_count(aggregation):
  support = episode_of().support
  y = support.y.at[4].set(-1)
  # Batch statistics would let its pixels through.
  learner, params = built(aggregation=aggregation, norm='layer')
  adapt = jax.jit(functools.partial(learner.adapt, train=False))
  one = adapt(params, support._replace(y=y), jax.random.key(0))
  x = support.x.at[4].set(0.0)
  other = adapt(params, core.Examples(x, y), jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, one['head'], other['head'])


@pytest.mark.parametrize('hidden, count', [(512, 332_353), (256, 100_673)])
def test_the_hypernetwork_has_the_size_of_the_published_one(hidden, count):
  learner = learners.make('hypermaml', 5, {'hidden': hidden, 'labels': 'index'})
  x = jnp.zeros((5, 28, 28, 1))
  support = core.Examples(x, jnp.arange(5))
  shapes = jax.eval_shape(
    learner.init, jax.random.key(0), core.Episode(support, support)
  )
  leaves = jax.tree.leaves(shapes['hypernetwork'])
  assert sum(leaf.size for leaf in leaves) == count


def test_detached_parts_get_no_gradient():
  size = lambda grads: sum(
    float(jnp.abs(g).sum()) for g in jax.tree.leaves(grads)
  )
  learner, params = built(detach_features=True)
  assert size(value_and_grad(learner, params)[1]['trunk']) == 0
  learner, params = built()
  whole = value_and_grad(learner, params)[1]['trunk']
  learner, params = built(detach_hypernetwork=True)
  part = value_and_grad(learner, params)[1]['trunk']
  assert size(part) > 0
  gap = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), whole, part)
  assert max(jax.tree.leaves(gap)) > 1e-6


def test_the_loss_has_the_configured_terms():
  plain, params = built()
  value, _, metrics = value_and_grad(plain, params)
  weighted, _ = built(delta_weight=0.1)
  more = value_and_grad(weighted, params)[0]
  np.testing.assert_allclose(
    more - value, 0.1 * metrics['delta_norm'] ** 2, rtol=1e-3
  )
  episode = episode_of()
  z = features_of(params, episode.support.x)
  delta = delta_by_hand(params, z, episode.support.y)
  size = sum(np.sum(leaf**2) for leaf in delta.values())
  np.testing.assert_allclose(metrics['delta_norm'], np.sqrt(size), rtol=1e-3)
  both, _ = built(support_loss=True)
  task = plain.adapt(params, episode.support, None, train=True)
  logits = lambda part: plain.predict(params, task, part.x, None)
  # Apart, for the batch statistics.
  parts = [losses.cross_entropy(logits(p), p.y) for p in episode[:2]]
  np.testing.assert_allclose(
    value_and_grad(both, params)[0], sum(parts) / 2, rtol=1e-3
  )


def test_fine_tuning_moves_a_copy_of_the_parameters():
  learner, params = built(finetune_steps=20, finetune_rate=1e-2)
  support = episode_of().support
  adapt = jax.jit(learner.adapt, static_argnames='train')
  fit = lambda task: float(
    losses.cross_entropy(
      learner.predict(None, task, support.x, None), support.y
    )
  )
  before = adapt(params, support, jax.random.key(0), train=True)
  after = adapt(params, support, jax.random.key(0), train=False)
  assert fit(after) < fit(before)
  jax.tree.map(np.testing.assert_array_equal, before['trunk'], params['trunk'])


def test_one_step_of_fine_tuning_is_one_of_adam_from_the_parameters():
  rate, episode, key = 0.02, episode_of(), jax.random.key(0)
  support, y = episode.support, np.asarray(episode.support.y)

  def head_by_hand(params):
    z = features_of(params, support.x)
    delta = delta_by_hand(params, z, y)
    return jax.tree.map(jnp.subtract, params['head'], delta)

  def fit(params):
    logits = linear(head_by_hand(params), features_of(params, support.x))
    return losses.cross_entropy(logits, y)

  def adapted(steps, train=False):
    learner, _ = built(finetune_steps=steps, finetune_rate=rate)
    adapt = functools.partial(learner.adapt, train=train)
    return jax.jit(adapt)(params, support, key)

  _, params = built()
  # Adam's first step is the rate times the sign; tiny gradients are rounded.
  grads = jax.jit(jax.grad(fit))(params)
  step = jax.tree.map(lambda g: rate * g / (jnp.abs(g) + 1e-8), grads)
  moved = jax.tree.map(jnp.subtract, params, step)
  zero, one = adapted(0), adapted(1)
  jax.tree.map(np.testing.assert_array_equal, zero['trunk'], params['trunk'])
  jax.tree.map(np.testing.assert_array_equal, zero, adapted(1, train=True))
  near = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
  jax.tree.map(near, one['trunk'], moved['trunk'])
  # The head is generated again from the features of the moved trunk. What all
  # classes share has no gradient but rounding errors.
  apart = lambda leaf: leaf - leaf.mean(axis=-1, keepdims=True)
  wanted = jax.jit(head_by_hand)(moved)
  jax.tree.map(lambda a, b: near(apart(a), apart(b)), one['head'], wanted)
  assert float(jnp.abs(one['head']['bias'] - zero['head']['bias']).max()) > 0.01


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'aggregation': 'max'}, 'none of concat, mean'),
    ({'update': 'divide'}, 'none of minus, plus, multiply'),
    ({'labels': 'name'}, 'none of one_hot, index, none'),
    ({'layers': 1}, 'layers = 1 is below its minimum 2'),
    ({'warmup_steps': -1}, 'warmup_steps = -1 is below its minimum 0'),
    ({'channels': (4, 0)}, 'is below its minimum 1'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(
    learners.make, 'hypermaml', WAY, {**TINY, **settings}
  )


@pytest.mark.parametrize(
  'arg, hidden, aggregation',
  [
    (None, 512, 'concat'),
    ('omniglot,shot=5', 512, 'mean'),
    ('miniimagenet,way=5,shot=1', 256, 'concat'),
  ],
)
def test_configs_are_the_published_ones(arg, hidden, aggregation):
  config = hypermaml_config.get_config(arg)
  config_lib.validate(config)
  learner = config.learner
  assert (learner.hidden, learner.aggregation) == (hidden, aggregation)
  learners.make('hypermaml', 5, config_lib.learner_settings(config))
