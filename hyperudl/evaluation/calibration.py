"""How much predicted probabilities can be trusted: numpy, for evaluations."""

import numpy as np
from scipy import stats

BINS = 15
_TINY = 1e-12


def nll(p, y):
  """Mean negative log-likelihood, nats, of f[n, N] `p` and i[n] `y`."""
  return float(-np.mean(np.log(np.maximum(_right(p, y), _TINY))))


def brier(p, y):
  """Brier 1950: mean over rows of the squared distance to the one-hot label."""
  one_hot = np.eye(p.shape[-1])[y]
  return float(np.mean(np.sum(np.square(p - one_hot), axis=-1)))


def expected_calibration_error(p, y, bins=BINS):
  """Naeini et al. 2015, Guo et al. 2017 (arXiv:1706.04599, eq. 3).

  Rows are put into `bins` equal intervals of confidence, the largest
  probability; the mean over rows of |accuracy - confidence| of their bin.
  """
  confidence, accuracy, count = reliability(p, y, bins)
  filled = count > 0
  gap = np.abs(accuracy[filled] - confidence[filled])
  return float(np.sum(count[filled] * gap) / np.sum(count))


def reliability(p, y, bins=BINS):
  """The points of a reliability diagram.

  Args:
    p: f[n, N].
    y: i[n].
    bins: intervals (i / bins, (i + 1) / bins] of confidence.

  Returns:
    (mean confidence [bins], accuracy [bins], rows [bins]); nan, nan, 0 for an
    empty bin.
  """
  confidence = np.max(p, axis=-1)
  right = np.argmax(p, axis=-1) == y
  place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  count = np.bincount(place, minlength=bins)
  with np.errstate(invalid='ignore'):
    mean = np.bincount(place, confidence, bins) / count
    accuracy = np.bincount(place, right, bins) / count
  return mean, accuracy, count


def entropy(p):
  """Predictive entropy, nats, of each row of f[..., N]."""
  return -np.sum(p * np.log(np.maximum(p, _TINY)), axis=-1)


def mutual_information(samples):
  """What samples of the model disagree on, nats (Houlsby et al. 2011).

  Entropy of the mean prediction minus mean entropy (arXiv:1112.5745, eq. 2).

  Args:
    samples: f[S, ..., N], probabilities of S sampled models.

  Returns:
    f[...], >= 0 but for rounding.
  """
  return entropy(np.mean(samples, axis=0)) - np.mean(entropy(samples), axis=0)


def auroc(inside, outside):
  """How well a score tells two groups apart, the larger being `outside`.

  The probability that one of f[m] `outside` is larger than one of f[n]
  `inside`, ties counting half (Mann and Whitney 1947): .5 is chance.
  """
  ranks = stats.rankdata(np.concatenate([inside, outside]))[len(inside) :]
  n, m = len(inside), len(outside)
  return float((np.sum(ranks) - m * (m + 1) / 2) / (n * m))


def fit_temperature(logits, y, low=0.05, high=20.0, rounds=80):
  """The temperature T that minimises the NLL of softmax(logits / T).

  Guo et al. 2017, section 4.2. Fit it on validation tasks, never on those that
  are reported. The NLL is convex in 1 / T, so a golden-section search finds it.

  Args:
    logits: f[n, N].
    y: i[n].
    low, high: of T.
    rounds: each shrinks the interval by .618.
  """
  inner = (np.sqrt(5) - 1) / 2
  loss = lambda scale: nll(softmax(scale * logits), y)
  left, right = 1 / high, 1 / low
  for _ in range(rounds):
    a, b = right - inner * (right - left), left + inner * (right - left)
    if loss(a) < loss(b):
      right = b
    else:
      left = a
  return 2 / (left + right)


def softmax(logits):
  """Probabilities of f[..., N] logits."""
  shifted = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
  return shifted / np.sum(shifted, axis=-1, keepdims=True)


def _right(p, y):
  return np.take_along_axis(p, np.asarray(y)[..., None], axis=-1)[..., 0]
