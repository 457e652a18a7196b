"""The laws that every learner obeys, found from the folder of learners.

Guards: core/types.py.
"""

import dataclasses
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.data import episodes
from hyperudl.training import episode_batching
from hyperudl.training import train_step
from tests.testing import example
from tests.testing import laws
from tests.testing import learner_case

NAMES, LAWS = learner_case.NAMES, learner_case.LAWS
case_of, slow_where_stated = (
  learner_case.case_of,
  learner_case.slow_where_stated,
)


@pytest.fixture(params=NAMES)
def case(request):
  return case_of(request.param)


def test_every_learner_has_a_config_with_all_its_hyperparameters():
  for name in NAMES:
    config = importlib.import_module(f'configs.{name}').get_config()
    listed = set(config_lib.learner_settings(config))
    assert listed == set(learners.hyperparameters(name)), name
    learners.make(name, 5, config_lib.learner_settings(config))


@pytest.mark.parametrize('name', NAMES)
def test_an_example_episode_fits_every_config(name, size=20, channels=3):
  config = importlib.import_module(f'configs.{name}').get_config()
  draw = lambda: example.example_episode(config, size, channels)
  # Images of tasks with language are gathered outside of compiled programs.
  episode = draw() if 'language' in config else jax.eval_shape(draw)
  rules = config.episode
  unlabelled = 0 if rules.transductive else rules.unlabelled
  support, query = episode.support.x, episode.query.x
  pixels = (size, size, channels)
  tasks = (rules.tasks,) if rules.tasks else ()
  rows = rules.way * (rules.shot + unlabelled)
  assert support.shape == (*tasks, rows, *pixels)
  assert query.shape == (*tasks, rules.way * rules.query, *pixels)


def test_an_unknown_learner_is_refused_with_a_suggestion():
  with pytest.raises(core.BadInput, match="Did you mean 'protonet'"):
    learners.make('protonett', 5, {})
  with pytest.raises(core.BadInput, match="did you mean 'channels'"):
    learners.make('protonet', 5, {'chanels': 3})


def test_logits_are_finite_and_shaped(case):
  params = case.state().params
  logits = case.logits(params, case.episode, case.keys[0])
  count = LAWS[case.name].tasks
  ways = 3 * count if case.name == 'continual' else 3
  assert logits.shape == ((count, 9, ways) if count else (9, 3))
  assert jnp.isfinite(logits).all()


@pytest.mark.parametrize('name', NAMES)
def test_an_unknown_hyperparameter_is_a_type_error(name):
  module = importlib.import_module(f'hyperudl.learners.{name}')
  with pytest.raises(TypeError):
    module.Config(way=3, no_such_hyperparameter=1)


def test_every_exemption_is_of_a_learner_and_has_a_reason():
  assert set(LAWS) == set(NAMES)
  for name, law in LAWS.items():
    words = {'slow', 'untrained', 'unjudged', 'reason'}
    numbers = dataclasses.replace(law, **dict.fromkeys(words, ''))
    assert law.reason or numbers == laws.Laws(), name


def test_the_gradient_reaches_every_trainable_leaf_and_no_frozen_one(case):
  # Some gates are zero until the first update, hence three of them.
  state = case.state()
  before = jax.device_get(state.params)
  for t in range(3):
    state, _ = case.step(state, *case.at(t))
  after = jax.device_get(state.params)
  paths = jax.tree_util.tree_flatten_with_path(before)[0]
  for (path, old), new in zip(paths, jax.tree.leaves(after)):
    name = jax.tree_util.keystr(path)
    if "['ema']" in name:
      continue  # running means, see train_step_test.py
    changed = bool((old != new).any())
    assert changed != ('frozen' in name), name


def test_query_labels_and_extra_cannot_leak_into_predictions(case):
  params = case.state().params
  clean = case.logits(params, case.episode, case.keys[0])
  query = case.episode.query
  poisoned = case.episode._replace(
    query=query._replace(y=(query.y + 1) % 3),
    extra=jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), case.episode.extra),
  )
  dirty = case.logits(params, poisoned, case.keys[0])
  np.testing.assert_array_equal(clean, dirty)


