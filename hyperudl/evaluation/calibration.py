"""Measures how far predicted probabilities can be trusted, in numpy."""

import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats

BINS = 15
_TINY = 1e-12
_PRIOR_STD = 0.5  # of log(T); on validation tasks .25 to 1 are as good


def nll(p: np.ndarray, y: np.ndarray) -> float:
  """Return the mean negative log-likelihood, nats, of f[n, N] p and i[n] y."""
  p_label = np.take_along_axis(p, np.asarray(y)[..., None], axis=-1)
  return float(-np.mean(np.log(np.maximum(p_label, _TINY))))


def brier(p: np.ndarray, y: np.ndarray) -> float:
  """Return the mean squared distance to the one-hot label (Brier 1950)."""
  one_hot = np.eye(p.shape[-1])[y]
  return float(np.mean(np.sum(np.square(p - one_hot), axis=-1)))


def expected_calibration_error(
  p: np.ndarray, y: np.ndarray, bins: int = BINS
) -> float:
  """Return the mean over rows of |accuracy - confidence| of their bin.

  Naeini et al. 2015; Guo et al. 2017 (arXiv:1706.04599, eq. 3). Rows are put
  into `bins` equal intervals of confidence, the largest probability.
  """
  confidence, accuracy, count = reliability(p, y, bins)
  filled = count > 0
  gap = np.abs(accuracy[filled] - confidence[filled])
  return float(np.sum(count[filled] * gap) / np.sum(count))


def reliability(
  p: np.ndarray, y: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Compute the points of a reliability diagram.

  Args:
    p: f[n, N].
    y: i[n].
    bins: intervals (i / bins, (i + 1) / bins] of confidence.

  Returns:
    (mean confidence [bins], accuracy [bins], rows [bins]); nan, nan, 0 for an
    empty bin.
  """
  confidence = np.max(p, axis=-1)
  correct = np.argmax(p, axis=-1) == y
  index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  count = np.bincount(index, minlength=bins)
  with np.errstate(invalid='ignore'):
    mean = np.bincount(index, confidence, bins) / count
    accuracy = np.bincount(index, correct, bins) / count
  return mean, accuracy, count


def entropy(p: np.ndarray) -> np.ndarray:
  """Return the predictive entropy, nats, of each row of f[..., N]."""
  return -np.sum(p * np.log(np.maximum(p, _TINY)), axis=-1)


def mutual_information(samples: np.ndarray) -> np.ndarray:
  """Return how far samples of the model disagree, nats (Houlsby et al. 2011).

  Entropy of the mean prediction minus mean entropy (arXiv:1112.5745, eq. 2).

  Args:
    samples: f[S, ..., N], probabilities of S sampled models.

  Returns:
    f[...], >= 0 but for rounding.
  """
  return entropy(np.mean(samples, axis=0)) - np.mean(entropy(samples), axis=0)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
  """Return the area under the ROC curve of a score, the larger being `outside`.

  The probability that one of f[m] `outside` is larger than one of f[n]
  `inside`, ties counting half (Mann and Whitney 1947): .5 is chance.
  """
  ranks = stats.rankdata(np.concatenate([inside, outside]))[len(inside) :]
  n, m = len(inside), len(outside)
  return float((np.sum(ranks) - m * (m + 1) / 2) / (n * m))


def fit_temperature(
  logits: np.ndarray,
  y: np.ndarray,
  low: float = 0.05,
  high: float = 20.0,
  near: float | None = None,
) -> float:
  """Return the temperature T that minimises the NLL of softmax(logits / T).

  Guo et al. 2017, section 4.2. Fit it on validation tasks, never on those that
  are reported. The NLL is convex in 1 / T.

  Args:
    logits: f[n, N].
    y: i[n].
    low: smallest T.
    high: largest T.
    near: what log(T) is held near, for few rows: with a normal prior of this
      mean (its logarithm) and a standard deviation of `_PRIOR_STD`. Without
      it, T of rows that are all predicted correctly is `low`.
  """

  def loss(scale):
    prior = 0.0
    if near is not None:
      prior = (np.log(scale * near) / _PRIOR_STD) ** 2 / (2 * len(y))
    return nll(special.softmax(scale * logits, axis=-1), y) + prior

  result = optimize.minimize_scalar(
    loss,
    bounds=(1 / high, 1 / low),
    method='bounded',
    options={'xatol': 1e-8},
  )
  return float(1 / result.x)
