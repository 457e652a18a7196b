"""Intervals by hand numbers and by SciPy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hyperudl.evaluation import statistics
from tests.testing.errors import refusal


def test_an_interval_by_hand():
  mean, half = statistics.mean_ci95([1, 2, 3, 4])
  assert mean == 2.5
  np.testing.assert_allclose(half, 1.96 * np.sqrt(5 / 3) / 2)


def test_an_interval_is_scipys_normal_one():
  values = np.random.default_rng(0).normal(0.7, 0.1, 600).astype(np.float32)
  mean, half = statistics.mean_ci95(values)
  low, high = scipy_stats.norm.interval(
    0.95, values.mean(), scipy_stats.sem(values.astype(np.float64))
  )
  np.testing.assert_allclose([mean - half, mean + half], [low, high], 1e-5)


def test_95_percent_of_intervals_contain_the_true_mean():
  draws = np.random.default_rng(1).random((400, 2000))
  mean, half = statistics.mean_ci95(draws)
  covered = np.mean(np.abs(mean - 0.5) < half)
  assert 0.93 < covered < 0.97


def test_arrays_keep_their_trailing_shape():
  values = np.arange(12.0).reshape(3, 2, 2)
  mean, half = statistics.mean_ci95(values)
  np.testing.assert_allclose(mean, [[4, 5], [6, 7]])
  np.testing.assert_allclose(half, np.full((2, 2), 1.96 * 4 / np.sqrt(3)))


def test_one_episode_has_no_interval_and_none_is_refused():
  mean, half = statistics.mean_ci95([0.5])
  assert mean == 0.5 and np.isnan(half)
  for values in ([], 3.0):
    assert 'at least one episode' in refusal(statistics.mean_ci95, values)


def test_a_nan_makes_the_mean_nan():
  assert np.isnan(statistics.mean_ci95([0.5, np.nan, 0.6])[0])


def test_paired_differences_cancel_how_hard_episodes_are():
  hardness = np.random.default_rng(2).random(600)
  mean, half = statistics.paired_ci95(hardness + 0.01, hardness)
  np.testing.assert_allclose(mean, 0.01)
  assert half < 1e-12 < statistics.mean_ci95(hardness)[1]
  message = refusal(statistics.paired_ci95, [1, 2], [1, 2, 3])
  assert 'same episodes' in message


def test_pairs_of_booleans_count_as_numbers():
  mean, _ = statistics.paired_ci95(
    np.array([True, True]), np.array([False, True])
  )
  assert mean == 0.5


def test_the_interval_over_seeds_includes_both_variances():
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(4, 400))
  mean, half = statistics.seeds_ci95(noise)
  assert abs(mean - noise.mean()) < 1e-12
  # Independent episodes in each seed: 1.96 / sqrt(1600) or a little more.
  assert 0.9 * 0.049 < half < 2 * 0.049
  # Seeds that disagree: their spread, 1.96 s / sqrt(4), dominates.
  shifted = noise + np.array([-1, 1, -1, 1])[:, None]
  assert 0.7 * 0.98 < statistics.seeds_ci95(shifted)[1] < 1.3 * 0.98
  # The same episodes are hard for all seeds: no gain from more seeds.
  common = np.tile(noise[:1], (4, 1))
  one = statistics.mean_ci95(noise[0])
  np.testing.assert_allclose(statistics.seeds_ci95(common)[1], one[1], rtol=0.1)
  assert statistics.seeds_ci95(noise[:1]) == one


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
  np.testing.assert_allclose(alone[1], 1.96 * values.std(0, ddof=1) / 50**0.5)
  # The bootstrap over seeds says the same.
  both = np.stack([wordings, wordings])
  np.testing.assert_allclose(
    statistics.seeds_ci95(both, groups), (mean, half), rtol=0.1
  )
  assert (
    statistics.seeds_ci95(both, groups)[1] > 2 * statistics.seeds_ci95(both)[1]
  )
  assert np.isnan(statistics.mean_ci95([1.0, 2.0], [3, 3])[1])


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
  # Hand numbers: sqrt(3^2 + 1.96^2 * 2 / 2); one seed has its own interval.
  np.testing.assert_allclose(
    statistics.pooled_ci95([1, 3], [2, 4]), (2, np.hypot(3, 1.96))
  )
  assert statistics.pooled_ci95([0.5], [0.1]) == (0.5, 0.1)
  assert statistics.pooled_ci95([0.5, 0.7], [0.1, None]) == (0.6, None)