def test_rows_without_a_label_are_legal(case):
  support = case.episode.support
  y = support.y.at[..., jnp.array([1, 3])].set(-1)
  episode = case.episode._replace(support=support._replace(y=y))
  params = case.state().params
  assert jnp.isfinite(case.logits(params, episode, case.keys[0])).all()


def test_the_same_key_gives_the_same_update(case):
  results = []
  for _ in range(2):
    state, _ = case.step(case.state(), case.batch, case.keys)
    results.append(jax.device_get(state.params))
  chex.assert_trees_all_equal(*results)


def test_25_steps_lower_the_loss_on_a_fixed_batch_in_one_compilation(case):
  state = case.state()
  values = []
  for _ in range(25):
    state, metrics = case.step(state, case.batch, case.keys)
    assert metrics['finite'] == 1
    values.append(float(metrics['loss']))
  assert min(values[-3:]) < values[0]
  assert case.step._cache_size() == 1
  assert case.traces == 1  # nothing is traced twice, or per step


@pytest.mark.parametrize(
  'name', slow_where_stated(n for n in NAMES if not LAWS[n].untrained)
)
def test_a_trained_learner_beats_its_untrained_self_and_a_constant(name):
  case = case_of(name)
  state = case.state()
  untrained = jax.device_get(state.params)
  for t in range(case.config.steps):
    state, _ = case.step(state, *case.at(t))
  draw = episodes.make_draw(
    case.config,
    example.example_data(case.config, 1, LAWS[case.name].image_size),
    train=False,
  )
  keys = episodes.eval_keys('test', 0, 60)
  evaluate = train_step.make_eval_step(case.learner)
  score = lambda params: np.mean(evaluate(params, draw(keys), keys)['accuracy'])
  trained, before = score(state.params), score(untrained)
  assert trained > before
  assert trained > 1 / 3 + 0.1


@pytest.mark.parametrize('name', slow_where_stated(NAMES))
def test_strategies_agree_with_a_python_loop(name):
  case = case_of(name)
  params = case.state().params
  run = lambda strategy: jax.jit(
    episode_batching.episode_value_and_grad(
      case.learner.loss, episode_batching.Batching(strategy)
    )
  )(params, case.batch, case.keys, 0)
  trainable, frozen = episode_batching.split_frozen(params)

  @jax.jit
  def one(episode, key):
    loss = lambda t: case.learner.loss({**t, **frozen}, episode, key, 0)[0]
    return jax.value_and_grad(loss)(trainable)

  parts = [
    one(jax.tree.map(lambda leaf: leaf[i], case.batch), case.keys[i])
    for i in range(3)
  ]
  mean = lambda *leaves: sum(leaves) / 3
  value, grads = jax.tree.map(mean, *parts)
  for strategy in ('scan', 'vmap'):
    batched = run(strategy)
    np.testing.assert_allclose(batched[0], value, rtol=1e-5)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    chex.assert_trees_all_close(batched[2], grads, rtol=1e-3, atol=1e-4 * scale)


# The others have these networks, or none of convolutions.
@pytest.mark.parametrize(
  'name', ['protonet', 'maml', 'hypertransformer', 'continual', 'udl', 'vae']
)
def test_learners_are_traced_in_bfloat16_as_on_an_accelerator(
  name, monkeypatch
):
  case = case_of(name)
  params = case.state().params
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')

  def loss(params, episode, key):
    return case.learner.loss(params, episode, key, jnp.int32(0))[0]

  inputs = params, case.episode, case.keys[0]
  for function in (jax.grad(loss, allow_int=True), case.learner.evaluate):
    run = train_step.at_precision(function, 'bfloat16')
    outputs = jax.eval_shape(run, *inputs)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(outputs)}
    assert jnp.bfloat16 not in dtypes, outputs
