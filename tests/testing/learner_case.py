"""A learner with tiny sizes, its episodes and programs, for the laws."""

import functools
import importlib

import jax
import pytest

from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.data import episodes
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import example
from tests.testing import laws
from tests.testing import tiny_sizes

NAMES = learners.names()
LAWS = {**dict.fromkeys(NAMES, laws.Laws()), **laws.read()}


def tiny_config(name):
  """The config of a learner with tiny sizes."""
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config().unlock()
  config.batch = 3
  config.steps = LAWS[name].steps
  config.episode.way = 3
  config.episode.shot = 2
  config.episode.query = 3
  config.episode.tasks = LAWS[name].tasks
  config.episode.unlabelled = min(config.episode.unlabelled, 5)
  config.data.augment = 'none'
  config.learner.update(tiny_sizes.TINY[name])
  config.optimizer.learning_rate = LAWS[name].learning_rate
  config.optimizer.schedule = 'constant'
  config_lib.validate(config)
  return config


class Case:
  """A learner with tiny sizes, a batch of its episodes and one program."""

  def __init__(self, name):
    config = tiny_config(name)
    self.name, self.config = name, config
    self.learner = learners.make(name, 3, config_lib.learner_settings(config))
    data = example.example_data(config, 0, LAWS[name].image_size)
    self.draw = episodes.make_draw(config, data, train=True)
    self.batch, self.keys = self.at(0)
    self.episode = jax.tree.map(lambda leaf: leaf[0], self.batch)
    self.optimizer = optimizers.make_optimizer(config.optimizer, config.steps)
    self.traces = 0

    def counted(*args):
      self.traces += 1
      return self.learner.loss(*args)

    self.step = train_step.make_train_step(
      self.learner._replace(loss=counted), self.optimizer
    )
    self.adapt = jax.jit(functools.partial(self.learner.adapt, train=True))
    self.predict = jax.jit(self.learner.predict)
    self.evaluate = jax.jit(self.evaluate_and_predict)

  def at(self, step):
    keys = episodes.train_keys(0, step, 3)
    return self.draw(keys), keys

  def state(self):
    return train_step.init_state(
      self.learner, self.optimizer, jax.random.key(0), self.episode
    )

  def logits(self, params, episode, key):
    task = self.adapt(params, episode.support, key)
    query = episode.query
    return self.predict(params, task, query.x, query.context)

  def evaluate_and_predict(self, params, episode, key):
    """The metrics of `evaluate`, and probabilities by adapt and predict."""
    metrics = self.learner.evaluate(params, episode, key)
    task = self.learner.adapt(params, episode.support, key, train=False)
    query = episode.query
    logits = self.learner.predict(params, task, query.x, query.context)
    return metrics, jax.nn.softmax(logits, axis=-1)


@functools.cache
def case_of(name):
  return Case(name)


def slow_where_stated(names, always=()):
  """Parameters for names, those that state `Laws.slow` as slow tests."""
  is_slow = lambda name: LAWS[name].slow and name not in always
  return [
    pytest.param(name, marks=[pytest.mark.slow] if is_slow(name) else [])
    for name in names
  ]
