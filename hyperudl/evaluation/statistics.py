"""Computes means and 95% intervals over episodes and training seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hyperudl import core


def mean_ci95(
  values: ArrayLike, groups: ArrayLike | None = None
) -> tuple[Any, Any]:
  """Return the mean and the half width of its 95% interval, 1.96 s / sqrt(n).

  Args:
    values: [n, ...], n >= 1 episodes; with n = 1 the half width is NaN.
    groups: [n] or None; episodes of one group depend on each other (a task in
      several wordings), so that groups are what varies: s / sqrt(n) becomes the
      cluster-robust standard error of the mean (Liang and Zeger 1986),
      sqrt(G / (G - 1) sum_g (sum of deviations in g)^2) / n.

  Returns:
    (mean, half width): floats, or arrays of the trailing shape.

  Raises:
    core.BadInput: there is no value.
  """
  values = np.asarray(values, np.float64)
  n = values.shape[0] if values.ndim else 0
  if n == 0:
    raise core.BadInput('an interval needs at least one episode, there is none')
  groups = np.arange(n) if groups is None else np.asarray(groups)
  number = np.unique(groups, return_inverse=True)[1]
  count = number.max() + 1
  mean = values.mean(axis=0)
  sums = np.zeros((count, *values.shape[1:]))
  np.add.at(sums, number, values - mean)
  std = np.sqrt((sums**2).sum(axis=0) / max(count - 1, 1) * count)
  half = 1.96 * (std if count > 1 else std * np.nan) / n
  return (mean, half) if values.ndim > 1 else (float(mean), float(half))


def paired_ci95(
  values: ArrayLike, others: ArrayLike, groups: ArrayLike | None = None
) -> tuple[Any, Any]:
  """Return mean and half width of `values - others`, episode by episode.

  Args:
    values: [n, ...] of one model.
    others: [n, ...] of another one on the same episodes.
    groups: as in `mean_ci95`.

  Raises:
    core.BadInput: the shapes differ.
  """
  values, others = np.asarray(values), np.asarray(others)
  if values.shape != others.shape:
    raise core.BadInput(
      f'pairs need the same episodes, not {values.shape} and {others.shape}'
    )
  return mean_ci95(values.astype(np.float64) - others, groups)


def seeds_ci95(
  values: ArrayLike, groups: ArrayLike | None = None, draws: int = 2000
) -> tuple[float, float]:
  """Return the mean over training seeds and half width of its 95% interval.

  Hierarchical bootstrap: seeds are drawn with replacement, then episodes (or
  whole groups of them), the same ones for every seed, since all seeds are
  tested on the same episodes. Few seeds tell little of the standard deviation
  between them; with one it is the interval over episodes alone.

  Args:
    values: [seeds, episodes], for example of paired differences.
    groups: [episodes] or None, as in `mean_ci95`.
    draws: int, of the bootstrap.

  Returns:
    (mean, half the distance between the 2.5% and 97.5% points).

  Raises:
    core.BadInput: there is no value.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or not values.size:
    raise core.BadInput(f'expected [seeds, episodes], not {values.shape}')
  seeds, n = values.shape
  if seeds == 1:
    return mean_ci95(values[0], groups)
  groups = np.arange(n) if groups is None else groups
  number, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
  sums = np.zeros((seeds, len(sizes)))
  np.add.at(sums.T, number, values.T)
  rng = np.random.default_rng(0)
  means = np.empty(draws)
  for i in range(draws):
    rows = sums[rng.integers(seeds, size=seeds)].mean(axis=0)
    drawn = rng.integers(len(sizes), size=len(sizes))
    means[i] = rows[drawn].sum() / sizes[drawn].sum()
  low, high = np.quantile(means, (0.025, 0.975))
  return float(values.mean()), float((high - low) / 2)


def pooled_ci95(
  means: Sequence[float], halves: Sequence[float | None]
) -> tuple[float, float | None]:
  """Return the mean over seeds and its half width from those of each seed.

  All seeds are tested on the same episodes, so the part of the episodes does
  not become smaller with seeds; that of the seeds does: the half width is
  sqrt(h^2 + 1.96^2 s^2 / S) with h the mean half width over episodes and s the
  standard deviation of the S means (n - 1). h makes it rather too wide, and
  with two or three seeds s itself is hardly known.

  Args:
    means: [S], one for each seed.
    halves: [S] of intervals over episodes; None where there is none.

  Returns:
    (mean, half width), the latter None if a half width is.
  """
  mean = float(np.mean(means))
  if any(half is None for half in halves):
    return mean, None
  variance = np.var(means, ddof=1) / len(means) if len(means) > 1 else 0.0
  return mean, float(np.sqrt(np.mean(halves) ** 2 + 1.96**2 * variance))


def training_seconds(rows: Sequence[dict[str, Any]]) -> np.ndarray:
  """Return the seconds of training up to each row of train.jsonl, f64[n].

  They include compilation, but not the time between a stop and a resume.
  """
  steps = np.array([row['step'] for row in rows], np.float64)
  speeds = np.array([row['steps_per_second'] for row in rows])
  return np.cumsum(np.diff(steps, prepend=0.0) / speeds)
