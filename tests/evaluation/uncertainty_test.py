"""Predictive uncertainty: halved episodes, hand numbers, the command."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from hyperudl import core
from hyperudl.evaluation import calibration
from hyperudl.evaluation import uncertainty
from hyperudl.plots import uncertainty as uncertainty_plot
from hyperudl.storage import metrics
from tests.testing import runs
from tests.testing.errors import refusal


def test_halves_share_the_support_and_divide_the_queries():
  y = jnp.array([3, 0, 2, 1])
  x = y[:, None, None, None] + jnp.zeros((4, 1, 1, 1))
  queries = jnp.tile(y, 2)
  episode = core.Episode(
    core.Examples(x, y),
    core.Examples(jnp.tile(x, (2, 1, 1, 1)), queries),
    {'query_rows': 10 * queries},
  )
  inside, outside = uncertainty.halve(episode, 2)
  for half in (inside, outside):
    np.testing.assert_array_equal(half.support.y, [0, 1])
    np.testing.assert_array_equal(half.support.x[:, 0, 0, 0], [0, 1])
  np.testing.assert_array_equal(inside.query.y, [0, 1, 0, 1])
  np.testing.assert_array_equal(inside.query.x[:, 0, 0, 0], [0, 1, 0, 1])
  np.testing.assert_array_equal(inside.extra['query_rows'], [0, 10, 0, 10])
  np.testing.assert_array_equal(outside.extra['query_rows'], [30, 20, 30, 20])
  np.testing.assert_array_equal(outside.query.y, 0)
  np.testing.assert_array_equal(outside.query.x[:, 0, 0, 0], [3, 2, 3, 2])


@pytest.mark.parametrize('seed', [0, 1])
def test_auroc_is_the_fraction_of_pairs_in_order(seed):
  rng = np.random.default_rng(seed)
  inside, outside = rng.integers(0, 5, 7), rng.integers(2, 8, 9)
  pairs = outside[:, None] - inside
  fraction = np.mean((pairs > 0) + 0.5 * (pairs == 0))
  assert calibration.auroc(inside, outside) == pytest.approx(fraction)
  assert calibration.auroc([0, 1], [2, 3]) == 1


def predictions(sharpness, seed=0, shape=(300, 8)):
  """Predictions that are calibrated at sharpness 1."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(*shape, 3))
  p = special.softmax(logits, axis=-1)
  drawn = rng.uniform(size=(*shape, 1)) < np.cumsum(p, axis=-1)
  y = np.argmax(drawn, axis=-1)
  predicted = special.softmax(sharpness * logits, axis=-1)
  return {
    'inside': {
      'probabilities': predicted,
      'y': y,
      'accuracy': np.mean(np.argmax(predicted, -1) == y, axis=-1),
    },
    'outside': {'probabilities': np.full((*shape, 3), 1 / 3), 'y': 0 * y},
  }


def test_the_temperature_of_other_tasks_corrects_overconfidence():
  temperature = uncertainty.fit_temperature(predictions(3.0, seed=1))
  assert temperature == pytest.approx(3.0, rel=0.15)
  row = uncertainty.summarise(predictions(3.0), temperature)
  assert row['ece'] - row['ece_ci95'] > 0.15
  assert row['ece_scaled'] < 0.04
  assert row['nll_scaled'] + row['nll_scaled_ci95'] < row['nll']
  assert row['brier_scaled'] < row['brier']
  assert row['auroc_entropy'] == 1  # nothing is less sure than a third each
  assert row['entropy_outside'] == pytest.approx(np.log(3))
  assert row['accuracy_ci95'] > 0 and 'auroc_disagreement' not in row


def test_the_interval_of_ece_covers_another_draw():
  first, second = (predictions(2.0, seed)['inside'] for seed in (0, 5))
  error, half = uncertainty.ece_ci95(first['probabilities'], first['y'])
  other, _ = uncertainty.ece_ci95(second['probabilities'], second['y'])
  assert 0 < half < 0.1 and abs(error - other) < 2 * half


