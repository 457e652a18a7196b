"""Generates one CNN per task of a sequence: the Continual HyperTransformer.

Vladymyrov, Zhmoginov, Sandler 2023, arXiv:2301.04584, with the generator of
`hypertransformer`. An episode is a sequence of T tasks (a leading axis T):
  theta_t = HT(S_t, theta_(t-1))     previous slices enter the weight tokens
  c_(tau,k) = mean of f_(theta_tau)(x) over class k of S_tau      stored
  p(tau, k | x, theta_t) = softmax of -|f_(theta_t)(x) - c_(tau,k)|^2
  J = mean over t and tau <= t of CE on the queries of task tau under theta_t
All t use the same transformers; gradients flow through all T generations.
The prototypes of a task are computed once, with its own network. With
scenario='class' the softmax is over the classes of all tasks so far, with
'task' over those of the query's task, which is then known. scenario='batches'
takes an episode of one task, whose support arrives in T parts: prototypes are
means over the parts so far.

Metrics: A[t, tau], the accuracy on the queries of task tau with theta_t, in
both scenarios; the average accuracy after the last task; forgetting
mean_(tau<T) max_(t<T) A[t, tau] - A[T, tau]; backward transfer
mean_(tau<T) A[T, tau] - A[tau, tau].

kind='reset' starts every task from zero slices; 'constant' is ConstPN, a
learned embedding that is the same for all tasks; 'merged' is MergedHT, which
gets the supports of all tasks so far at once and is an upper bound (it has
label embeddings for at most `tasks` tasks).

The authors have published no code: this follows the text of the paper.
Distances are between flattened features without normalisation, times a learned
factor.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.config import ConfigDict
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import continual_metrics
from hyperudl.learners.hypertransformer import continual_rollout
from hyperudl.learners.hypertransformer import target_network
from hyperudl.ops import losses

MASKED_LOGIT = -1e9  # of classes of later tasks
Config = config_lib.ContinualConfig


def check_run(config: ConfigDict) -> None:
  """Refuse counts that scenario 'batches' cannot divide into equal parts.

  Raises:
    core.BadInput: naming the fields.
  """
  tasks, episode = max(config.learner.tasks, 1), config.episode
  uneven = episode.shot % tasks or episode.unlabelled % tasks
  if config.learner.scenario == 'batches' and uneven:
    raise core.BadInput(
      f'config.episode.shot = {episode.shot} and unlabelled = '
      f'{episode.unlabelled}: config.learner.scenario = batches deals them to '
      f'config.learner.tasks = {tasks} parts; make both multiples of it'
    )


def make(config: Config) -> core.Learner:
  """Make the `continual` learner; its task: see `continual_rollout.adapt`."""
  target_network.make(config.network())  # checks its own choices
  functions = _init, continual_rollout.adapt, _predict, _loss, _evaluate
  return learners.make_learner(
    *(functools.partial(function, config) for function in functions)
  )


def _init(config, key, episode):
  parts = continual_rollout.in_order(config, episode.support)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  return hypertransformer.init(
    config.network(), key, core.Episode(first, first)
  )


def _logits(config, task, x, steps):
  """Compute logits of queries under several theta_t.

  Args:
    config: hyperparameters.
    task: from `continual_rollout.adapt`.
    x: f32[tau, Q, H, W, C], the queries of each task.
    steps: i32[n], the values of t.

  Returns:
    f32[n, tau, Q, T, N]; `MASKED_LOGIT` for tasks after t.
  """
  network, (tasks, rows) = config.network(), x.shape[:2]

  def at(t):
    cnn, prototypes = jax.tree.map(
      lambda leaf: leaf[t], (task['cnns'], task['prototypes'])
    )
    embed = functools.partial(target_network.embed, network, cnn)
    if network.norm == 'batch':  # statistics of one task's queries
      features = jax.lax.map(embed, x)
    else:
      features = embed(x.reshape(-1, *x.shape[2:]))
    features = features.reshape(tasks * rows, -1)
    prototypes = prototypes.reshape(-1, features.shape[-1])
    logits = -task['scale'] * losses.squared_distances(features, prototypes)
    logits = logits.reshape(tasks, rows, -1, config.way)
    met = jnp.arange(logits.shape[2]) <= t
    return jnp.where(met[:, None], logits, MASKED_LOGIT)

  return jax.lax.map(at, steps)


def _logits_by_part(config, task, x, steps):
  """Compute logits f32[n, Q, N] of the queries for scenario 'batches'."""
  logits = _logits(config, task, x[None], steps)[:, 0]
  return jax.vmap(lambda one, t: one[:, t])(logits, steps)


def _steps(task):
  return jnp.arange(task['prototypes'].shape[0])


def _predict(config, params, task, x, context):
  del params, context
  last = _steps(task)[-1:]
  if config.scenario == 'batches':
    return _logits_by_part(config, task, x, last)[0]
  return _logits(config, task, x, last)[0].reshape(*x.shape[:2], -1)


def _loss(config, params, episode, key, step):
  del step
  task = continual_rollout.adapt(
    config, params, episode.support, key, train=True
  )
  query, steps = episode.query, _steps(task)
  if config.scenario == 'batches':
    logits = _logits_by_part(config, task, query.x, steps)
    each = jax.vmap(losses.cross_entropy, (0, None))(logits, query.y)
    return jnp.mean(each), {'accuracy': losses.accuracy(logits[-1], query.y)}
  logits = _logits(config, task, query.x, steps)
  entropies, accuracies = continual_metrics.matrices(
    config.way, logits, query.y
  )
  met = jnp.tril(jnp.ones(accuracies['class'].shape))
  value = jnp.sum(met * entropies[config.scenario]) / jnp.sum(met)
  return value, {
    'accuracy': jnp.mean(accuracies[config.scenario][-1]),
    'accuracy_class': jnp.mean(accuracies['class'][-1]),
    'accuracy_task': jnp.mean(accuracies['task'][-1]),
  }


def _evaluate(config, params, episode, key):
  task = continual_rollout.adapt(
    config, params, episode.support, key, train=False
  )
  query, steps = episode.query, _steps(task)
  if config.scenario == 'batches':
    logits = _logits_by_part(config, task, query.x, steps)
    by_part = jax.vmap(losses.accuracy, (0, None))(logits, query.y)
    metrics = losses.classification_metrics(logits[-1], query.y)
    for t in range(len(steps)):
      metrics[f'accuracy_part_{t + 1}'] = by_part[t]
    return metrics
  logits = _logits(config, task, query.x, steps)
  entropies, accuracies = continual_metrics.matrices(
    config.way, logits, query.y
  )
  metrics = {
    'accuracy': jnp.mean(accuracies[config.scenario][-1]),
    'nll': jnp.mean(entropies[config.scenario][-1]),
  }
  for scenario, matrix in accuracies.items():
    metrics |= continual_metrics.summarize(scenario, matrix)
  return metrics
