"""MAML and its variants against loops, finite differences and hand numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import maml as maml_config
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.learners import maml
from hyperudl.nets import conv
from hyperudl.ops import losses
from tests.testing import by_hand
from tests.testing import episodes
from tests.testing import errors

WAY, STEPS = 3, 2
TINY = {'channels': (4, 4), 'inner_steps': STEPS, 'inner_rate': 0.5}


def gradient(step=0, params=None, **settings):
  """(loss, gradients, metrics) of one episode, and the parameters."""
  learner = learners.make('maml', WAY, {**TINY, **settings})
  episode = episodes.episode_of()
  if params is None:
    params = jax.jit(learner.init)(jax.random.key(1), episode)
  run = jax.jit(
    jax.value_and_grad(
      lambda p: learner.loss(p, episode, jax.random.key(0), step), has_aux=True
    )
  )
  (value, metrics), grads = run(params)
  return value, grads, metrics, params


def loop(params, rates, scope='all', stop=False, steps=STEPS):
  """The outer loss of a plain loop."""
  net = conv.ConvNet(channels=(4, 4), head=WAY)
  episode = episodes.episode_of()

  def fit(value, examples):
    logits = net.apply({'params': {**params, **value}}, examples.x)
    return losses.cross_entropy(logits, examples.y)

  value = {'head': params['head']} if scope == 'head' else params
  for j in range(steps):
    grads = jax.grad(fit)(value, episode.support)
    if stop:
      grads = jax.lax.stop_gradient(grads)
    rate = jax.tree.map(lambda leaf: leaf[j], rates) if rates else None
    value = jax.tree.map(
      (lambda v, g, r: v - r * g) if rates else (lambda v, g: v - 0.5 * g),
      *((value, grads, rate) if rates else (value, grads)),
    )
  return fit(value, episode.query)


@pytest.mark.parametrize(
  'settings, options',
  [
    ({}, {}),
    ({'first_order': True}, {'stop': True}),
    ({'scope': 'head'}, {'scope': 'head'}),
  ],
  ids=str,
)
def test_loss_and_gradient_are_those_of_a_plain_loop(settings, options):
  value, grads, _, params = gradient(**settings)
  hand = jax.jit(jax.value_and_grad(lambda net: loop(net, None, **options)))
  expected_value, expected = hand(params['net'])
  np.testing.assert_allclose(value, expected_value, rtol=1e-4)
  scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4 * scale),
    grads['net'],
    expected,
  )


@pytest.mark.parametrize(
  'rates', ['leaf', pytest.param('element', marks=pytest.mark.slow)]
)
def test_learned_rates_have_the_gradient_of_a_plain_loop(rates):
  _, grads, _, params = gradient(rates=rates)
  hand = jax.jit(jax.grad(lambda rates: loop(params['net'], rates)))
  expected = hand(params['rates'])
  scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * scale),
    grads['rates'],
    expected,
  )


@pytest.mark.slow
def test_outer_gradients_are_of_first_order_before_order_steps():
  second, first = gradient(), gradient(first_order=True)
  params = second[3]
  early = gradient(4, params, order_steps=5)
  late = gradient(5, params, order_steps=5)
  for actual, expected in ((early, first), (late, second)):
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
      actual[1],
      expected[1],
    )
  gap = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    early[1],
    late[1],
  )
  assert max(jax.tree.leaves(gap)) > 1e-3


def test_weights_of_the_multi_step_loss():
  weights = lambda step: np.asarray(
    maml.multi_step_weights(jnp.int32(step), 100, 5)
  )
  np.testing.assert_allclose(weights(0), [0.2] * 5, rtol=1e-5)
  np.testing.assert_allclose(weights(50), [0.1] * 4 + [0.6], rtol=1e-5)
  np.testing.assert_allclose(weights(99), [0.006] * 4 + [0.976], rtol=1e-4)
  np.testing.assert_allclose(weights(100), [0, 0, 0, 0, 1])


@pytest.mark.slow
def test_the_multi_step_loss_is_the_weighted_sum_over_steps():
  params = gradient()[3]
  ends = [float(loop(params['net'], None, steps=j)) for j in (1, 2)]
  value = gradient(25, params, multi_step=100)[0]
  # e = .25: (.375, .625).
  np.testing.assert_allclose(
    value, 0.375 * ends[0] + 0.625 * ends[1], rtol=1e-4
  )
  np.testing.assert_allclose(
    gradient(100, params, multi_step=100)[0], ends[1], rtol=1e-4
  )


def test_norms_of_each_step_are_learned_by_the_outer_loop_alone():
  value, grads, _, params = gradient(step_norms=True)
  assert params['norms']['block0']['scale'].shape == (STEPS, 4)
  assert 'scale' not in params['net']['block0']
  for leaf in jax.tree.leaves(grads['norms']):
    # Each step has norms of its own; queries reach those of the last too.
    assert all(np.abs(leaf).reshape(STEPS, -1).max(axis=1) > 1e-7)
  learner = learners.make('maml', WAY, {**TINY, 'step_norms': True})
  support = episodes.episode_of().support
  task = learner.adapt(params, support, None, train=True)
  assert 'scale' not in task['value']['block0']
  # Fresh norms of all steps are alike, so only what adapts differs.
  plain = gradient()[0]
  assert np.isfinite(value) and abs(float(value - plain)) > 1e-6


def test_adapted_offsets_make_equal_norms_those_of_plain_maml():
  plain_value, plain, _, _ = gradient()
  value, grads, _, params = gradient(step_norms=True, adapt_step_norms=True)
  assert 'scale' not in params['net']['block0']
  np.testing.assert_allclose(value, plain_value, rtol=1e-5)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
  near(grads['net']['block0']['kernel'], plain['net']['block0']['kernel'])
  for name, norm in grads['norms'].items():
    for key, leaf in norm.items():
      # An initial norm of all steps acts through the norm of each step.
      near(leaf.sum(axis=0), plain['net'][name][key])


def test_a_body_with_strides_adapts():
  learner = learners.make(
    'maml', WAY, {**TINY, 'backbone': 'conv_stride2', 'features': 'mean'}
  )
  episode = episodes.episode_of()
  params = jax.eval_shape(learner.init, jax.random.key(0), episode)
  adapt = functools.partial(learner.adapt, train=False)
  task = jax.eval_shape(adapt, params, episode.support, None)
  assert task['value']['head']['kernel'].shape == (4, WAY)


def test_a_backbone_of_another_run_has_no_norms_of_single_steps():
  config = maml_config.get_config('mamlpp,omniglot').unlock()
  config.init_from.net = 'runs/protonet'
  assert 'step_norms=False' in errors.refusal(learners.check_run, config)
  config.learner.step_norms = False
  learners.check_run(config)


def step_norms_by_hand(params, episode):
  """After each step, queries -> logits with the norms of that step."""
  net = conv.ConvNet(channels=(4, 4), head=WAY)

  def logits(value, j, x):
    norms = jax.tree.map(lambda leaf: leaf[j], params['norms'])
    weights = {k: {**v, **norms.get(k, {})} for k, v in value.items()}
    return net.apply({'params': weights}, x)

  def fit(value, j, part):
    return losses.cross_entropy(logits(value, j, part.x), part.y)

  value, ends = params['net'], []
  for j in range(STEPS):
    grads = jax.grad(fit)(value, j, episode.support)
    value = jax.tree.map(
      lambda v, g, r: v - r[j] * g, value, grads, params['rates']
    )
    ends.append(logits(value, j, episode.query.x))
  return ends


def test_queries_get_the_norms_of_the_last_step():
  """MAML++ with norms and rates that differ from step to step."""
  settings = {'step_norms': True, 'rates': 'leaf', 'multi_step': 10}
  settings['test_steps'] = 1
  learner = learners.make('maml', WAY, {**TINY, **settings})
  episode, key = episodes.episode_of(), jax.random.key(0)
  params = jax.jit(learner.init)(jax.random.key(1), episode)
  rng = np.random.default_rng(0)
  move = lambda leaf: leaf + 0.3 * jnp.asarray(rng.normal(size=leaf.shape))
  params |= {k: jax.tree.map(move, params[k]) for k in ('norms', 'rates')}
  ends = jax.jit(step_norms_by_hand)(params, episode)
  adapt = jax.jit(learner.adapt, static_argnames='train')
  # Evaluation stops after one step, training after two.
  for train, wanted in ((False, ends[0]), (True, ends[1])):
    task = adapt(params, episode.support, key, train=train)
    logits = learner.predict(params, task, episode.query.x, None)
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
  loss = jax.jit(lambda step: learner.loss(params, episode, key, step))
  first, last = (by_hand.cross_entropy(end, episode.query.y) for end in ends)
  np.testing.assert_allclose(loss(10)[0], last, rtol=1e-4)
  np.testing.assert_allclose(loss(5)[0], 0.25 * first + 0.75 * last, rtol=1e-4)
  assert abs(first - last) > 0.01


@pytest.mark.slow
def test_steps_beyond_those_of_training_take_the_last_rate():
  learner = learners.make(
    'maml', WAY, {**TINY, 'rates': 'leaf', 'test_steps': 7}
  )
  params = jax.jit(learner.init)(jax.random.key(1), episodes.episode_of())
  params['rates'] = jax.tree.map(
    lambda leaf: jnp.array([0.0, 0.3]), params['rates']
  )
  support = episodes.episode_of().support

  def fit(task):
    logits = learner.predict(params, task, support.x, None)
    return float(losses.cross_entropy(logits, support.y))

  few = learner.adapt(params, support, None, train=True)
  many = learner.adapt(params, support, None, train=False)
  # The first step has rate zero, the other six the last rate.
  assert (int(few['step']), int(many['step'])) == (1, 6)
  assert fit(many) < fit(few)
  # A last rate of zero: after the first step nothing moves.
  params['rates'] = jax.tree.map(
    lambda leaf: jnp.array([0.3, 0.0]), params['rates']
  )
  few = learner.adapt(params, support, None, train=True)
  many = learner.adapt(params, support, None, train=False)
  np.testing.assert_allclose(fit(many), fit(few), rtol=1e-5)


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'scope': 'body'}, 'none of all, head'),
    ({'rates': 'step'}, 'none of fixed, leaf, element'),
    ({'inner_steps': 0}, 'inner_steps = 0 is below its minimum 1'),
    ({'test_steps': -1}, 'test_steps = -1 is below its minimum 0'),
    ({'first_order': True, 'order_steps': 5}, 'choose one of them'),
    ({'step_norms': True, 'norm': 'none'}, 'step_norms=True needs a norm'),
    ({'step_norms': True, 'scope': 'head'}, "scope='all'"),
    ({'adapt_step_norms': True}, 'needs step_norms=True'),
    ({'norm': 'instance'}, "norm = 'instance' is none of"),
    ({'backbone': 'resnet12', 'norm': 'none'}, 'resnet12 needs a norm'),
    ({'features': 'max'}, "features = 'max' is none of"),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(
    learners.make, 'maml', WAY, {**TINY, **settings}
  )


@pytest.mark.parametrize('method', maml_config.METHODS)
def test_every_method_has_a_config(method):
  config = maml_config.get_config(f'{method},miniimagenet,shot=5')
  config_lib.validate(config)
  learners.make('maml', 5, config_lib.learner_settings(config))
  assert config.data.dataset == 'miniimagenet' and config.episode.shot == 5
  assert config.episode.query == 15