@pytest.fixture(scope='module')
def bayes(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('bayes') / 'run'
  flags = runs.tiny_flags(
    workdir, '--config.learner.test_samples=4', steps=5, config='bayeshmaml'
  )
  done = runs.call('train', *flags)
  assert done.code == 0, done.err
  return workdir


def test_the_command_writes_a_row_and_the_predictions(bayes):
  flags = [f'--workdir={bayes}', '--once', '--uncertainty', '--tag=first']
  done = runs.call('evaluate', *flags)
  assert done.code == 0, done.err
  (row,) = runs.results(bayes, 'first-uncertainty-test')
  assert json.dumps(row) and row['episodes'] == 20 and row['step'] == 5
  assert 0 <= row['auroc_disagreement'] <= 1 and row['transductive']
  assert row['disagreement_outside'] > 0
  assert row['support_query'] == 'disjoint'
  with np.load(bayes / 'eval/first-uncertainty-test_episodes.npz') as stored:
    assert stored['probabilities'].shape == (20, 6, 3)
    assert stored['entropy_outside'].shape == (20, 6)
  assert 'auroc_entropy' in done.err + done.out


def test_episodes_that_cannot_be_halved_are_refused():
  config = importlib.import_module('configs.hypertransformer').get_config()
  uncertainty.check(config)
  with config.unlocked():
    config.data.support_query = 'joint'
  assert 'as many rows of each class' in refusal(uncertainty.check, config)
  config = importlib.import_module('configs.hypernet').get_config()
  assert 'not tasks with language' in refusal(uncertainty.check, config)


def test_the_figure_has_a_row_for_each_run(tmp_path):
  arrays = uncertainty.arrays(predictions(2.0, shape=(4, 5)))
  score = arrays['entropy_inside']
  arrays['disagreement_inside'] = arrays['disagreement_outside'] = score
  metrics.write_evaluation(
    tmp_path / 'run', 'a-uncertainty-test', 1, {}, arrays
  )
  figure = uncertainty_plot.draw([tmp_path / 'run'] * 2, 'a')
  assert len(figure.axes) == 6
  titles = [axes.get_title() for axes in figure.axes[1:3]]
  assert all(title.startswith('AUROC') for title in titles)
  # Of all classes of another set, and without samples that could disagree.
  del arrays['disagreement_inside'], arrays['disagreement_outside']
  metrics.write_evaluation(tmp_path / 'run', 'b-uncertainty-all', 1, {}, arrays)
  assert len(uncertainty_plot.draw([tmp_path / 'run'], 'b').axes) == 2
  assert '--uncertainty' in refusal(uncertainty_plot.draw, [tmp_path])


def test_the_temperature_is_fitted_on_the_data_of_the_training(bayes):
  flags = [f'--workdir={bayes}', '--once', '--uncertainty', '--dataset=other']
  results = runs.call_many('evaluate', [flags, [*flags, '--split=valid']])
  assert [done.code for done in results] == [0, 0], results[0].err
  (row,) = runs.results(bayes, 'other-uncertainty-test')
  (other,) = runs.results(bayes, 'other-uncertainty-valid')
  assert row['dataset'] == 'other' and row['temperature_from'] == 'tiny'
  assert row['temperature'] == other['temperature']


def test_the_command_refuses_episodes_that_cannot_be_halved(bayes):
  refused = {
    'fits its temperature on valid': ['--once', '--split=valid'],
    'unlabelled=0': ['--once', '--config.episode.unlabelled=1', '--tag=a'],
    'transductive=False': [
      '--once',
      '--config.episode.transductive=True',
      '--tag=a',
    ],
    'needs --once': [],
    'way': ['--once', '--way=5'],  # twice 5 of 6 classes
  }
  common = [f'--workdir={bayes}', '--uncertainty']
  results = runs.call_many(
    'evaluate', [common + flags for flags in refused.values()]
  )
  for text, done in zip(refused, results):
    assert done.code == 2 and text in done.line


def test_a_halved_episode_of_the_fixed_ones_has_the_right_classes():
  key = jax.random.key(0)
  y = jax.random.permutation(key, jnp.tile(jnp.arange(4), 3))
  x = jax.random.uniform(key, (12, 2, 2, 1))
  part = core.Examples(x, y)
  inside, outside = jax.jit(lambda e: uncertainty.halve(e, 2))(
    core.Episode(part, part, {'query_rows': y})
  )
  assert inside.support.y.shape == inside.query.y.shape == (6,)
  assert set(np.asarray(inside.query.y)) == {0, 1}
  seen = {float(v) for v in np.asarray(outside.query.x[:, 0, 0, 0])}
  wanted = {float(v) for v in np.asarray(x[np.asarray(y) >= 2, 0, 0, 0])}
  assert seen == wanted
