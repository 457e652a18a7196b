"""Continual HyperTransformer: a CNN rewritten task after task, none forgotten.

Vladymyrov, Zhmoginov, Sandler 2023, arXiv:2301.04584, over the generator of
`hypertransformer.py`. An episode is a sequence of T tasks (a leading axis T):
  theta_t = HT(S_t, theta_(t-1))      slices of before in the weight tokens
  c_(tau,k) = mean of f_(theta_tau)(x) over class k of S_tau      stored
  p(tau, k | x, theta_t) = softmax of -|f_(theta_t)(x) - c_(tau,k)|^2
  J = mean over t and tau <= t of CE on the queries of task tau under theta_t
The same transformers at every t; gradients flow through all T of them.
Prototypes are made when their task is seen and never again. With
scenario='class' the softmax is over all tasks so far, with 'task' over the
task that the query is known to belong to. scenario='batches' takes a plain
episode, whose support comes in T parts: prototypes are means over the parts so
far.

Measured: A[t, tau], accuracy on the queries of task tau with theta_t, in both
scenarios; average accuracy after the last task, forgetting
mean_(tau<T) max_(t<T) A[t, tau] - A[T, tau], backward transfer
mean_(tau<T) A[T, tau] - A[tau, tau].

kind='reset' starts every task from zero slices; 'constant' is ConstPN, a
learned embedding that no task changes; 'merged' is MergedHT, which sees the
supports of all tasks so far at once, an upper bound (its table of labels ends
at `tasks`).

No code of the authors is public: this follows the paper's text. Features are
compared as they are (flattened), times a learned factor.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import continual_metrics
from hyperudl.learners.hypertransformer import continual_rollout
from hyperudl.learners.hypertransformer import episode_network
from hyperudl.ops import losses

KINDS = ('continual', 'reset', 'constant', 'merged')
SCENARIOS = ('class', 'task', 'batches')
# Settings of `hypertransformer.make` that sequences do not have.
NOT_HERE = (
  'head',
  'stage',
  'warmup_steps',
  'shared_head_weight',
  'shared_head_classes',
  'label_smoothing',
  'l2_reg_weight',
  'variation_weight',
)
NEVER = -1e9  # logit of a class that has not been met


def make(
  way,
  *,
  kind='continual',
  scenario='class',
  tasks=5,
  change=0.0,
  norm='layer',
  logits_scale=0.1,
  **settings,
):
  """The `continual` learner.

  Args:
    way: N, classes of each task.
    kind: 'continual', 'reset', 'constant' or 'merged'.
    scenario: 'class', 'task' (what the loss asks for; both are measured) or
      'batches'.
    tasks: T of training: the labels that kind='merged' tells apart, and the
      parts of the support of scenario='batches'.
    change: g > 0 writes changes, theta_t = theta_(t-1) + g HT(S_t, theta_(t-1))
      from the second task on (ours, not the paper's); with kind='continual'
      alone. 0 writes every network anew.
    norm: of the CNN; 'batch' would tell by its statistics of the queries from
      which task they come.
    logits_scale: initial value of the learned factor of squared distances.
    **settings: of `hypertransformer.make`, but for its head, stages, and what
      it adds to the loss.

  Raises:
    core.BadInput: for wrong values, listing the choices.
    TypeError: for a setting that does not exist.
  """
  for name, value, choices in (
    ('kind', kind, KINDS),
    ('scenario', scenario, SCENARIOS),
  ):
    if value not in choices:
      raise core.BadInput(
        f'{name}={value!r} is unknown; choose one of {", ".join(choices)}'
      )
  foreign = [name for name in settings if name in NOT_HERE]
  if foreign:
    raise TypeError(f'continual has no {", ".join(foreign)}')
  if tasks < 1 or (kind == 'merged' and scenario == 'batches'):
    raise core.BadInput(
      f'tasks={tasks} must be at least 1, and kind={kind!r} needs tasks, not '
      f'scenario={scenario!r}'
    )
  if change and (
    change < 0 or kind != 'continual' or settings.get('add_learned')
  ):
    raise core.BadInput(
      f"change={change} must be at least 0, and not 0 with kind='continual' "
      f'and add_learned=False alone, not kind={kind!r}'
    )
  s = hypertransformer.settings_of(
    way * (tasks if kind == 'merged' else 1),
    norm=norm,
    logits_scale=logits_scale,
    head='prototypes',
    **settings,
  )
  if kind == 'constant':
    # All of the CNN is learned, and nothing is left that reads features.
    s = s._replace(trained_layers=s.depth, shared='none', features=1)
  if kind == 'merged' and (s.norm == 'batch' or s.shared.endswith('-bn')):
    raise core.BadInput(
      "kind='merged' would see later tasks in batch statistics; choose another "
      f'norm than {s.norm!r} and another shared than {s.shared!r}'
    )
  r = continual_rollout.Run(
    s,
    way,
    kind,
    scenario,
    tasks,
    change,
  )
  return learners.make_learner(
    lambda key, episode: _init(r, key, episode),
    lambda params, support, key, *, train: continual_rollout.adapt(
      r, params, support, key, train
    ),
    lambda params, task, x, context: _predict(r, task, x),
    lambda params, episode, key, step: _loss(r, params, episode, key),
    lambda params, episode, key: _evaluate(r, params, episode, key),
  )


make.__signature__ = learners.spelled_out(
  make, hypertransformer.make, without=NOT_HERE
)


def _init(r, key, episode):
  parts = continual_rollout.in_order(r, episode.support)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  return episode_network.init(r.s, key, core.Episode(first, first))


def _answers(r, task, x, steps):
  """Logits of queries under several theta_t.

  Args:
    r: `sequences.Run`.
    task: from `sequences.adapt`.
    x: f32[tau, Q, H, W, C], the queries of each task.
    steps: i32[n], which t.

  Returns:
    f32[n, tau, Q, T, N]; `NEVER` for prototypes that theta_t has not met.
  """
  tasks, rows = x.shape[:2]

  def at(t):
    cnn, prototypes = jax.tree.map(
      lambda leaf: leaf[t], (task['cnns'], task['prototypes'])
    )
    embed = functools.partial(episode_network.embed, r.s, cnn)
    if r.s.norm == 'batch':  # of the queries of one task
      features = jax.lax.map(embed, x)
    else:
      features = embed(x.reshape(-1, *x.shape[2:]))
    features = features.reshape(tasks * rows, -1)
    known = prototypes.reshape(-1, features.shape[-1])
    logits = -task['scale'] * losses.squared_distances(features, known)
    logits = logits.reshape(tasks, rows, -1, r.way)
    met = jnp.arange(logits.shape[2]) <= t
    return jnp.where(met[:, None], logits, NEVER)

  return jax.lax.map(at, steps)


def _by_part(r, task, x, steps):
  """Logits f32[n, Q, N] of queries of the one task of scenario 'batches'."""
  logits = _answers(r, task, x[None], steps)[:, 0]
  return jax.vmap(lambda one, t: one[:, t])(logits, steps)


def _steps(task):
  return jnp.arange(task['prototypes'].shape[0])


def _predict(r, task, x):
  last = _steps(task)[-1:]
  if r.scenario == 'batches':
    return _by_part(r, task, x, last)[0]
  return _answers(r, task, x, last)[0].reshape(*x.shape[:2], -1)


def _loss(r, params, episode, key):
  task = continual_rollout.adapt(r, params, episode.support, key, True)
  query = episode.query
  if r.scenario == 'batches':
    logits = _by_part(r, task, query.x, _steps(task))
    each = jax.vmap(losses.cross_entropy, (0, None))(logits, query.y)
    value = jnp.mean(each)
    metrics = {'accuracy': losses.accuracy(logits[-1], query.y)}
  else:
    logits = _answers(r, task, query.x, _steps(task))
    fits, right = continual_metrics.matrices(r.way, logits, query.y)
    met = jnp.tril(jnp.ones(right['class'].shape))
    value = jnp.sum(met * fits[r.scenario]) / jnp.sum(met)
    metrics = {
      'accuracy': jnp.mean(right[r.scenario][-1]),
      'accuracy_class': jnp.mean(right['class'][-1]),
      'accuracy_task': jnp.mean(right['task'][-1]),
    }
  return value, metrics


def _evaluate(r, params, episode, key):
  task = continual_rollout.adapt(r, params, episode.support, key, False)
  query = episode.query
  steps = _steps(task)
  if r.scenario == 'batches':
    logits = _by_part(r, task, query.x, steps)
    by_part = jax.vmap(losses.accuracy, (0, None))(logits, query.y)
    metrics = losses.classification_metrics(logits[-1], query.y)
    metrics.update(
      {f'accuracy_part_{t + 1}': by_part[t] for t in range(len(steps))}
    )
    return metrics
  logits = _answers(r, task, query.x, steps)
  fits, right = continual_metrics.matrices(r.way, logits, query.y)
  metrics = {
    'accuracy': jnp.mean(right[r.scenario][-1]),
    'nll': jnp.mean(fits[r.scenario][-1]),
  }
  for name, matrix in right.items():
    metrics.update(continual_metrics.summary(name, matrix))
  return metrics
