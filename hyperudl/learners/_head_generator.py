"""Generates the linear head of a task from its features by a hypernetwork.

`hypermaml` explains the method; `bayeshmaml` generates a distribution of heads.
"""

from collections.abc import Callable
import dataclasses
import operator
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl.core import hyperparameters
from hyperudl.core.config import ConfigDict
from hyperudl.core.hyperparameters import field
from hyperudl.nets import backbones
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

Head = dict[str, jax.Array]  # {'kernel': f32[D, N], 'bias': f32[N]}
UPDATES = {
  'minus': operator.sub,
  'plus': operator.add,
  'multiply': operator.mul,
}


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters that `hypermaml` and `bayeshmaml` share."""

  way: int = field(5, at_least=1)  # N
  backbone: backbones.Backbone = 'conv'
  channels: tuple[int, ...] = field((64, 64, 64, 64), at_least=1)  # of blocks
  norm: backbones.Norm = 'batch'
  features: Literal['flatten', 'mean'] = 'mean'  # input of the head
  hidden: int = field(256, at_least=1)  # width of the hypernetwork
  layers: int = field(3, at_least=2)  # of the hypernetwork
  enhance: bool = True  # append predictions of the universal head to features
  # How labels are appended to features.
  labels: Literal['one_hot', 'index', 'none'] = 'one_hot'
  aggregation: Literal['concat', 'mean'] = 'concat'  # of a class's rows
  update: Literal['minus', 'plus', 'multiply'] = 'minus'  # of theta by delta
  detach_features: bool = False  # stop all gradients into the feature net
  detach_hypernetwork: bool = False  # stop gradients into its inputs
  delta_weight: float = 0.0  # lambda, weight of |delta|^2
  support_loss: bool = False  # add the support to the queries of the outer loss
  # Outer steps by gradients, and of the transition.
  warmup_steps: int = field(0, at_least=0, below='steps')
  switch_steps: int = field(0, at_least=0, below='steps')
  inner_steps: int = field(5, at_least=1)  # J, of the warm-up
  inner_rate: float = 0.01  # alpha, of the warm-up
  # In evaluation: number of Adam steps on CE(support) for each task, on a copy
  # of all parameters, and their learning rate.
  finetune_steps: int = field(0, at_least=0)
  finetune_rate: float = 1e-4

  def __post_init__(self):
    hyperparameters.check(self)
    _trunk_net(self)  # checks that the backbone has these options


def check_run(config: ConfigDict) -> None:
  """Refuse a run that tests a hypernetwork that it did not train.

  Raises:
    core.BadInput: if the gradient steps of the warm-up do not end within the
      run, or checkpoints from before their end may be selected.
  """
  learner = config.learner
  end = learner.warmup_steps + learner.switch_steps
  if end >= config.steps:
    raise core.BadInput(
      f'config.learner.warmup_steps + switch_steps = {end} leave none of '
      f'config.steps = {config.steps} to the hypernetwork alone, which is '
      'what evaluations use: shorten them or train longer'
    )
  if config.eval.select_after < end:
    raise core.BadInput(
      f'config.eval.select_after = {config.eval.select_after} is before step '
      f'{end}, where warmup_steps + switch_steps end, and evaluations use the '
      f'hypernetwork alone: set it to {end} or more'
    )


class Hypernetwork(nn.Module):
  """Maps f32[N, F] to f32[N, out] by a ReLU perceptron shared by all rows.

  Attributes:
    hidden: width of the hidden layers.
    layers: number of linear layers, >= 2.
    out: width of the last layer.
  """

  hidden: int
  layers: int
  out: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for _ in range(self.layers - 1):
      x = jax.nn.relu(nn.Dense(self.hidden)(x))
    return nn.Dense(self.out)(x)


def init(
  config: Config, key: jax.Array, episode: core.Episode, outputs: int = 1
) -> dict[str, core.PyTree]:
  """Return 'trunk' (feature net), 'head' (universal) and 'hypernetwork'.

  Args:
    config: hyperparameters.
    key: PRNG key.
    episode: only the shapes of its support are used.
    outputs: numbers generated for each weight of a head.
  """
  trunk_key, head_key, hypernetwork_key = jax.random.split(key, 3)
  x, y = episode.support.x, episode.support.y
  trunk = _trunk_net(config).init(trunk_key, x[:1])['params']
  features = embed(config, trunk, x)
  shape = features.shape[-1], config.way
  head = {
    'kernel': nn.initializers.lecun_normal()(head_key, shape, jnp.float32),
    'bias': jnp.zeros((config.way,), jnp.float32),
  }
  rows = _class_inputs(config, head, core.Examples(features, y))
  net = _hypernetwork(config, features, outputs)
  hypernetwork = net.init(hypernetwork_key, rows)['params']
  return {'trunk': trunk, 'head': head, 'hypernetwork': hypernetwork}


def embed(config: Config, trunk: core.PyTree, x: jax.Array) -> jax.Array:
  """Return features f32[n, D] of images f32[n, H, W, C]."""
  features = _trunk_net(config).apply({'params': trunk}, x)
  return jax.lax.stop_gradient(features) if config.detach_features else features


def linear(head: Head, features: jax.Array) -> jax.Array:
  """Return logits f32[n, N] of f32[n, D]."""
  return features @ head['kernel'] + head['bias']


def generate(
  config: Config, params: core.PyTree, support: core.Examples, outputs: int = 1
) -> list[Head]:
  """Return `outputs` generated heads for a support of features f32[S, D]."""
  generated = _hypernetwork(config, support.x, outputs).apply(
    {'params': params['hypernetwork']},
    _class_inputs(config, params['head'], support),
  )
  parts = jnp.split(generated, outputs, axis=-1)
  return [{'kernel': p[:, :-1].T, 'bias': p[:, -1]} for p in parts]


def adapt_head(
  config: Config,
  head: Head,
  delta: Head,
  support: core.Examples,
  p: jax.Array,
  penalty: jax.Array | float = 0.0,
) -> Head:
  """Return the head of a task: gradient steps times p, then delta times 1 - p.

  Args:
    config: hyperparameters.
    head: the universal head.
    delta: from `generate`.
    support: features f32[S, D] and labels.
    p: f32[], from `gradient_fraction`.
    penalty: f32[], weight of |head|^2 / 2 in the loss of the gradient steps.
  """

  def by_gradient(head):
    rates = gradient_descent.make_rates(
      head, config.inner_steps, p * config.inner_rate, 'step'
    )

    def loss(head, k):
      value = losses.cross_entropy(linear(head, support.x), support.y)
      return value + 0.5 * penalty * optax.tree.norm(head, squared=True)

    return gradient_descent.descend(loss, head, rates)[0]

  if config.warmup_steps or config.switch_steps:
    head = jax.lax.cond(p > 0, by_gradient, lambda head: head, head)
  changed = jax.tree.map(UPDATES[config.update], head, delta)
  return jax.tree.map(lambda old, new: p * old + (1 - p) * new, head, changed)


def finetune(
  config: Config,
  params: core.PyTree,
  support: core.Examples,
  task_head: Callable[[core.PyTree], tuple[Head, core.Examples]],
) -> core.PyTree:
  """Return all parameters after `finetune_steps` on the support.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: images and labels.
    task_head: params -> (head of the task, embedded support).
  """

  def loss(params, k):
    head, embedded = task_head(params)
    return losses.cross_entropy(linear(head, embedded.x), support.y)

  adam, steps = optax.adam(config.finetune_rate), config.finetune_steps
  return gradient_descent.optimise(loss, params, adam, steps)[0]


def gradient_fraction(config: Config, step: jax.Array) -> jax.Array:
  """Return p f32[]: 1 for `warmup_steps`, then falling to 0 in `switch_steps`.

  p = (W + S - t) / (S + 1) for W <= t < W + S, with W the warm-up steps, S the
  switch steps and t the outer step.
  """
  left = config.warmup_steps + config.switch_steps - step
  fraction = jnp.clip(left / (config.switch_steps + 1), 0.0, 1.0)
  fraction = jnp.where(step < config.warmup_steps, 1.0, fraction)
  return fraction.astype(jnp.float32)


def outer_cross_entropy(
  config: Config, query: core.Examples, support: core.Examples
) -> jax.Array:
  """Return the cross-entropy of the queries, and of the support if configured.

  Args:
    config: hyperparameters.
    query: logits f32[Q, N] in place of images, and labels.
    support: logits f32[S, N] in place of images, and labels.
  """
  if config.support_loss:
    query = jax.tree.map(lambda *xs: jnp.concatenate(xs), query, support)
  return losses.cross_entropy(query.x, query.y)


def _trunk_net(config):
  return backbones.make(
    config.backbone, config.channels, config.norm, features=config.features
  )


def _hypernetwork(config, features, outputs):
  width = features.shape[-1] + 1
  return Hypernetwork(config.hidden, config.layers, outputs * width)


def _class_inputs(config, head, support):
  """Return the hypernetwork's input for each class, f32[N, F]."""
  features, y = support.x, support.y
  parts = [features]
  if config.enhance:
    predictions = jax.nn.softmax(linear(head, features))
    parts.append(jax.lax.stop_gradient(predictions))
  if config.labels == 'one_hot':
    parts.append(jax.nn.one_hot(y, config.way))
  elif config.labels == 'index':
    parts.append(y[:, None].astype(features.dtype))
  rows = jnp.concatenate(parts, axis=-1)
  if config.detach_hypernetwork:
    rows = jax.lax.stop_gradient(rows)
  if config.aggregation == 'mean':
    return losses.class_means(rows, y, config.way)
  return _concatenate_by_class(rows, y, config.way)


def _concatenate_by_class(rows, y, way):
  """Concatenate the rows of each class: f32[S, F] -> f32[N, K F].

  K is S / N; a class with fewer labelled rows is padded with zeros.
  """
  shots = rows.shape[0] // way
  one_hot = jax.nn.one_hot(y, way, dtype=rows.dtype)
  place = jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=1)
  slot = jax.nn.one_hot(place.astype(jnp.int32), shots, dtype=rows.dtype)
  placed = jnp.einsum('ic,ik,if->ckf', one_hot, slot, rows)
  return placed.reshape(way, -1)
