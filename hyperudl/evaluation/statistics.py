"""Computes means and 95% intervals over episodes and training seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from hyperudl import core


def t_quantile(degrees: ArrayLike) -> Any:
  """Return the 97.5% point of Student's t for degrees of freedom."""
  return stats.t.ppf(0.975, degrees)


def mean_ci95(
  values: ArrayLike, groups: ArrayLike | None = None
) -> tuple[Any, Any]:
  """Return the mean and the half width of its 95% interval, t s / sqrt(n).

  t is the 97.5% point of Student's t with n - 1 degrees of freedom.

  Args:
    values: [n, ...], n >= 1 episodes; with n = 1 the half width is NaN.
    groups: [n] or None; episodes of one group depend on each other (a task in
      several wordings), so that groups are what varies: s / sqrt(n) becomes the
      cluster-robust standard error of the mean (Liang and Zeger 1986),
      sqrt(G / (G - 1) sum_g (sum of deviations in g)^2) / n, and t has G - 1
      degrees of freedom.

  Returns:
    (mean, half width): floats, or arrays of the trailing shape.

  Raises:
    core.BadInput: there is no value.
  """
  values = np.asarray(values, np.float64)
  if not values.ndim or not len(values):
    raise core.BadInput('an interval needs at least one episode, there is none')
  mean = values.mean(axis=0)
  sums = _group_sums(values - mean, groups)
  half = t_quantile(len(sums) - 1) * np.sqrt(_variance(sums)) / len(values)
  return (mean, half) if values.ndim > 1 else (float(mean), float(half))


def seeds_ci95(
  values: ArrayLike, groups: ArrayLike | None = None
) -> tuple[Any, Any]:
  """Return the mean over training seeds and half width of its 95% interval.

  All seeds are tested on the same episodes, so a value is mean + seed + episode
  + rest, each random. With v_s, v_e and v_r the variances of the mean estimated
  from the S means of seeds, the means of episodes and the rest of a two-way
  analysis of variance, the half width is

      sqrt(t(S - 1)^2 max(v_s - v_r^2 / v_s, 0) + t(G - 1)^2 v_e),

  the squares of both intervals added (Graybill and Wang 1980). v_s and v_e
  both hold v_r, which is therefore taken from v_s where that is no larger. With
  one seed it is the interval over episodes. In simulations it covers 93 to 97%
  (tests/evaluation), but 91% for two seeds with a dozen groups, if seeds
  differ far more than episodes do.

  Args:
    values: [seeds, episodes, ...], for example of paired differences.
    groups: [episodes] or None, as in `mean_ci95`; G of them.

  Returns:
    (mean, half width): floats, or arrays of the trailing shape.

  Raises:
    core.BadInput: there is no value.
  """
  values = np.asarray(values, np.float64)
  if values.ndim < 2 or not values.size:
    raise core.BadInput(f'expected [seeds, episodes], not {values.shape}')
  seeds, n = values.shape[:2]
  if seeds == 1:
    return mean_ci95(values[0], groups)
  mean, half = mean_ci95(values.mean(axis=0), groups)
  of_seeds = values.mean(axis=1)
  v_seeds = of_seeds.var(axis=0, ddof=1) / seeds
  rest = values - values.mean(axis=0) - of_seeds[:, None] + mean
  v_rest = sum(_variance(_group_sums(each, groups)) for each in rest)
  v_rest = v_rest / (seeds * (seeds - 1) * n**2)
  ratio = np.minimum(v_rest / np.maximum(v_seeds, np.finfo(float).tiny), 1)
  half = np.hypot(
    half, t_quantile(seeds - 1) * np.sqrt(v_seeds * (1 - ratio**2))
  )
  return (mean, half) if values.ndim > 2 else (float(mean), float(half))


def pooled_ci95(means: Sequence[Any], halves: Sequence[Any]) -> tuple[Any, Any]:
  """Return the mean over seeds and its half width from those of each seed.

  For results whose episodes are gone; otherwise use `seeds_ci95`. All seeds are
  tested on the same episodes, so the part of the episodes does not become
  smaller with seeds; that of the seeds does: the half width is
  sqrt(h^2 + t(S - 1)^2 s^2 / S) with h the mean half width over episodes and s
  the standard deviation of the S means. It is too wide where seeds disagree on
  single episodes, since h and s both hold that.

  Args:
    means: [S, ...], one for each seed.
    halves: [S, ...] of intervals over episodes; None where there is none.

  Returns:
    (mean, half width): floats, or arrays of the trailing shape; the half width
    is None if one of a seed is.
  """
  mean = np.mean(means, axis=0)
  if any(half is None for half in halves):
    return float(mean), None
  half = np.mean(halves, axis=0)
  if len(means) > 1:
    of_seeds = np.std(means, axis=0, ddof=1) / np.sqrt(len(means))
    half = np.hypot(half, t_quantile(len(means) - 1) * of_seeds)
  return (mean, half) if np.ndim(mean) else (float(mean), float(half))


def _group_sums(values, groups):
  """Return the sums of [n, ...] over the episodes of each group, [G, ...]."""
  if groups is None:
    return values
  number = np.unique(groups, return_inverse=True)[1]
  sums = np.zeros((number.max() + 1, *values.shape[1:]))
  np.add.at(sums, number, values)
  return sums


def _variance(sums):
  """Return the estimated variance of the sum of G independent groups."""
  count = len(sums)
  if count == 1:
    return np.full(sums.shape[1:], np.nan)
  return (sums**2).sum(axis=0) * (count / (count - 1))


def training_seconds(rows: Sequence[dict[str, Any]]) -> np.ndarray:
  """Return the seconds of training up to each row of train.jsonl, f64[n].

  They include compilation, but not the time between a stop and a resume.
  """
  steps = np.array([row['step'] for row in rows], np.float64)
  speeds = np.array([row['steps_per_second'] for row in rows])
  return np.cumsum(np.diff(steps, prepend=0.0) / speeds)
