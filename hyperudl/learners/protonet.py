"""Classifies by the nearest class mean: prototypical networks.

Snell et al. 2017, arXiv:1703.05175, eq. 1-2:
  p_c = mean of f(x_i) over the support of class c;
  p(y = c | x) = softmax_c(-scale * d(f(x), p_c)).
d is the squared Euclidean distance ('l2'), 1 - cosine ('cosine') or minus
the inner product ('dot'). The learned `scale` is our addition; with 'cosine'
and scale 1 the softmax cannot be confident (the largest ratio of two
probabilities is e^2).
Published: Omniglot 98.8 / 99.7 (5-way 1- / 5-shot, 60-way training).
Unlabelled images can refine the prototypes by soft k-means (Ren et al. 2018,
arXiv:1803.00676, eq. 3-4), `refine` times:
  r_uc = p(y = c | x_u),  p_c = (sum_i f(x_i) + sum_u r_uc f(x_u))
                                / (K + sum_u r_uc).
With `gate` two numbers in (0, 1) and (.2, 1.7), which a small network computes
from the predictions as in `udl`, multiply the weight of unlabelled images and
the scale of r_uc:
  p_c = (sum_i f(x_i) + g sum_u r_uc f(x_u)) / (K + g sum_u r_uc).
`norm='batch'` uses the statistics of the current batch of images, which is
transductive at query time; 'group' and 'layer' are not.

On features f32[n, D] of another encoder f is centring by a learned point, which
starts as the mean of the first episode, and then an MLP if it has `widths`;
`backbone`, `channels` and `norm` are not used. l2 does not depend on the point.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.learners.udl import gates
from hyperudl.nets import backbones
from hyperudl.nets import feature_net
from hyperudl.ops import clustering
from hyperudl.ops import losses
from hyperudl.ops import normalization

SUPPORTS = frozenset({'features', 'varies'})


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `protonet`."""

  way: int = field(5, at_least=1)  # N
  backbone: backbones.Backbone = 'conv'
  channels: tuple[int, ...] = field((64, 64, 64, 64), at_least=1)  # of blocks
  norm: backbones.Norm = 'batch'
  distance: Literal['l2', 'cosine', 'dot'] = 'l2'  # l2: squared Euclidean
  scale: float = field(1.0, above=0)  # initial inverse temperature
  learn_scale: bool = True  # whether the outer loop trains log(scale)
  # Iterations of soft k-means with the unlabelled rows.
  refine: int = field(0, at_least=0)
  gate: bool = False  # whether a learned gate scales this refinement
  # Layers of the MLP for features in place of images; (): none.
  widths: tuple[int, ...] = field((), at_least=1)
  varies: bool = False  # see `learners.make`

  def __post_init__(self):
    hyperparameters.check(self)
    _net(self)  # checks that the backbone has these options
    if self.gate and not self.refine:
      raise ValueError('gate=True scales the refinement: set refine >= 1')


def make(config: Config) -> core.Learner:
  """Make the `protonet` learner.

  Its task is the prototypes f32[N, D]; if `config.varies`, a tuple of them and
  of bool[N], the classes that the episode has.
  """
  return learners.make_learner(
    partial(init, config),
    partial(_adapt, config),
    partial(predict, config),
    evaluate=partial(_evaluate, config),
  )


def init(
  config: Config, key: jax.Array, episode: core.Episode
) -> dict[str, core.PyTree]:
  """Return 'net' (the embedding), and 'log_scale' if it is learned."""
  x = episode.support.x
  if x.ndim == 2:
    params = {'net': feature_net.init(key, x, config.widths)}
  else:
    params = {'net': _net(config).init(key, x[:1])['params']}
  if config.learn_scale:
    params['log_scale'] = jnp.log(jnp.asarray(config.scale, jnp.float32))
  if config.gate:
    gate_key = jax.random.fold_in(key, 1)
    params['gate'] = gates.init_network(gate_key, gates.PREDICTION_INPUTS, 2)
  return params


