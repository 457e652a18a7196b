"""A network trained on episodes of any size is evaluated at fixed sizes.

Guards: core/episode_rules.py, data/episodes/varying.py.
"""

import importlib

import jax
import numpy as np
import pytest

from hyperudl.core import config as config_lib
from hyperudl.evaluation import evaluator
from hyperudl.evaluation import runner
from hyperudl.training import setup
from hyperudl.training import train_step
from tests.testing import errors
from tests.testing import runs


def config_of(name, **changes):
  config = importlib.import_module(f'configs.{name}').get_config().unlock()
  config.data.update(dir=str(runs.data_dir()), dataset='tiny', augment='none')
  config.update(steps=2, batch=2)
  config.episode.update(query=2, way_range=(2, 6), shot_range=(1, 3))
  config.episode.way = 3
  config.learner.channels = (4, 4)
  config.eval.update(episodes=4, batch=4)
  for field, text in changes.items():
    config_lib.set_field(config, field, text)
  return config.lock()


def test_one_network_serves_any_number_of_classes():
  config = config_of('protonet')
  parts = setup.prepare(config)
  state = setup.initial_state(config, parts)
  step = train_step.make_train_step(parts.learner, parts.optimizer)
  for t in range(2):
    keys = jax.random.split(jax.random.key(t), 2)
    state, metrics = step(state, parts.draw(keys), keys)
    assert metrics['finite'] == 1
  assert step._cache_size() == 1
  for way, shot in ((2, 3), (6, 1)):
    fixed, tag = runner.override(config, {}, {'way': way, 'shot': shot})
    assert tag == f'{way}way-{shot}shot'
    values = evaluator.Evaluator(fixed, 'test', 4).run(state.params)
    p = values['probabilities']
    assert p.shape == (4, 2 * way, 6)  # six label slots
    assert (p[..., way:] == 0).all()
    np.testing.assert_allclose(p[..., :way].sum(-1), 1, atol=1e-5)
    labels = np.sort(values['y'], axis=1)
    assert (labels == np.repeat(range(way), 2)).all()


def test_a_run_that_cannot_vary_is_refused_before_anything_is_made():
  message = errors.refusal(setup.check, config_of('maml'))
  assert message == (
    'config.episode.way_range and .shot_range are for caml and '
    "hypertransformer and protonet and udl, not for 'maml': leave both empty"
  )
  config = config_of('protonet', **{'episode.way_range': '2,13'})
  message = errors.refusal(setup.prepare, config)
  assert message.startswith(
    'the training set: episode.way_range=(2, 13) takes 13 classes, there are 12'
  )


@pytest.mark.parametrize(
  'encoding', ['learned', pytest.param('random_table', marks=pytest.mark.slow)]
)
def test_parameters_of_udl_have_one_shape_for_all_ways(encoding):
  changes = {'learner.label_encoding': encoding, 'learner.phase': 'base'}
  config = config_of('udl', **changes, **{'learner.trunk': '4'})
  shapes = lambda config: evaluator.Evaluator(config, 'test', 4).param_shapes()
  with_ranges = [
    shapes(runner.override(config, {}, {'way': way})[0]) for way in (2, 6)
  ]
  assert with_ranges[0] == with_ranges[1]
  fixed = config_of(
    'udl',
    **{**changes, 'learner.trunk': '4'},
    **{'episode.way_range': '', 'episode.shot_range': ''},
  )
  others = [
    shapes(runner.override(fixed, {}, {'way': way})[0]) for way in (2, 6)
  ]
  assert (others[0] == others[1]) == (encoding == 'random_table')
