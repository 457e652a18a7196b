"""Schedules hold at any number of outer steps, and published presets do too."""

import importlib
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from configs import maml as maml_config
from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.learners import bayeshmaml
from hyperudl.learners import hypermaml
from hyperudl.learners import maml
from hyperudl.storage import checkpoints
from hyperudl.training import optimizers

STEPS = (50, 1_000, 10_000)
FILES = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parents[2] / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common')
)
LANGUAGE = ('contrastive', 'hypernet', 'hvae', 'hyperclip', 'hyperldm')
FIRST_WORDS = {
  'maml': tuple(maml_config.METHODS),
  'hypermaml': ('', 'published'),
  'bayeshmaml': ('', 'published'),
  'hypertransformer': ('', 'reference'),
  'continual': ('', 'reference'),
  'udl': ('base', 'inner', 'joint'),
}
PRESETS = [
  (name, word) for name in FILES for word in FIRST_WORDS.get(name, ('',))
]
# `commands.sh` of https://github.com/gmum/few-shot-hypernets-public: 2,048
# epochs of 3 updates (characters) or 4,000 of 25 (natural images), milestones
# at 51 and 550, or 101 and 1,100.
CHARACTERS = {
  'steps': 2_048 * 3,
  'batch': 32,
  'episode.query': 16,
  'data.augment': 'none',
  'optimizer.name': 'adam',
  'optimizer.learning_rate': 1e-2,
  'optimizer.schedule': 'milestones',
  'optimizer.milestones': (51 / 2_048, 550 / 2_048),
  'optimizer.decay_rate': 0.3,
  'optimizer.clip': 0.0,
  'learner.channels': (64,) * 4,
  'learner.norm': 'batch',
  'learner.hidden': 512,
  'learner.layers': 3,
  'learner.enhance': True,
  'learner.labels': 'index',
  'learner.aggregation': 'concat',
  'learner.update': 'minus',
  'learner.delta_weight': 0.0,
  'learner.warmup_steps': 50 * 3,
  'learner.switch_steps': 500 * 3,
  'learner.inner_steps': 1,
  'learner.inner_rate': 0.1,
  'eval.select_after': 550 * 3,
}
NATURAL = CHARACTERS | {
  'steps': 4_000 * 25,
  'batch': 4,
  'data.augment': 'images',
  'optimizer.learning_rate': 1e-3,
  'optimizer.milestones': (101 / 4_000, 1_100 / 4_000),
  'learner.hidden': 256,
  'learner.warmup_steps': 100 * 25,
  'learner.switch_steps': 1_000 * 25,
  'learner.inner_steps': 5,
  'learner.inner_rate': 0.01,
  'eval.select_after': 1_100 * 25,
}
SEVERAL_SHOTS = {'learner.aggregation': 'mean'}
POSTERIOR = {
  'learner.samples': 5,
  'learner.test_samples': 0,
  'learner.average': 'logits',
  'learner.kl_start': 1e-24,
  'learner.kl_inner': True,
}
# https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch: 100 epochs of
# 500 updates, a multi-step loss in 10 (characters) or 15 of them.
MAMLPP = {
  'steps': 100 * 500,
  'batch': 8,
  'episode.query': 1,
  'optimizer.name': 'adam',
  'optimizer.learning_rate': 1e-3,
  'optimizer.schedule': 'cosine',
  'optimizer.end_factor': 1e-5 / 1e-3,
  'optimizer.clip': 0.0,
  'learner.channels': (64,) * 4,
  'learner.norm': 'batch',
  'learner.scope': 'all',
  'learner.inner_steps': 5,
  'learner.test_steps': 0,
  'learner.inner_rate': 0.1,
  'learner.rates': 'leaf',
  'learner.first_order': False,
  'learner.order_steps': 0,
  'learner.multi_step': 10 * 500,
  'learner.step_norms': True,
  'eval.keep_best': 5,
  'eval.episodes': 600,
}
MAMLPP_NATURAL = MAMLPP | {
  'batch': 2,
  'episode.query': 15,
  'optimizer.schedule': 'constant',
  'optimizer.clip': 10.0,
  'optimizer.clip_by': 'value',
  'learner.channels': (48,) * 4,
  'learner.multi_step': 15 * 500,
}
PUBLISHED = [
  ('hypermaml', 'omniglot,way=5,shot=1', CHARACTERS),
  ('hypermaml', 'omniglot,way=5,shot=5', CHARACTERS | SEVERAL_SHOTS),
  ('hypermaml', 'cub,way=5,shot=1', NATURAL),
  ('hypermaml', 'miniimagenet,way=5,shot=5', NATURAL | SEVERAL_SHOTS),
  (
    'bayeshmaml',
    'omniglot,way=5,shot=1',
    CHARACTERS
    | POSTERIOR
    | {'learner.kl_stop': 1e-3, 'learner.kl_steps': 6_144},
  ),
  (
    'bayeshmaml',
    'cub,way=5,shot=1',
    NATURAL
    | POSTERIOR
    | {'learner.kl_stop': 1e-4, 'learner.kl_steps': 100_000}
    | {'optimizer.learning_rate': 1e-2},
  ),
  (
    'bayeshmaml',
    'miniimagenet,way=5,shot=1',
    NATURAL | POSTERIOR | {'learner.kl_stop': 1e-4},
  ),
  (
    'bayeshmaml',
    'cub,way=5,shot=5',
    NATURAL | POSTERIOR | SEVERAL_SHOTS | {'learner.kl_stop': 1e-5},
  ),
  ('maml', 'omniglot,way=20,shot=1', MAMLPP),
  ('maml', 'miniimagenet,way=5,shot=1', MAMLPP_NATURAL),
]