def predict(
  config: Config,
  params: core.PyTree,
  task: core.PyTree,
  x: jax.Array,
  context: core.PyTree,
) -> jax.Array:
  """Return logits f32[n, N] of images f32[n, H, W, C]."""
  del context
  return _logits(config, params, task, embed(config, params, x))


def embed(
  config: Config,
  params: core.PyTree,
  x: jax.Array,
  y: jax.Array | None = None,
) -> jax.Array:
  """Return features f32[n, D] of images f32[n, H, W, C] or f32[n, E].

  If `config.varies`, rows whose label y i32[n] is `core.NO_IMAGE` have no
  influence on those of others.
  """
  if x.ndim == 2:
    return feature_net.apply(params['net'], x)
  domains = None
  if config.varies and y is not None:
    domains = normalization.counting(y != core.NO_IMAGE)
  return _net(config).apply({'params': params['net']}, x, domains)


def classify(
  config: Config,
  params: core.PyTree,
  prototypes: jax.Array,
  features: jax.Array,
) -> jax.Array:
  """Return logits f32[n, N] of features f32[n, D] by prototypes f32[N, D]."""
  scale = jnp.exp(params['log_scale']) if config.learn_scale else config.scale
  if config.distance == 'l2':
    return -scale * losses.squared_distances(features, prototypes)
  if config.distance == 'cosine':
    return scale * (losses.unit(features) @ losses.unit(prototypes).T - 1)
  return scale * features @ prototypes.T


def refine(
  config: Config,
  params: core.PyTree,
  prototypes: jax.Array,
  features: jax.Array,
  y: jax.Array,
) -> jax.Array:
  """Return prototypes after `config.refine` iterations of soft k-means.

  Args:
    config: hyperparameters.
    params: from `init`.
    prototypes: f32[N, D], class means of the labelled rows.
    features: f32[S, D], of the support.
    y: i32[S]; -1 marks unlabelled rows.
  """
  one_hot = jax.nn.one_hot(y, config.way, dtype=features.dtype)
  unlabelled = (y == -1).astype(features.dtype)
  present = _present(config, y)
  logits = lambda features, means: losses.mask_absent(
    classify(config, params, means, features), present
  )
  mass, scale = 1.0, 1.0
  if config.gate:
    inputs = gates.prediction_inputs(
      *(features, features, logits(features, prototypes)),
      *(unlabelled, (y >= 0).astype(features.dtype)),
    )
    mass, scale = gates.apply_network(params['gate'], inputs)
    scale = gates.as_scale(scale)
  return clustering.soft_k_means(
    prototypes,
    features,
    weights=mass * unlabelled,
    init_counts=jnp.sum(one_hot, axis=0)[:, None],
    logits=lambda features, means: scale * logits(features, means),
    iterations=config.refine,
  )


def _adapt(config, params, support, key, *, train):
  del key, train
  features = embed(config, params, support.x, support.y)
  prototypes = losses.class_means(features, support.y, config.way)
  prototypes = refine(config, params, prototypes, features, support.y)
  present = _present(config, support.y)
  return prototypes if present is None else (prototypes, present)


def _present(config, y):
  """Return the classes bool[N] that an episode has; None for all of them."""
  return losses.class_counts(y, config.way) > 0 if config.varies else None


def _logits(config, params, task, features):
  prototypes, present = task if config.varies else (task, None)
  logits = classify(config, params, prototypes, features)
  return losses.mask_absent(logits, present)


def _evaluate(config, params, episode, key):
  task = _adapt(config, params, episode.support, key, train=False)
  features = embed(config, params, episode.query.x)
  logits = _logits(config, params, task, features)
  return {
    **losses.classification_metrics(logits, episode.query.y),
    'points/support': embed(
      config, params, episode.support.x, episode.support.y
    ),
    'points/query': features,
  }


def _net(config):
  return backbones.make(config.backbone, config.channels, config.norm)
