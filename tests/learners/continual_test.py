"""Sequences of tasks: what is written from what, stored, and measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import continual as continual_config
from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.learners import continual
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import continual_metrics
from hyperudl.learners.hypertransformer import episode_network

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


@functools.cache
def built(**settings):
  """(learner, random parameters, jitted adapt, predict, loss and evaluate)."""
  settings = {'tasks': TASKS, **TINY, **settings}
  learner = continual.make(WAY, **settings)
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


def other_support(episode, at):
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
  there = run(params, other_support(episode, 1))[0]
  assert changed(here, there) == expected
  prototypes = np.abs(here['prototypes'] - there['prototypes'])
  if kind == 'merged':
    assert prototypes[0][[0, 2]].max() < 1e-5 < prototypes[1, 0].max()
  else:
    # Made when their task is seen, and kept.
    assert prototypes[:, 0].max() < 1e-5 < prototypes[:, 1].max()
    later = prototypes[:, 2].max() > 1e-5
    assert later == (kind == 'continual')


def test_changes_are_added_to_what_was_written_before():
  params, run = built(change=0.2)
  episode = episode_of()
  cnns = run(params, episode)[0]['cnns']
  settings = {**TINY, 'norm': 'layer', 'head': 'prototypes'}
  settings['logits_scale'] = 0.1
  whole = hypertransformer.settings_of(WAY, **settings)
  # Block 0 as it is now, so that block 1 is written behind that one.
  second = hypertransformer.settings_of(WAY, trained_layers=1, **settings)
  key = jax.random.key(0)

  @jax.jit
  def write(part, before, now):
    first = episode_network.write(
      whole, params, part, key, False, previous=before
    )
    known = {**params, 'net': {**params['net'], 'block0': now['block0']}}
    then = episode_network.write(
      second, known, part, key, False, previous=before
    )
    return {'block0': first['block0'], 'block1': then['block1']}

  at = lambda t: jax.tree.map(lambda leaf: leaf[t], cnns)
  parts = lambda t: jax.tree.map(lambda leaf: leaf[t], episode.support)
  start = jax.tree.map(jnp.zeros_like, at(0))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  for t, before in ((0, start), (1, at(0)), (2, at(1))):
    written = write(parts(t), before, at(t))
    for name, layer in at(t).items():
      kernel = written[name]['kernel']
      wanted = kernel if t == 0 else before[name]['kernel'] + 0.2 * kernel
      close(layer['kernel'], wanted)
      # What is learned stays as it is.
      for leaf, value in params['net'].get(name, {}).items():
        close(layer[leaf], value)
  assert any('scale' in layer for layer in params['net'].values())


def test_one_task_is_the_plain_learner_with_prototypes():
  params, _ = built()
  episode = episode_of(tasks=1)
  learner = continual.make(WAY, tasks=1, **TINY)
  plain = hypertransformer.make(
    WAY, norm='layer', head='prototypes', logits_scale=0.1, **TINY
  )
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

  ours, theirs, value, wanted = both(params)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(value, wanted, rtol=1e-4)
  names = lambda init, e: jax.tree.structure(jax.eval_shape(init, key, e))
  assert names(learner.init, episode) == names(plain.init, first)


@pytest.mark.parametrize(
  'scenario', ['class', pytest.param('task', marks=pytest.mark.slow)]
)
def test_loss_and_answers_are_those_of_a_loop(scenario):
  params, run = built(scenario=scenario)
  episode = episode_of()
  task, logits, value, metrics, measured = run(params, episode)
  s = hypertransformer.settings_of(
    WAY, norm='layer', head='prototypes', logits_scale=0.1, **TINY
  )
  scale = np.exp(params['log_scale'])
  terms, right = [], np.zeros((TASKS, TASKS))
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    for tau in range(t + 1):
      f = np.asarray(episode_network.embed(s, cnn, episode.query.x[tau]))
      known = [tau] if scenario == 'task' else range(t + 1)
      c = np.concatenate([np.asarray(task['prototypes'])[t, k] for k in known])
      answers = -scale * np.square(f[:, None] - c).sum(-1)
      target = np.asarray(episode.query.y[tau])
      target = target + (0 if scenario == 'task' else WAY * tau)
      log_p = answers - np.log(np.exp(answers).sum(-1, keepdims=True))
      terms.append(-log_p[np.arange(len(target)), target].mean())
      right[t, tau] = (answers.argmax(-1) == target).mean()
      if t == TASKS - 1 and scenario == 'class':
        np.testing.assert_allclose(logits[tau], answers, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(value, np.mean(terms), rtol=1e-3)
  found = np.asarray(measured[f'matrix_{scenario}'])
  np.testing.assert_allclose(found, right, atol=1e-6)
  np.testing.assert_allclose(
    measured[f'accuracy_{scenario}'], right[-1].mean(), rtol=1e-5
  )
  assert metrics['accuracy'] == measured[f'accuracy_{scenario}']
  assert measured['accuracy'] == measured[f'accuracy_{scenario}']


def test_what_a_matrix_says_by_hand():
  matrix = jnp.array(
    [[0.9, 0.7, 0.7], [0.8, 0.6, 0.7], [0.5, 0.7, 0.4]], jnp.float32
  )
  found = continual_metrics.summary('class', matrix)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  near(found['accuracy_class'], (0.5 + 0.7 + 0.4) / 3)
  near(found['accuracy_class_when_met'], (0.9 + 0.6 + 0.4) / 3)
  # What stands above the diagonal was measured before the task was met.
  near(found['forgetting_class'], ((0.9 - 0.5) + (0.6 - 0.7)) / 2)
  near(found['backward_transfer_class'], ((0.5 - 0.9) + (0.7 - 0.6)) / 2)
  near(found['matrix_class'][0], [0.9, 0, 0])
  assert 'forgetting_class' not in continual_metrics.summary(
    'class', matrix[:1, :1]
  )


def test_parts_of_one_task_are_met_one_after_another():
  params, run = built(scenario='batches')
  episode = single(episode_of())
  task, logits, _, metrics, measured = run(params, episode)
  s = hypertransformer.settings_of(
    WAY, norm='layer', head='prototypes', logits_scale=0.1, **TINY
  )
  sums = 0.0
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    # Two rows a class and part: class c holds rows c * 6 .. c * 6 + 5.
    rows = [episode.support.x[c * 6 + t : c * 6 + 6 : 3] for c in (0, 1)]
    means = [episode_network.embed(s, cnn, x).mean(axis=0) for x in rows]
    sums = sums + np.stack(means)
    np.testing.assert_allclose(
      task['prototypes'][t, t], sums / (t + 1), rtol=1e-3, atol=1e-4
    )
  assert logits.shape == (2 * WAY, WAY)
  right = np.mean(np.argmax(logits, -1) == np.asarray(episode.query.y))
  assert measured['accuracy'] == metrics['accuracy'] == np.float32(right)
  assert measured[f'accuracy_part_{TASKS}'] == measured['accuracy']


def test_more_tasks_than_in_training_but_for_the_merged_one():
  episode = episode_of(tasks=4)
  params, _ = built()
  learner = continual.make(WAY, tasks=TASKS, **TINY)
  evaluate = lambda p: learner.evaluate(p, episode, jax.random.key(0))
  shapes = jax.eval_shape(evaluate, params)
  assert shapes['matrix_class'].shape == (4, 4)
  merged = continual.make(WAY, kind='merged', tasks=TASKS, **TINY)
  with pytest.raises(core.BadInput, match='cannot meet more'):
    params = jax.eval_shape(merged.init, jax.random.key(0), episode_of())
    jax.eval_shape(
      lambda p: merged.evaluate(p, episode, jax.random.key(0)), params
    )


@pytest.mark.parametrize(
  'settings, error, message',
  [
    ({'kind': 'forever'}, core.BadInput, 'continual, reset, constant, merged'),
    ({'scenario': 'domain'}, core.BadInput, 'class, task, batches'),
    ({'tasks': 0}, core.BadInput, 'tasks=0'),
    (
      {'kind': 'merged', 'scenario': 'batches'},
      core.BadInput,
      "needs tasks, not scenario='batches'",
    ),
    ({'kind': 'merged', 'norm': 'batch'}, core.BadInput, 'later tasks'),
    ({'change': -0.1}, core.BadInput, r'change=-0\.1 must be at least 0'),
    ({'change': 0.1, 'kind': 'reset'}, core.BadInput, "not kind='reset'"),
    ({'label_smoothing': 0.1}, TypeError, 'no label_smoothing'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, error, message):
  with pytest.raises(error, match=message):
    continual.make(WAY, **{**TINY, **settings})


def test_a_support_of_the_wrong_form_is_refused():
  learner = continual.make(WAY, tasks=2, **TINY)
  with pytest.raises(core.BadInput, match=r'set episode\.tasks'):
    learner.init(jax.random.key(0), single(episode_of()))
  learner = continual.make(WAY, tasks=5, scenario='batches', **TINY)
  with pytest.raises(core.BadInput, match='multiples of 5, or the 12 rows'):
    learner.init(jax.random.key(0), single(episode_of()))


@pytest.mark.parametrize('arg', [None, 'omniglot,way=4', 'tasks=3,shot=2'])
def test_configs_are_valid(arg):
  config = continual_config.get_config(arg)
  config_lib.validate(config)
  settings = config_lib.learner_settings(config)
  continual.make(config.episode.way, **settings)
  assert config.episode.tasks == (3 if 'tasks' in (arg or '') else 5)
  assert config.learner.tasks == config.episode.tasks
  assert continual_config.NOT_HERE == continual.NOT_HERE
