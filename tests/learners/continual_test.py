"""Sequences of tasks: generated networks, stored prototypes, metrics.

Tests `continual`, `continual_rollout` and `continual_metrics`.

Guards: learners/hypertransformer/continual_rollout.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import continual as continual_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import continual_metrics
from hyperudl.learners.hypertransformer import target_network
from hyperudl.learners.hypertransformer import weight_generator
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'continual': laws.Laws(
    unjudged='it reports matrices of tasks, see the tests of this file',
    slow='compiling and training it takes too long for every run',
    tasks=2,
    learning_rate=0.005,
    steps=300,
    reason='it learns sequences of tasks, with the steps of hypertransformer',
  )
}

WAY, TASKS = 2, 3
TINY = {
  'channels': 3,
  'depth': 2,
  'features': 3,
  'shared': '2-layer',
  'shared_dim': 3,
  'embedding': 4,
  'layers': 1,
}


def episode_of(tasks=TASKS, seed=0, shot=2):
  rng = np.random.default_rng(seed)
  draw = lambda rows: jnp.asarray(
    rng.uniform(size=(tasks, rows, 10, 10, 1)), jnp.float32
  )
  labels = lambda each: jnp.tile(jnp.repeat(jnp.arange(WAY), each), (tasks, 1))
  return core.Episode(
    core.Examples(draw(WAY * shot), labels(shot)),
    core.Examples(draw(2 * WAY), labels(2)),
  )


def make(tasks=TASKS, **settings):
  settings = {**TINY, 'tasks': tasks, **settings}
  return learners.make('continual', WAY, settings)


def network(**settings):
  """The config of the HyperTransformer behind the learner."""
  return hypertransformer.Config(
    way=WAY,
    **{**TINY, 'norm': 'layer', 'head': 'prototypes', 'logits_scale': 0.1},
    **settings,
  )


@functools.cache
def built(**settings):
  """(learner, random parameters, jitted adapt, predict, loss and evaluate)."""
  learner = make(**settings)
  episode = episode_of()
  if settings.get('scenario') == 'batches':
    episode = single(episode)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )
  params['log_scale'] = jnp.float32(-3.0)

  @jax.jit
  def run(params, episode):
    key = jax.random.key(1)
    task = learner.adapt(params, episode.support, key, train=False)
    logits = learner.predict(params, task, episode.query.x, None)
    value, metrics = learner.loss(params, episode, key, 0)
    return task, logits, value, metrics, learner.evaluate(params, episode, key)

  return params, run


def single(episode):
  """The support of a sequence as that of one task, class by class."""
  support = episode.support
  order = lambda leaf: jnp.concatenate(
    [leaf[:, c * 2 : c * 2 + 2].reshape(-1, *leaf.shape[2:]) for c in (0, 1)]
  )
  query = jax.tree.map(lambda leaf: leaf[0], episode.query)
  return core.Episode(core.Examples(order(support.x), order(support.y)), query)


def replace_support(episode, at):
  """The sequence with other support images of the task `at`."""
  x = episode.support.x
  x = x.at[at].set(1 - x[at])
  return episode._replace(support=episode.support._replace(x=x))


def changed(one, other):
  """bool[T]: whether the CNN of each step differs."""
  gap = np.zeros(TASKS)
  for a, b in zip(jax.tree.leaves(one['cnns']), jax.tree.leaves(other['cnns'])):
    gap += np.abs(a - b).reshape(TASKS, -1).max(axis=1)
  return (gap > 1e-5).tolist()


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('continual', [False, True, True]),
    ('reset', [False, True, False]),
    ('constant', [False, False, False]),
    ('merged', [False, True, True]),
  ],
)
def test_a_task_changes_the_networks_from_then_on(kind, expected):
  params, run = built(kind=kind)
  episode = episode_of()
  here = run(params, episode)[0]
  there = run(params, replace_support(episode, 1))[0]
  assert changed(here, there) == expected
  prototypes = np.abs(here['prototypes'] - there['prototypes'])
  if kind == 'merged':
    assert prototypes[0][[0, 2]].max() < 1e-5 < prototypes[1, 0].max()
  else:
    # Computed at their task, and stored.
    assert prototypes[:, 0].max() < 1e-5 < prototypes[:, 1].max()
    later = prototypes[:, 2].max() > 1e-5
    assert later == (kind == 'continual')


def test_generated_changes_are_added_to_the_previous_network():
  params, run = built(change=0.2)
  episode = episode_of()
  cnns = run(params, episode)[0]['cnns']
  # Block 0 as it is now, so that block 1 is generated behind that one.
  second = network(trained_layers=1)
  key = jax.random.key(0)

  @jax.jit
  def generate(part, before, now):
    conditioning = weight_generator.Conditioning(before)
    first = weight_generator.generate(
      network(), params, part, key, False, conditioning
    )
    learned = {**params, 'net': {**params['net'], 'block0': now['block0']}}
    then = weight_generator.generate(
      second, learned, part, key, False, conditioning
    )
    return {'block0': first['block0'], 'block1': then['block1']}

  at = lambda t: jax.tree.map(lambda leaf: leaf[t], cnns)
  parts = lambda t: jax.tree.map(lambda leaf: leaf[t], episode.support)
  start = jax.tree.map(jnp.zeros_like, at(0))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  for t, before in ((0, start), (1, at(0)), (2, at(1))):
    generated = generate(parts(t), before, at(t))
    for name, layer in at(t).items():
      kernel = generated[name]['kernel']
      wanted = kernel if t == 0 else before[name]['kernel'] + 0.2 * kernel
      close(layer['kernel'], wanted)
      # Learned parameters stay as they are.
      for leaf, value in params['net'].get(name, {}).items():
        close(layer[leaf], value)
  assert any('scale' in layer for layer in params['net'].values())


def test_one_task_is_the_plain_learner_with_prototypes():
  params, _ = built()
  episode = episode_of(tasks=1)
  learner = make(tasks=1)
  plain = hypertransformer.make(network())
  key = jax.random.key(0)
  first = jax.tree.map(lambda leaf: leaf[0], episode)

  @jax.jit
  def both(params):
    task = learner.adapt(params, episode.support, key, train=False)
    alone = plain.adapt(params, first.support, key, train=False)
    return (
      learner.predict(params, task, episode.query.x, None)[0],
      plain.predict(params, alone, first.query.x, None),
      learner.loss(params, episode, key, 0)[0],
      plain.loss(params, first, key, 0)[0],
    )

  logits, plain_logits, value, wanted = both(params)
  np.testing.assert_allclose(logits, plain_logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(value, wanted, rtol=1e-4)
  names = lambda init, e: jax.tree.structure(jax.eval_shape(init, key, e))
  assert names(learner.init, episode) == names(plain.init, first)


@pytest.mark.parametrize(
  'scenario', ['class', pytest.param('task', marks=pytest.mark.slow)]
)
def test_loss_and_predictions_equal_a_loop(scenario):
  params, run = built(scenario=scenario)
  episode = episode_of()
  task, logits, value, metrics, measured = run(params, episode)
  scale = np.exp(params['log_scale'])
  terms, accuracies = [], np.zeros((TASKS, TASKS))
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    for tau in range(t + 1):
      f = np.asarray(target_network.embed(network(), cnn, episode.query.x[tau]))
      classes_of = [tau] if scenario == 'task' else range(t + 1)
      c = np.concatenate(
        [np.asarray(task['prototypes'])[t, k] for k in classes_of]
      )
      expected = -scale * np.square(f[:, None] - c).sum(-1)
      target = np.asarray(episode.query.y[tau])
      target = target + (0 if scenario == 'task' else WAY * tau)
      log_p = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
      terms.append(-log_p[np.arange(len(target)), target].mean())
      accuracies[t, tau] = (expected.argmax(-1) == target).mean()
      if t == TASKS - 1 and scenario == 'class':
        np.testing.assert_allclose(logits[tau], expected, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-3)
  matrix = np.asarray(measured[f'matrix_{scenario}'])
  np.testing.assert_allclose(matrix, accuracies, atol=1e-6)
  np.testing.assert_allclose(
    measured[f'accuracy_{scenario}'], accuracies[-1].mean(), rtol=1e-5
  )
  assert metrics['accuracy'] == measured[f'accuracy_{scenario}']
  assert measured['accuracy'] == measured[f'accuracy_{scenario}']


def test_the_summary_of_a_matrix_by_hand():
  matrix = jnp.array(
    [[0.9, 0.7, 0.7], [0.8, 0.6, 0.7], [0.5, 0.7, 0.4]], jnp.float32
  )
  metrics = continual_metrics.summarize('class', matrix)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  near(metrics['accuracy_class'], (0.5 + 0.7 + 0.4) / 3)
  near(metrics['accuracy_class_when_met'], (0.9 + 0.6 + 0.4) / 3)
  # Entries above the diagonal were measured before the task was met.
  near(metrics['forgetting_class'], ((0.9 - 0.5) + (0.6 - 0.7)) / 2)
  near(metrics['backward_transfer_class'], ((0.5 - 0.9) + (0.7 - 0.6)) / 2)
  near(metrics['matrix_class'][0], [0.9, 0, 0])
  assert 'forgetting_class' not in continual_metrics.summarize(
    'class', matrix[:1, :1]
  )


def test_parts_of_one_task_are_met_one_after_another():
  params, run = built(scenario='batches')
  episode = single(episode_of())
  task, logits, _, metrics, measured = run(params, episode)
  sums = 0.0
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    # Two rows a class and part: class c holds rows c * 6 .. c * 6 + 5.
    rows = [episode.support.x[c * 6 + t : c * 6 + 6 : 3] for c in (0, 1)]
    means = [target_network.embed(network(), cnn, x).mean(axis=0) for x in rows]
    sums = sums + np.stack(means)
    np.testing.assert_allclose(
      task['prototypes'][t, t], sums / (t + 1), rtol=1e-3, atol=1e-4
    )
  assert logits.shape == (2 * WAY, WAY)
  accuracy = np.mean(np.argmax(logits, -1) == np.asarray(episode.query.y))
  assert measured['accuracy'] == metrics['accuracy'] == np.float32(accuracy)
  assert measured[f'accuracy_part_{TASKS}'] == measured['accuracy']


def test_all_kinds_but_merged_take_more_tasks_than_in_training():
  episode = episode_of(tasks=4)
  params, _ = built()
  learner = make()
  evaluate = lambda p: learner.evaluate(p, episode, jax.random.key(0))
  shapes = jax.eval_shape(evaluate, params)
  assert shapes['matrix_class'].shape == (4, 4)
  merged = make(kind='merged')
  params = jax.eval_shape(merged.init, jax.random.key(0), episode_of())
  evaluate = lambda p: merged.evaluate(p, episode, jax.random.key(0))
  message = errors.refusal(jax.eval_shape, evaluate, params)
  assert 'cannot meet more' in message


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'kind': 'forever'}, 'continual, reset, constant, merged'),
    ({'scenario': 'domain'}, 'class, task, batches'),
    ({'tasks': 0}, 'tasks = 0 is below its minimum 1'),
    (
      {'kind': 'merged', 'scenario': 'batches'},
      "scenario='batches' needs another kind than 'merged'",
    ),
    ({'kind': 'merged', 'norm': 'batch'}, 'later tasks'),
    ({'change': -0.1}, 'change = -0.1 is below its minimum 0'),
    ({'change': 0.1, 'kind': 'reset'}, "not kind='reset'"),
    ({'label_smoothing': 0.1}, "no hyperparameter 'label_smoothing'"),
    ({'logits_features': 'mix'}, "needs head='written'"),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(make, **settings)


def test_a_support_of_the_wrong_form_is_refused():
  refusal = lambda learner: errors.refusal(
    learner.init, jax.random.key(0), single(episode_of())
  )
  assert 'set episode.tasks' in refusal(make(tasks=2))
  message = refusal(make(tasks=5, scenario='batches'))
  assert 'multiples of 5, or the 12 rows' in message


@pytest.mark.parametrize('arg', [None, 'omniglot,way=4', 'tasks=3,shot=2'])
def test_configs_are_valid(arg):
  config = continual_config.get_config(arg)
  config_lib.validate(config)
  learners.check_run(config)
  settings = config_lib.learner_settings(config)
  learners.make('continual', config.episode.way, settings)
  assert config.episode.tasks == (3 if 'tasks' in (arg or '') else 5)
  assert config.learner.tasks == config.episode.tasks
