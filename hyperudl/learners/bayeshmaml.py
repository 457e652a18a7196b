"""Generates a distribution of heads by a hypernetwork: BayesHMAML.

Borycki et al. 2022, arXiv:2210.02796, based on `hypermaml.py`: the
hypernetwork generates delta and log sigma^2. With the head theta' of HyperMAML:
  q(W | task) = N(theta', diag(sigma^2))
  outer loss = CE(queries; mean over S samples) + kappa(t) KL(q || N(0, 1))
  kappa(t) = kappa_0 (kappa_1 / kappa_0)^(t / kl_steps)
With `kl_inner` the loss of the gradient steps of the warm-up has the term
kappa(t) KL(q || N(0, 1)) too, as in the reference; its gradient with respect to
the mean theta is kappa(t) theta. (These steps read the mean head, those of the
reference samples.) By default the logits of the samples are averaged, as in the
reference; average='probabilities' averages probabilities, as Bayes' rule does.
Evaluation draws `test_samples` heads; 0 uses only the mean (as all published
runs do).

Metrics besides accuracy and nll: `brier`; `entropy` of the mean prediction; and
`mutual_information` of prediction and head, which measures how much the samples
disagree. Calibration over episodes is in `evaluation/calibration.py`.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners import _head_generator
from hyperudl.ops import losses

Head = _head_generator.Head
check_run = _head_generator.check_run  # see `learners.check_run`
gradient_fraction = _head_generator.gradient_fraction


@dataclasses.dataclass(frozen=True)
class Config(_head_generator.Config):
  """Hyperparameters of `bayeshmaml`."""

  samples: int = field(5, at_least=1)  # S of training
  test_samples: int = field(0, at_least=0)  # S of evaluations; 0: the mean
  average: Literal['logits', 'probabilities'] = 'logits'  # over samples
  kl_start: float = field(1e-24, above=0)  # kappa_0
  kl_stop: float = field(1e-3, above=0)  # kappa_1, reached at `kl_steps`
  kl_inner: bool = False  # the KL in the loss of the warm-up's steps too
  kl_steps: int = field(10_000, at_least=1, at_most='steps')  # outer steps


def make(config: Config) -> core.Learner:
  """Make the `bayeshmaml` learner; its task is the feature net and S heads."""
  init = partial(_head_generator.init, config, outputs=2)
  functions = _adapt, _predict, _loss, _evaluate
  return learners.make_learner(init, *(partial(f, config) for f in functions))


def draw(key: jax.Array, mean: Head, log_variance: Head, count: int) -> Head:
  """Draw `count` heads along a leading axis; if 0, return only the mean."""
  if not count:
    return jax.tree.map(lambda leaf: leaf[None], mean)
  leaves, structure = jax.tree.flatten(mean)
  stds = [jnp.exp(0.5 * v) for v in jax.tree.leaves(log_variance)]
  drawn = [
    m + std * jax.random.normal(k, (count, *m.shape))
    for k, m, std in zip(jax.random.split(key, len(leaves)), leaves, stds)
  ]
  return jax.tree.unflatten(structure, drawn)


def kl_to_standard_normal(mean: Head, log_variance: Head) -> jax.Array:
  """Compute KL(q || N(0, 1)) f32[] in nats, summed over the whole head."""
  terms = jax.tree.map(
    lambda m, v: losses.kl_standard_normal(m.ravel(), v.ravel()),
    mean,
    log_variance,
  )
  return sum(jax.tree.leaves(terms))


def kl_weight(
  step: jax.Array, start: float, stop: float, steps: int
) -> jax.Array:
  """Return the weight kappa f32[] of the KL at outer step i32[]."""
  fraction = jnp.minimum(step / steps, 1.0)
  return jnp.exp((1 - fraction) * jnp.log(start) + fraction * jnp.log(stop))


def _posterior(config, params, support, p=0.0, weight=0.0):
  """Return mean and log-variance of a task's head, and the embedded support.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: images and labels.
    p: fraction of the gradient steps, see `_head_generator.gradient_fraction`.
    weight: f32[], kappa; read if `kl_inner`.
  """
  features = _head_generator.embed(config, params['trunk'], support.x)
  support = core.Examples(features, support.y)
  delta, log_variance = _head_generator.generate(config, params, support, 2)
  mean = _head_generator.adapt_head(
    config,
    *(params['head'], delta, support, jnp.float32(p)),
    penalty=weight if config.kl_inner else 0.0,
  )
  return mean, log_variance, support


def _adapt(config, params, support, key, *, train):
  """Return {'trunk': parameters of the feature net, 'heads': with axis S}."""
  if config.finetune_steps and not train:  # the mean head on the support
    params = _head_generator.finetune(
      config,
      *(params, support),
      lambda params: _posterior(config, params, support)[::2],
    )
  mean, log_variance, _ = _posterior(config, params, support)
  count = config.samples if train else config.test_samples
  heads = draw(key, mean, log_variance, count)
  return {'trunk': params['trunk'], 'heads': heads}


def _predict(config, params, task, x, context):
  """Return the averaged logits f32[Q, N] of f32[Q, H, W, C]."""
  del params, context
  features = _head_generator.embed(config, task['trunk'], x)
  return _average(config, _sample_logits(task['heads'], features))


def _loss(config, params, episode, key, step):
  """Return the outer loss f32[] at outer step i32[], and metrics."""
  query = episode.query
  p = gradient_fraction(config, step)
  weight = kl_weight(step, config.kl_start, config.kl_stop, config.kl_steps)
  mean, log_variance, support = _posterior(
    config, params, episode.support, p, weight
  )
  heads = draw(key, mean, log_variance, config.samples)
  task = {'trunk': params['trunk'], 'heads': heads}
  logits = _predict(config, None, task, query.x, None)
  support_logits = _average(config, _sample_logits(heads, support.x))
  value = _head_generator.outer_cross_entropy(
    config,
    core.Examples(logits, query.y),
    core.Examples(support_logits, support.y),
  )
  kl = kl_to_standard_normal(mean, log_variance)
  value += weight * kl
  if config.delta_weight:
    delta = jax.tree.map(lambda new, old: new - old, mean, params['head'])
    size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(delta))
    value += config.delta_weight * size
  return value, {
    'accuracy': losses.accuracy(logits, query.y),
    'gradient_share': p,
    'kl': kl,
    'kl_weight': weight,
  }


def _evaluate(config, params, episode, key):
  task = _adapt(config, params, episode.support, key, train=False)
  x, y = episode.query.x, episode.query.y
  features = _head_generator.embed(config, task['trunk'], x)
  logits = _sample_logits(task['heads'], features)
  metrics = losses.classification_metrics(_average(config, logits), y)
  p = metrics['probabilities']
  log_p = jax.nn.log_softmax(logits)
  mixture = losses.log_mean_probability(log_p)
  disagreement = losses.entropy(mixture) - jnp.mean(losses.entropy(log_p), 0)
  one_hot = jax.nn.one_hot(y, config.way)
  metrics['brier'] = jnp.mean(jnp.sum(jnp.square(p - one_hot), axis=-1))
  metrics['entropy'] = jnp.mean(losses.entropy(jnp.log(p + 1e-12)))
  metrics['mutual_information'] = jnp.mean(disagreement)
  if config.test_samples > 1:
    metrics['disagreement'] = disagreement
  return metrics


def _sample_logits(heads, features):
  """Return logits f32[S, n, N] of f32[n, D] under each head."""
  return jax.vmap(_head_generator.linear, (0, None))(heads, features)


def _average(config, logits):
  if config.average == 'logits':
    return jnp.mean(logits, axis=0)
  return losses.log_mean_probability(jax.nn.log_softmax(logits))
