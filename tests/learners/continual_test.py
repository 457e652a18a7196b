"""Sequences of tasks: loss, predictions and accuracies, settings refused."""

import jax
import numpy as np
import pytest

from configs import continual as continual_config
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import target_network
from tests.testing import continual as helper
from tests.testing import errors
from tests.testing import laws

WAY, TASKS = helper.WAY, helper.TASKS

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


def test_one_task_is_the_plain_learner_with_prototypes():
  params, _ = helper.built()
  episode = helper.episode_of(tasks=1)
  learner = helper.make(tasks=1)
  plain = hypertransformer.make(helper.network())
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
  params, run = helper.built(scenario=scenario)
  episode = helper.episode_of()
  task, logits, value, metrics, measured = run(params, episode)
  scale = np.exp(params['log_scale'])
  terms, accuracies = [], np.zeros((TASKS, TASKS))
  for t in range(TASKS):
    cnn = jax.tree.map(lambda leaf: leaf[t], task['cnns'])
    for tau in range(t + 1):
      f = np.asarray(
        target_network.embed(helper.network(), cnn, episode.query.x[tau])
      )
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


def test_all_kinds_but_merged_take_more_tasks_than_in_training():
  episode = helper.episode_of(tasks=4)
  params, _ = helper.built()
  learner = helper.make()
  evaluate = lambda p: learner.evaluate(p, episode, jax.random.key(0))
  shapes = jax.eval_shape(evaluate, params)
  assert shapes['matrix_class'].shape == (4, 4)
  merged = helper.make(kind='merged')
  params = jax.eval_shape(merged.init, jax.random.key(0), helper.episode_of())
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
  assert message in errors.refusal(helper.make, **settings)


def test_a_support_of_the_wrong_form_is_refused():
  refusal = lambda learner: errors.refusal(
    learner.init, jax.random.key(0), helper.single(helper.episode_of())
  )
  assert 'set episode.tasks' in refusal(helper.make(tasks=2))
  message = refusal(helper.make(tasks=5, scenario='batches'))
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
