"""Intervals by hand numbers and by SciPy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hyperudl.evaluation import statistics
from tests.testing.errors import refusal

SEED, EPISODE, BOTH = 0, 1, 2


def simulate(shape, stds, draws=6000):
  """Values [seeds, episodes, draws] of the true mean 0, by what varies."""
  rng = np.random.default_rng(0)
  seeds, episodes = shape
  seed = rng.normal(size=(seeds, 1, draws)) * stds[SEED]
  episode = rng.normal(size=(1, episodes, draws)) * stds[EPISODE]
  return seed + episode + rng.normal(size=(*shape, draws)) * stds[BOTH]


def coverage(interval):
  """The fraction of intervals that hold 0; limits below allow for its noise."""
  mean, half = interval
  return np.mean(np.abs(mean) <= half)


def test_an_interval_by_hand():
  mean, half = statistics.mean_ci95([1, 2, 3, 4])
  assert mean == 2.5
  # 3.182 is the 97.5% point of Student's t with 3 degrees of freedom.
  np.testing.assert_allclose(half, 3.182446 * np.sqrt(5 / 3) / 2, 1e-6)


@pytest.mark.parametrize('count', [2, 5, 600])
def test_an_interval_is_scipys(count):
  values = np.random.default_rng(0).normal(0.7, 0.1, count)
  mean, half = statistics.mean_ci95(values)
  low, high = scipy_stats.t.interval(
    0.95, count - 1, values.mean(), scipy_stats.sem(values)
  )
  np.testing.assert_allclose([mean - half, mean + half], [low, high])


@pytest.mark.parametrize('count', [2, 3, 5, 12, 600])
def test_95_percent_of_intervals_contain_the_true_mean(count):
  draws = np.random.default_rng(1).normal(size=(count, 10_000))
  assert 0.94 < coverage(statistics.mean_ci95(draws)) < 0.96
  if count < 5:
    return  # equal values leave no interval
  # What is no bell curve: the share of 25 queries that is correct.
  correct = np.random.default_rng(2).binomial(25, 0.8, (count, 10_000)) / 25
  assert 0.93 < coverage(statistics.mean_ci95(correct - 0.8)) < 0.97


@pytest.mark.parametrize('count', [2, 3, 5, 12, 600])
def test_95_percent_of_intervals_over_groups_contain_the_true_mean(count):
  rng = np.random.default_rng(1)
  of_group = np.repeat(rng.normal(size=(count, 3000)), 5, axis=0)
  values = of_group + rng.normal(size=of_group.shape)
  groups = np.repeat(rng.permutation(count), 5)
  assert 0.94 < coverage(statistics.mean_ci95(values, groups)) < 0.965
  alone = coverage(statistics.mean_ci95(values))
  assert alone < 0.8  # as if each value were an episode of its own


@pytest.mark.parametrize('seeds', [2, 3, 5, 12])
@pytest.mark.parametrize(
  'stds',
  [
    (1, 0.1, 0.5),  # seeds dominate
    (0.1, 1, 1),  # seeds and episodes weigh the same
    (0.2, 1, 0.3),
    (0, 1, 0.5),  # seeds do not matter
    (0, 0.3, 1),  # ... but for single episodes
  ],
)
def test_95_percent_of_intervals_over_seeds_contain_the_true_mean(seeds, stds):
  values = simulate((seeds, 100), stds)
  assert 0.93 < coverage(statistics.seeds_ci95(values)) <= 0.975


@pytest.mark.parametrize('seeds', [3, 5, 12])
def test_few_groups_and_few_seeds_together(seeds):
  for stds in ((1, 0.1, 0.5), (0.3, 1, 1), (0, 1, 0.5)):
    values = simulate((seeds, 12), stds, 4000)
    assert 0.93 < coverage(statistics.seeds_ci95(values)) <= 0.975


@pytest.mark.parametrize('seeds', [2, 3, 5, 12])
def test_intervals_from_summaries_are_never_too_narrow(seeds):
  for stds in ((1, 0.1, 0.5), (0.2, 1, 0), (0.1, 1, 1)):
    values = simulate((seeds, 100), stds, 4000)
    pairs = [statistics.mean_ci95(each) for each in values]
    means, halves = np.array(pairs).swapaxes(0, 1)  # [seeds, draws]
    covered = coverage(statistics.pooled_ci95(means, halves))
    assert covered > 0.93
    if not stds[BOTH]:
      assert covered < 0.98


def test_arrays_keep_their_trailing_shape():
  values = np.arange(12.0).reshape(3, 2, 2)
  mean, half = statistics.mean_ci95(values)
  np.testing.assert_allclose(mean, [[4, 5], [6, 7]])
  np.testing.assert_allclose(
    half, np.full((2, 2), 4.302653 * 4 / np.sqrt(3)), 1e-6
  )


def test_one_episode_has_no_interval_and_none_is_refused():
  mean, half = statistics.mean_ci95([0.5])
  assert mean == 0.5 and np.isnan(half)
  for values in ([], 3.0):
    assert 'at least one episode' in refusal(statistics.mean_ci95, values)


def test_a_nan_makes_the_mean_nan():
  assert np.isnan(statistics.mean_ci95([0.5, np.nan, 0.6])[0])


def test_the_interval_over_seeds_by_hand():
  # Means of seeds 1 and 3, of episodes 1, 2, 3; the rest is zero.
  values = np.array([[0, 1, 2], [2, 3, 4]])
  mean, half = statistics.seeds_ci95(values)
  assert mean == 2
  of_seeds, of_episodes = 12.706205 * 1, 4.302653 * np.sqrt(1 / 3)
  np.testing.assert_allclose(half, np.hypot(of_seeds, of_episodes), 1e-6)
  # One seed has the interval of its episodes, and so have equal seeds.
  one = statistics.mean_ci95(values[0])
  assert statistics.seeds_ci95(values[:1]) == one
  np.testing.assert_allclose(statistics.seeds_ci95(values[[0, 0]]), one)


def test_the_rest_is_that_of_a_two_way_analysis_of_variance():
  values = simulate((4, 30), (1, 1, 1), 1)[..., 0]
  seed, episode = np.meshgrid(range(4), range(30), indexing='ij')
  design = np.concatenate(
    [np.eye(4)[seed.ravel()], np.eye(30)[episode.ravel()]], axis=1
  )
  fit, *_ = np.linalg.lstsq(design, values.ravel())
  v_rest = ((values.ravel() - design @ fit) ** 2).sum() / (3 * 29) / 120
  v_seeds = values.mean(axis=1).var(ddof=1) / 4
  v_episodes = values.mean(axis=0).var(ddof=1) / 30
  assert v_rest < v_seeds
  t_seeds, t_episodes = scipy_stats.t.ppf(0.975, [3, 29])
  half = np.sqrt(
    t_seeds**2 * (v_seeds - v_rest**2 / v_seeds) + t_episodes**2 * v_episodes
  )
  np.testing.assert_allclose(statistics.seeds_ci95(values)[1], half)


def test_episodes_of_one_group_count_once():
  rng = np.random.default_rng(0)
  pairs = rng.normal(size=60)
  wordings = np.repeat(pairs, 7)
  groups = np.repeat(rng.permutation(60), 7)
  mean, half = statistics.mean_ci95(wordings, groups)
  np.testing.assert_allclose((mean, half), statistics.mean_ci95(pairs))
  # Groups of one are no groups, also with axes behind them.
  values = rng.normal(size=(50, 3))
  alone = statistics.mean_ci95(values, rng.permutation(50))
  np.testing.assert_allclose(alone, statistics.mean_ci95(values))
  # Intervals over seeds say the same.
  both = np.stack([wordings, wordings])
  np.testing.assert_allclose(statistics.seeds_ci95(both, groups), (mean, half))
  assert (
    statistics.seeds_ci95(both, groups)[1] > 2 * statistics.seeds_ci95(both)[1]
  )
  assert np.isnan(statistics.mean_ci95([1.0, 2.0], [3, 3])[1])


def test_seconds_of_training_add_up_the_steps_at_their_speeds():
  rows = [
    {'step': 100, 'steps_per_second': 50.0},
    {'step': 300, 'steps_per_second': 100.0},
    {'step': 310, 'steps_per_second': 0.5},
  ]
  np.testing.assert_allclose(statistics.training_seconds(rows), [2, 4, 24])


@pytest.mark.parametrize('shape', [(0, 5), (2, 0), (3,)])
def test_an_interval_over_seeds_needs_values(shape):
  message = refusal(statistics.seeds_ci95, np.zeros(shape))
  assert 'expected [seeds, episodes]' in message


def test_the_interval_from_summaries_is_near_that_of_all_episodes():
  rng = np.random.default_rng(0)
  episodes = rng.normal(size=400)  # hard for all seeds alike
  seeds = rng.normal(size=(12, 1))
  values = seeds + episodes + 0.1 * rng.normal(size=(12, 400))
  pairs = [statistics.mean_ci95(each) for each in values]
  mean, half = statistics.pooled_ci95(*zip(*pairs))
  wanted = statistics.seeds_ci95(values)
  np.testing.assert_allclose(mean, wanted[0])
  np.testing.assert_allclose(half, wanted[1], rtol=0.1)
  # Hand numbers: sqrt(3^2 + 12.7^2 * 2 / 2); one seed has its own interval.
  np.testing.assert_allclose(
    statistics.pooled_ci95([1, 3], [2, 4]), (2, np.hypot(3, 12.706205)), 1e-6
  )
  assert statistics.pooled_ci95([0.5], [0.1]) == (0.5, 0.1)
  assert statistics.pooled_ci95([0.5, 0.7], [0.1, None]) == (0.6, None)