def preset(name, *words):
  arg = ','.join(word for word in words if word)
  return importlib.import_module(f'configs.{name}').get_config(arg)


def check(config):
  config_lib.validate(config)
  learners.check_run(config)
  return learners.make(
    config.learner.name,
    config.episode.way,
    config_lib.learner_settings(config),
  )


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('name, word', PRESETS, ids=str)
def test_every_preset_runs_at_any_number_of_steps(name, word, steps):
  config = preset(name, word, '' if name in LANGUAGE else 'glyphs')
  with config.unlocked():
    config.steps = steps  # as on the command line, after the preset
  check(config)
  schedule = optimizers.make_schedule(config.optimizer, steps)
  assert config.optimizer.warmup_steps < steps
  assert 0 < float(schedule(steps - 1)) <= config.optimizer.learning_rate
  # The last step is always saved, so there is a checkpoint to select.
  policy = checkpoints.Policy.from_config(config)
  assert policy.select_after <= steps and policy.is_due(steps)


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('word', ['', 'published'])
@pytest.mark.parametrize('module', [hypermaml, bayeshmaml])
def test_what_is_selected_was_trained_without_gradient_steps(
  module, word, steps
):
  name = module.__name__.rpartition('.')[2]
  config = preset(name, word, 'omniglot', f'steps={steps}')
  settings = module.Config(way=5, **config_lib.learner_settings(config))
  share = lambda step: float(module.gradient_fraction(settings, step))
  assert share(0) > 0.5
  assert share(config.eval.select_after) == 0 == share(steps - 1)
  assert steps - config.eval.select_after >= 0.6 * steps


@pytest.mark.parametrize('steps', STEPS)
def test_the_kl_ends_at_its_full_weight(steps):
  for word in ('', 'published'):
    learner = preset('bayeshmaml', word, 'omniglot', f'steps={steps}').learner
    at = lambda step: float(
      bayeshmaml.kl_weight(
        step, learner.kl_start, learner.kl_stop, learner.kl_steps
      )
    )
    np.testing.assert_allclose(at(steps), learner.kl_stop, rtol=1e-4)
    assert at(steps // 2) < 1e-12 < 1e-4 < at(steps - 1)


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('word', ['mamlpp', 'published'])
def test_the_multi_step_loss_ends_in_the_loss_of_the_last_step(word, steps):
  learner = preset('maml', word, 'omniglot', f'steps={steps}').learner
  weights = lambda step: maml.multi_step_weights(
    jnp.int32(step), learner.multi_step, learner.inner_steps
  )
  np.testing.assert_allclose(weights(0), 0.2, rtol=1e-5)
  np.testing.assert_array_equal(weights(steps // 10), [0, 0, 0, 0, 1])


@pytest.mark.parametrize('steps', STEPS)
def test_the_elbo_ends_at_its_full_weight(steps):
  learner = preset('vae', 'glyphs', f'steps={steps}').learner
  assert 0 < learner.beta_steps < steps and learner.beta_end == 1.0


@pytest.mark.parametrize(
  'name, arg, table', PUBLISHED, ids=[f'{n}-{a}' for n, a, _ in PUBLISHED]
)
def test_published_presets_have_the_numbers_of_the_papers(name, arg, table):
  config = preset(name, 'published', arg)
  check(config)
  flat = config_lib.flatten(config)
  different = {
    field: flat[field] for field in table if flat[field] != table[field]
  }
  assert not different


@pytest.mark.parametrize(
  'name, changes, message',
  [
    (
      'hypermaml',
      {'learner.warmup_steps': 40, 'eval.select_after': 50},
      'leave none of config.steps = 50',
    ),
    (
      'hypermaml',
      {'learner.warmup_steps': 40},
      'select_after = 52 is above its maximum config.steps = 50',
    ),
    ('bayeshmaml', {'eval.select_after': 4}, 'is before step 17'),
    ('bayeshmaml', {'eval.select_after': 51}, 'above its maximum config.steps'),
    ('bayeshmaml', {'learner.kl_steps': 60}, 'kl_steps = 60 is above its max'),
    ('maml', {'learner.multi_step': 50}, 'multi_step = 50 must be below'),
    ('maml', {'learner.order_steps': 50}, 'order_steps = 50 must be below'),
    ('maml', {'optimizer.warmup_steps': 50}, 'warmup_steps = 50 must be below'),
    ('vae', {'learner.beta_steps': 51}, 'beta_steps = 51 is above its maximum'),
  ],
  ids=str,
)
def test_a_schedule_that_does_not_fit_is_refused(name, changes, message):
  config = preset(name, 'omniglot', 'steps=50').unlock()
  for field, value in changes.items():
    config_lib.set_field(config, field, str(value))
  assert config.steps == 50
  with pytest.raises(core.BadInput, match=message):
    check(config)
