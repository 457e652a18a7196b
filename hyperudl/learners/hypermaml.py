"""Replaces the inner gradient of the classifier by a hypernetwork: HyperMAML.

Przewiezlikowski et al. 2022, arXiv:2205.15745. With z_i = f_phi(x_i) and a
universal head theta = (W, b):
  e_i   = [z_i; stop(softmax(W z_i + b)); label of i]       enhancement
  delta = H(rows e of class c), one row of W and one entry of b, for each c
  theta' = theta - delta                                    no gradient step
  outer loss = CE(queries; phi, theta') + lambda |delta|^2
H is one perceptron for all classes ('class batch' of the reference). During the
first `warmup_steps` outer steps J gradient steps update the head instead, and
during the next `switch_steps` both do, with a fraction p that falls to zero:
  theta <- theta - p alpha grad CE(support; theta), J times;
  theta' = theta - (1 - p) delta
(The reference adds (1 - p) delta at each of the J steps, so its head jumps from
J deltas to one as p reaches zero; ours is continuous in p.) Evaluation always
uses only delta, so models should be selected among those after the warm-up
(`eval.select_after`).

Differences from the reference: a label is a one-hot vector (labels='index'
gives the single number of the reference); the enhancement reads the universal
head (there a head already changed by the previous task); unlabelled rows do not
count.
Published: Omniglot -> EMNIST 5-way 1-shot 79.07 +- 1.09, CUB 66.11 +- .28,
mini-ImageNet 51.84 +- .57.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import _head_generator
from hyperudl.ops import losses

check_run = _head_generator.check_run  # see `learners.check_run`
gradient_fraction = _head_generator.gradient_fraction
Config = _head_generator.Config


def make(config: Config) -> core.Learner:
  """Make the `hypermaml` learner; its task is the feature net and the head."""
  functions = _head_generator.init, _adapt, _predict, _loss
  return learners.make_learner(*(partial(f, config) for f in functions))


def _adapt(config, params, support, key, *, train):
  """Return {'trunk': parameters of the feature net, 'head': of the task}."""
  del key
  if config.finetune_steps and not train:
    params = _head_generator.finetune(
      config,
      *(params, support),
      lambda params: _task_head(config, params, support)[::2],
    )
  head, _, _ = _task_head(config, params, support)
  return {'trunk': params['trunk'], 'head': head}


def _predict(config, params, task, x, context):
  """Return logits f32[Q, N] of f32[Q, H, W, C] under the task's head."""
  del params, context
  features = _head_generator.embed(config, task['trunk'], x)
  return _head_generator.linear(task['head'], features)


def _loss(config, params, episode, key, step):
  """Return the outer loss f32[] at outer step i32[], and metrics."""
  del key
  query = episode.query
  p = gradient_fraction(config, step)
  head, delta, support = _task_head(config, params, episode.support, p)
  logits = _predict(config, None, {**params, 'head': head}, query.x, None)
  support_logits = _head_generator.linear(head, support.x)
  value = _head_generator.outer_cross_entropy(
    config,
    core.Examples(logits, query.y),
    core.Examples(support_logits, support.y),
  )
  size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(delta))
  metrics = {
    'accuracy': losses.accuracy(logits, query.y),
    'gradient_share': p,
    'delta_norm': jnp.sqrt(size),
  }
  return value + config.delta_weight * size, metrics


def _task_head(config, params, support, p=0.0):
  """Return the head of a task, delta, and the support's features and labels."""
  features = _head_generator.embed(config, params['trunk'], support.x)
  support = core.Examples(features, support.y)
  (delta,) = _head_generator.generate(config, params, support)
  head = _head_generator.adapt_head(
    config, params['head'], delta, support, jnp.float32(p)
  )
  return head, delta, support
