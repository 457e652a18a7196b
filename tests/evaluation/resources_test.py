"""Evaluations of one process share data, checkpoints and compiled programs."""

import jax
import numpy as np
import pytest

from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.evaluation import evaluator
from hyperudl.evaluation import resources as resources_lib
from hyperudl.evaluation import runner
from hyperudl.training import setup
from tests.testing import runs
from tests.testing import tiny_sizes

COUNT = 6


def tiny_run(name):
  config = config_lib.base().unlock()
  config.data.dataset, config.data.dir = 'tiny', str(runs.data_dir())
  settings = learners.hyperparameters(name) | tiny_sizes.TINY[name]
  config.learner = {'name': name, **settings}
  config.episode.update({'way': 3, 'query': 2, 'unlabelled': 2})
  config.eval.batch = 3
  return config


def evaluated(config, split, resources, params=None):
  one = evaluator.Evaluator(config, split, COUNT, resources)
  if params is None:
    zeros = lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype)
    params = jax.tree.map(zeros, one.param_shapes())
  return one.run(params)


@pytest.fixture
def traced(monkeypatch):
  """The names of learners, once for each time one's evaluation is traced."""
  traces, make_learner = [], setup.make_learner

  def counting(config):
    learner = make_learner(config)

    def evaluate(*args):
      traces.append(config.learner.name)
      return learner.evaluate(*args)

    return learner._replace(evaluate=evaluate)

  monkeypatch.setattr(setup, 'make_learner', counting)
  return traces


DATA = (
  {},
  {'data.shift': 'shear'},
  {'data.shift': 'phase2', 'episode.proportions': 'dirichlet'},
  {'episode.unlabelled_classes': 'other', 'eval.episodes': '5'},
)


@pytest.mark.parametrize(
  'name', ['protonet', pytest.param('udl', marks=pytest.mark.slow)]
)
def test_overrides_of_the_data_compile_the_evaluation_once(name, traced):
  config, resources = tiny_run(name), resources_lib.Resources()
  results = []
  for changes in DATA:
    changed, _ = runner.override(config, changes, {'tag': 'a'})
    results.append(evaluated(changed, 'test', resources))
  results.append(evaluated(config, 'valid', resources))
  assert traced == [name]
  accuracies = {result['nll'].tobytes() for result in results}
  assert len(accuracies) == len(DATA) + 1  # none is the result of another
  again = evaluated(changed, 'test', resources_lib.Resources())
  assert traced == [name, name]
  for number, array in again.items():
    np.testing.assert_array_equal(array, results[len(DATA) - 1][number])


def test_other_hyperparameters_and_shapes_are_compiled_apart(traced):
  config, resources = tiny_run('protonet'), resources_lib.Resources()
  for changes in ({}, {'learner.scale': '3.0'}, {'episode.unlabelled': '1'}):
    changed, _ = runner.override(config, changes, {'tag': 'a'})
    evaluated(changed, 'test', resources)
  assert traced == ['protonet'] * 3


def test_images_are_loaded_once_for_each_split_and_choice_of_classes(
  monkeypatch,
):
  loaded, load = [], setup.load_data

  def counting(config, split):
    loaded.append(split)
    return load(config, split)

  monkeypatch.setattr(setup, 'load_data', counting)
  config, resources = tiny_run('udl'), resources_lib.Resources()
  changed, _ = runner.override(
    config, {'data.shift': 'blur', 'episode.emit_from': 'other'}, {'tag': 'a'}
  )
  for each, split in ((config, 'test'), (changed, 'test'), (config, 'train')):
    resources.draw(each, split)
  assert loaded == ['test', 'train']
  fewer, _ = runner.override(config, {'data.classes': '4'}, {'tag': 'a'})
  resources.draw(fewer, 'train')
  assert loaded == ['test', 'train', 'train']


def test_a_checkpoint_is_read_once(monkeypatch):
  resources, workdir = resources_lib.Resources(), runs.finished_run()
  first = resources.checkpoint(workdir, 'latest')
  assert first.step == runs.STEPS
  assert resources.checkpoint(workdir, 'latest') is first
