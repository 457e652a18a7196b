"""Classifies a query by a transformer that reads it together with the support.

CAML, Fifty et al. 2024, arXiv:2310.10971. No weights are generated and nothing
is adapted: with features f and vectors e of labels, the tokens
  [f(x), e_unknown], [f(x_1), e(y_1)], ..., [f(x_S), e(y_S)]
pass through a transformer without positions, in which all tokens attend to all
others, and a linear layer reads the label of x from its own token. The vectors
of labels are fixed and all at the same angle (section 4), or learned; the
classes of a support get different ones at random (see
`nets/label_encodings.py`). e_unknown is learned; unlabelled images have it too.

The support is read anew for each query, so that a query costs as much as a
whole adaptation: generating a network pays where many queries follow one
support.

Differences from the paper: features are those of a backbone trained here
(`init_from.net` starts from another run), through a linear layer, not those of
a large frozen encoder; the transformer is smaller.

On features f32[n, D] of another encoder there is no backbone: these are centred
by a learned point.
"""

import dataclasses
from functools import partial
from typing import Literal
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.learners import protonet
from hyperudl.nets import backbones
from hyperudl.nets import feature_net
from hyperudl.nets import label_encodings
from hyperudl.nets import transformer
from hyperudl.ops import losses

SUPPORTS = frozenset({'features', 'varies', 'missing_classes'})


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `caml`."""

  way: int = field(5, at_least=1)  # N, at most 20
  backbone: backbones.Backbone = 'conv'
  channels: tuple[int, ...] = field((64, 64, 64, 64), at_least=1)  # of blocks
  norm: backbones.Norm = 'batch'
  width: int = field(128, at_least=1)  # of a token, a multiple of heads
  label_width: int = field(32, at_least=1)  # of it for the label, below `width`
  label_encoding: Literal['equiangular', 'random_table'] = 'equiangular'
  layers: int = field(4, at_least=1)
  heads: int = field(4, at_least=1)
  inner: float = field(2.0, above=0)  # hidden width, see `transformer.Encoder`
  varies: bool = False  # see `learners.make`

  def __post_init__(self):
    hyperparameters.check(self)
    _net(self)  # checks that the backbone has these options
    if self.width % self.heads or self.label_width >= self.width:
      raise ValueError(
        f'width = {self.width} must be a multiple of heads = {self.heads} and '
        f'above label_width = {self.label_width}'
      )
    label_encodings.check(self.label_encoding, self.way, self.label_width)


class Task(NamedTuple):
  """What a query is read with."""

  features: jax.Array  # f32[S, D], of the support
  y: jax.Array  # i32[S]; -1: no label, `core.NO_IMAGE`: no image
  slots: jax.Array  # i32[N], the vectors of classes, see `label_encodings`


class Reader(nn.Module):
  """Classifies one query together with a support."""

  config: Config

  @nn.compact
  def __call__(self, query: jax.Array, task: Task) -> jax.Array:
    """Return logits f32[N] of the features f32[D] of one query."""
    config = self.config
    kind, width = config.label_encoding, config.label_width
    encodings = label_encodings.encode(
      self, kind, config.way, width, std=1.0, slots=task.slots
    )
    y = jnp.append(-1, task.y)
    labels = encodings[jnp.where(y < 0, config.way, y)]
    features = jnp.concatenate([query[None], task.features])
    features = nn.Dense(config.width - width, name='in')(features)
    tokens = jnp.concatenate([features, labels], axis=1)
    tokens = transformer.Encoder(
      *(config.layers, config.heads),
      inner=config.inner,
      activation='gelu',
      norm='pre',
      name='transformer',
    )(tokens, y == core.NO_IMAGE)
    return nn.Dense(label_encodings.SLOTS, name='out')(tokens[0])[task.slots]


def make(config: Config) -> core.Learner:
  """Make the `caml` learner; its task is a `Task`."""
  functions = _init, _adapt, _predict
  return learners.make_learner(*(partial(f, config) for f in functions))


def _init(config, key, episode):
  """Return 'net' (the embedding) and 'reader' (the transformer)."""
  net_key, key = jax.random.split(key)
  x = episode.support.x
  if x.ndim == 2:
    net = feature_net.init(net_key, x, ())
  else:
    net = _net(config).init(net_key, x[:1])['params']
  task = _adapt(config, {'net': net}, episode.support, None, train=True)
  reader = Reader(config).init(key, task.features[0], task)['params']
  return {'net': net, 'reader': reader}


def _adapt(config, params, support, key, *, train):
  del key, train
  slots = label_encodings.assign(support.x, support.y, config.way)
  features = protonet.embed(config, params, support.x, support.y)
  return Task(features, support.y, slots)


def _predict(config, params, task, x, context):
  """Return logits f32[Q, N] of f32[Q, H, W, C]; absent classes get none."""
  del context
  read = lambda query: Reader(config).apply(
    {'params': params['reader']}, query, task
  )
  logits = jax.vmap(read)(protonet.embed(config, params, x))
  return losses.mask_absent(logits, losses.class_counts(task.y, config.way) > 0)


def _net(config):
  return backbones.make(config.backbone, config.channels, config.norm)
