"""Generates the classifier of a task from a kernel matrix: HyperShot.

Sendera et al. 2023, arXiv:2203.11378. With class means z_c of the features of
the support and a kernel k:
  K     = k(z_c, z_c')                          N x N, of the support
  theta = H(K), the weights of a small perceptron T with N inputs and outputs
  p(y | x) = softmax(T_theta(k(f(x), z_1), ..., k(f(x), z_N)))
  outer loss = CE(queries) + CE(the class means themselves)
so T classifies an image by how it relates to all classes; in place of inner
steps, one pass of H adapts. H has common layers, then a perceptron of its own
for each layer of T. Evaluation may fine-tune a copy of all parameters on the
support (`finetune_steps`).

Differences from the reference: H starts with weights of T that have the
variance 2 / fan-in (Chang et al. 2020, hyperfan-in), and K shots are always
averaged. Published (Omniglot -> EMNIST 5-way 1-shot, alone and fine-tuned):
78.06 +- .24 and 80.65 +- .30; CUB 65.27 +- .24 and 66.13 +- .26.
"""

import dataclasses
from functools import partial
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.nets import backbones
from hyperudl.nets import mlp
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `hypershot`."""

  way: int = field(5, at_least=1)  # N
  backbone: backbones.Backbone = 'conv'
  channels: tuple[int, ...] = field((64, 64, 64, 64), at_least=1)  # of blocks
  norm: backbones.Norm = 'batch'
  features: Literal['flatten', 'mean'] = 'mean'  # what the kernel compares
  kernel: Literal['cosine', 'dot'] = 'cosine'
  hidden: int = field(512, at_least=1)  # width of the hypernetwork
  common_layers: int = field(1, at_least=0)  # of the hypernetwork
  layers: int = field(2, at_least=1)  # further ones, for each generated layer
  target: tuple[int, ...] = field((128,), at_least=1)  # hidden widths of T
  support_loss: bool = True  # count the class means in the outer loss
  # In evaluation: number of Adam steps on the loss of the class means for each
  # task, on a copy of all parameters, and their learning rate.
  finetune_steps: int = field(0, at_least=0)
  finetune_rate: float = 1e-4

  def __post_init__(self):
    hyperparameters.check(self)
    _net(self)  # checks that the backbone has these options


def make(config: Config) -> core.Learner:
  """Make the `hypershot` learner; its task: see `_adapt`."""
  functions = _init, _adapt, _predict, _loss
  return learners.make_learner(*(partial(f, config) for f in functions))


def kernel(config: Config, a: jax.Array, b: jax.Array) -> jax.Array:
  """Return k(a_i, b_j) f32[n, m] of features f32[n, D] and f32[m, D]."""
  if config.kernel == 'cosine':
    a, b = losses.unit(a), losses.unit(b)
  return a @ b.T


def generate(
  config: Config, params: core.PyTree, matrix: jax.Array
) -> tuple[mlp.Layer, ...]:
  """Return the layers of T for a kernel matrix f32[N, N]."""
  x = matrix.reshape(-1)
  for layer in params['common']:
    x = jax.nn.relu(mlp.dense(layer, x))
  target = []
  for (rows, columns), head in zip(_shapes(config), params['heads']):
    flat = mlp.apply(head, x, jax.nn.relu)
    kernel_size = rows * columns
    target.append(
      {
        'kernel': flat[:kernel_size].reshape(rows, columns),
        'bias': flat[kernel_size:],
      }
    )
  return tuple(target)


def _init(config, key, episode):
  """Return 'net' (the embedding), 'common' and 'heads' of the hypernetwork."""
  net_key, common_key, heads_key = jax.random.split(key, 3)
  net = _net(config).init(net_key, episode.support.x[:1])['params']
  common = [config.way**2] + [config.hidden] * config.common_layers
  shapes, heads = _shapes(config), []
  for head_key, shape in zip(jax.random.split(heads_key, len(shapes)), shapes):
    rows, columns = shape
    hidden = [config.hidden] * (config.layers - 1)
    sizes = [common[-1], *hidden, (rows + 1) * columns]
    # `mlp.init` gives outputs a variance of about 2, scaled here by 1 / rows.
    heads.append(mlp.init(head_key, sizes, last_scale=rows**-0.5))
  widths = mlp.init(common_key, common) if config.common_layers else ()
  return {'net': net, 'common': widths, 'heads': tuple(heads)}


def _adapt(config, params, support, key, *, train):
  """Return {'net', 'means' f32[N, D], 'target': the layers of T}."""
  del key
  if config.finetune_steps and not train:
    params, _ = gradient_descent.optimise(
      lambda params, k: _support_loss(config, _task(config, params, support)),
      params,
      optax.adam(config.finetune_rate),
      config.finetune_steps,
    )
  return _task(config, params, support)


def _predict(config, params, task, x, context):
  """Return logits f32[Q, N] of f32[Q, H, W, C] under the task's classifier."""
  del params, context
  features = _net(config).apply({'params': task['net']}, x)
  return _classify(config, task, features)


def _loss(config, params, episode, key, step):
  """Return the outer loss f32[] and metrics."""
  del key, step
  task, query = _task(config, params, episode.support), episode.query
  logits = _predict(config, None, task, query.x, None)
  value = losses.cross_entropy(logits, query.y)
  support = _support_loss(config, task)
  metrics = {
    'accuracy': losses.accuracy(logits, query.y),
    'support_loss': support,
  }
  if not config.support_loss:
    return value, metrics
  # One mean over queries and class means, as in the reference.
  count = len(query.y)
  total = count * value + config.way * support
  return total / (count + config.way), metrics


def _task(config, params, support):
  features = _net(config).apply({'params': params['net']}, support.x)
  means = losses.class_means(features, support.y, config.way)
  target = generate(config, params, kernel(config, means, means))
  return {'net': params['net'], 'means': means, 'target': target}


def _classify(config, task, features):
  relations = kernel(config, features, task['means'])
  return mlp.apply(task['target'], relations, jax.nn.relu)


def _support_loss(config, task):
  logits = _classify(config, task, task['means'])
  return losses.cross_entropy(logits, jnp.arange(config.way))


def _shapes(config):
  """Return the shapes (rows, columns) of the kernels of T."""
  return list(itertools.pairwise((config.way, *config.target, config.way)))


def _net(config):
  return backbones.make(
    config.backbone,
    config.channels,
    config.norm,
    features=config.features,
  )
