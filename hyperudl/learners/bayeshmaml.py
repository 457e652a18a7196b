"""BayesHMAML: a distribution of classifiers for each task.

Borycki et al. 2022, arXiv:2210.02796, over the parts of `hypermaml.py`: the
hypernetwork emits delta and log sigma^2, and with the head theta' of HyperMAML
  q(W | task) = N(theta', diag(sigma^2))
  outer loss = CE(queries; mean over S samples) + kappa(t) KL(q || N(0, 1))
  kappa(t) = kappa_0 (kappa_1 / kappa_0)^(t / kl_steps)
By default the logits of the samples are averaged, as in the reference;
average='probabilities' averages what Bayes' rule averages. In evaluations
`test_samples` heads are drawn, 0 for the mean alone (all published runs).

Besides accuracy and nll: `brier`, `entropy` of the mean prediction, and the
`mutual_information` of prediction and head, which is what the samples disagree
on; calibration over episodes is in `calibration.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners import _head_generator
from hyperudl.learners import hypermaml
from hyperudl.ops import losses

AVERAGES = ('logits', 'probabilities')


class _Bayes(NamedTuple):
  samples: int
  test_samples: int
  average: str
  kl_start: float
  kl_stop: float
  kl_steps: int


def make(
  way,
  *,
  samples=5,
  test_samples=0,
  average='logits',
  kl_start=1e-24,
  kl_stop=1e-3,
  kl_steps=10_000,
  **settings,
):
  """The `bayeshmaml` learner. Its task is the net of features and S heads.

  Args:
    way: N.
    samples: S of training, >= 1.
    test_samples: S of evaluations; 0 for the mean.
    average: over samples, 'logits' or 'probabilities'.
    kl_start, kl_stop: kappa at first and from `kl_steps` on; > 0.
    kl_steps: outer steps.
    **settings: of `hypermaml.make`, but for fine-tuning.

  Raises:
    ValueError: for an unknown choice or a number out of range.
    TypeError: for a setting that does not exist.
  """
  if average not in AVERAGES:
    raise ValueError(f'average must be one of {AVERAGES}, not {average!r}')
  if min(samples, kl_steps) < 1 or test_samples < 0:
    raise ValueError(
      'samples and kl_steps must be >= 1 and test_samples >= 0, not '
      f'{(samples, kl_steps, test_samples)}'
    )
  if min(kl_start, kl_stop) <= 0:
    raise ValueError(
      f'kl_start and kl_stop must be > 0, not {kl_start} and {kl_stop}'
    )
  unknown = [name for name in settings if name in NOT_HERE]
  if unknown:
    raise TypeError(f'bayeshmaml has no {", ".join(unknown)}')
  s = hypermaml.settings_of(way, **settings)
  b = _Bayes(samples, test_samples, average, kl_start, kl_stop, kl_steps)
  return learners.make_learner(
    lambda key, episode: hypermaml.init(s, key, episode, outputs=2),
    lambda params, support, key, *, train: _adapt(
      s, b, params, support, key, train
    ),
    lambda params, task, x, context: _predict(s, b, task, x),
    lambda params, episode, key, step: _loss(s, b, params, episode, key, step),
    lambda params, episode, key: _evaluate(s, b, params, episode, key),
  )


# Settings of `hypermaml.make` that this learner does not have.
NOT_HERE = ('finetune_steps', 'finetune_rate')
make.__signature__ = learners.spelled_out(
  make, hypermaml.make, without=NOT_HERE
)


def posterior(s, params, z, y, share):
  """(mean, log-variance) of the head, each {'kernel': f32[D, N], 'bias'}."""
  delta, log_variance = _head_generator.emitted(s, params, z, y, outputs=2)
  mean = _head_generator.moved(s, params['head'], delta, z, y, share)
  return mean, log_variance


def draw(key, mean, log_variance, count):
  """`count` heads with a leading axis; 0 gives the mean alone, with axis 1."""
  if not count:
    return jax.tree.map(lambda leaf: leaf[None], mean)
  leaves, structure = jax.tree.flatten(mean)
  spread = [jnp.exp(0.5 * v) for v in jax.tree.leaves(log_variance)]
  drawn = [
    m + sd * jax.random.normal(k, (count, *m.shape))
    for k, m, sd in zip(jax.random.split(key, len(leaves)), leaves, spread)
  ]
  return jax.tree.unflatten(structure, drawn)


def kl_to_standard_normal(mean, log_variance):
  """KL(q || N(0, 1)) summed over the whole head, nats."""
  terms = jax.tree.map(
    lambda m, v: losses.kl_standard_normal(m.ravel(), v.ravel()),
    mean,
    log_variance,
  )
  return sum(jax.tree.leaves(terms))


def kl_weight(step, start, stop, steps):
  """kappa f32[] at an outer step."""
  share = jnp.minimum(step / steps, 1.0)
  return jnp.exp((1 - share) * jnp.log(start) + share * jnp.log(stop))


def _adapt(s, b, params, support, key, train):
  z = _head_generator.embed(s, params['trunk'], support.x)
  q = posterior(s, params, z, support.y, jnp.float32(0.0))
  count = b.samples if train else b.test_samples
  return {'trunk': params['trunk'], 'heads': draw(key, *q, count)}


def _sampled(s, task, x):
  """Logits f32[S, n, N]."""
  z = _head_generator.embed(s, task['trunk'], x)
  return jax.vmap(_head_generator.linear, (0, None))(task['heads'], z)


def _averaged(b, logits):
  if b.average == 'logits':
    return jnp.mean(logits, axis=0)
  log_p = jax.nn.log_softmax(logits)
  return jax.nn.logsumexp(log_p, axis=0) - jnp.log(logits.shape[0])


def _predict(s, b, task, x):
  return _averaged(b, _sampled(s, task, x))


def _loss(s, b, params, episode, key, step):
  support, query = episode.support, episode.query
  z = _head_generator.embed(s, params['trunk'], support.x)
  share = _head_generator.gradient_share(step, s.warmup_steps, s.switch_steps)
  mean, log_variance = posterior(s, params, z, support.y, share)
  heads = draw(key, mean, log_variance, b.samples)
  answer = lambda z: _averaged(
    b, jax.vmap(_head_generator.linear, (0, None))(heads, z)
  )
  logits = answer(_head_generator.embed(s, params['trunk'], query.x))
  seen, y = logits, query.y
  if s.support_loss:
    seen = jnp.concatenate([logits, answer(z)])
    y = jnp.concatenate([query.y, support.y])
  kl = kl_to_standard_normal(mean, log_variance)
  weight = kl_weight(step, b.kl_start, b.kl_stop, b.kl_steps)
  metrics = {
    'accuracy': losses.accuracy(logits, query.y),
    'gradient_share': share,
    'kl': kl,
    'kl_weight': weight,
  }
  value = losses.cross_entropy(seen, y) + weight * kl
  if s.delta_weight:
    change = jax.tree.map(lambda a, c: a - c, mean, params['head'])
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(change))
    value += s.delta_weight * size
  return value, metrics


def _evaluate(s, b, params, episode, key):
  task = _adapt(s, b, params, episode.support, key, False)
  logits = _sampled(s, task, episode.query.x)
  y = episode.query.y
  metrics = losses.classification_metrics(_averaged(b, logits), y)
  p = metrics['probabilities']
  one_hot = jax.nn.one_hot(y, s.way)
  log_p = jax.nn.log_softmax(logits)
  mixture = jax.nn.logsumexp(log_p, axis=0) - jnp.log(logits.shape[0])
  disagreement = losses.entropy(mixture) - jnp.mean(losses.entropy(log_p), 0)
  return {
    **metrics,
    'brier': jnp.mean(jnp.sum(jnp.square(p - one_hot), axis=-1)),
    'entropy': jnp.mean(losses.entropy(jnp.log(p + 1e-12))),
    'mutual_information': jnp.mean(disagreement),
  } | ({'disagreement': disagreement} if b.test_samples > 1 else {})
