"""Classifies features as they are by well-known methods, for comparison.

Every `kind` fits a linear classifier, logits = z W + b, to one episode, of
transformed features z:

  nearest_mean  W, b of -scale |z - p_c|^2, p_c the class means of the support
  simpleshot    the same of z = (f - m) / |f - m|, m the mean of the training
                features (Wang et al. 2019, arXiv:1911.04623, CL2N)
  ridge         least squares of one-hot labels with a penalty of |W|^2
  logistic      logistic regression with a penalty of |W|^2
  finetune      gradient steps on the cross-entropy of the support, from zero
                (a linear Baseline, Chen et al. 2019, arXiv:1904.04232)
  soft_k_means  class means moved by unlabelled rows (Ren et al. 2018)
  tim           mutual information of unlabelled rows and their predictions is
                raised by gradient steps (Boudiaf et al. 2020)
  pt_map        optimal transport of unlabelled rows to the classes (Hu et al.
                2021)

The last three read the unlabelled rows, and `tim` and `pt_map` assume that they
are of the classes of the episode, `pt_map` (and softly `tim`) in equal numbers.
None reads other queries unless `episode.transductive` makes the queries the
unlabelled rows, as these papers do; results then say so.

Training finds m and nothing else: its loss is |f - m|^2 / 2, mean over the rows
of training episodes. So one run serves all kinds: `kind` and `transform` may be
overridden in evaluations. Features are those of the data set, or the pixels of
images, flattened, or their colour histograms.
"""

import dataclasses
from functools import partial
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.learners.baseline import inputs
from hyperudl.learners.baseline import supervised
from hyperudl.learners.baseline import unlabelled
from hyperudl.ops import losses

SUPPORTS = frozenset({'features'})
# What transforms features if `transform` is 'own': what the sources do.
_OWN = {'nearest_mean': 'none', 'simpleshot': 'centred', 'pt_map': 'power'}


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `baseline`; the defaults are those of the sources."""

  way: int = field(5, at_least=1)  # N
  kind: Literal[
    *('nearest_mean', 'simpleshot', 'ridge', 'logistic', 'finetune'),
    *('soft_k_means', 'tim', 'pt_map'),
  ] = 'simpleshot'
  # 'given': rows of the data set or, of images, pixels.
  features: Literal['given', 'color_histogram'] = 'given'
  bins: int = field(8, at_least=2, at_most=32)  # of a channel's histogram
  # 'own': that of the kind, 'l2' if its source has none; see `inputs`.
  transform: Literal['own', 'none', 'l2', 'centred', 'power'] = 'own'
  # Of squared distances (lambda of pt_map), and of the predictions of ridge.
  scale: float = field(10.0, above=0)
  penalty: float = field(1.0, above=0)  # of |W|^2: ridge, and twice logistic's
  fit_steps: int = field(100, at_least=1)  # of logistic and finetune
  finetune_rate: float = field(0.01, above=0)  # of Adam
  iterations: int = field(10, at_least=0)  # of soft_k_means
  tim_steps: int = field(1_000, at_least=0)
  tim_rate: float = field(1e-4, above=0)  # of Adam
  tim_scale: float = field(7.5, above=0)  # tau / 2
  # Weights of cross-entropy, marginal entropy and conditional entropy.
  tim_weights: tuple[float, ...] = field((0.1, 1.0, 0.1), at_least=0)
  map_steps: int = field(20, at_least=0)  # of pt_map
  map_rate: float = field(0.2, above=0, at_most=1)  # alpha of pt_map
  sinkhorn_steps: int = field(100, at_least=1)

  def __post_init__(self):
    hyperparameters.check(self)
    if len(self.tim_weights) != 3:
      raise ValueError(f'tim_weights = {self.tim_weights}: expected three')


class Task(NamedTuple):
  """A linear classifier of transformed features."""

  weights: jax.Array  # f32[D, N]
  bias: jax.Array  # f32[N]
  offset: jax.Array  # f32[D], by which pt_map centres queries; else 0


def make(config: Config) -> core.Learner:
  """Make the `baseline` learner; its task is a `Task`."""
  functions = _init, _adapt, _predict, _loss
  return learners.make_learner(*(partial(f, config) for f in functions))


def _init(config, key, episode):
  """Return {'mean'}, that of the training features; zero before training."""
  del key
  return {'mean': jnp.zeros_like(inputs.read(config, episode.support.x)[0])}


def _transformed(config, params, x):
  name = config.transform
  if name == 'own':
    name = _OWN.get(config.kind, 'l2')
  return inputs.transform(name, inputs.read(config, x), params['mean'])


def _adapt(config, params, support, key, *, train):
  del key, train
  z = _transformed(config, params, support.x)
  rows = jnp.asarray(support.y < 0, z.dtype)
  one_hot = jax.nn.one_hot(support.y, config.way, dtype=z.dtype)
  offset = jnp.zeros_like(z[0])
  means = losses.class_means(z, support.y, config.way)
  if config.kind in ('nearest_mean', 'simpleshot'):
    linear = supervised.of_means(means, config.scale)
  elif config.kind == 'soft_k_means':
    linear = unlabelled.soft_k_means(config, means, z, one_hot, rows)
  elif config.kind == 'tim':
    linear = unlabelled.tim(config, means, z, one_hot, rows)
  elif config.kind == 'pt_map':
    z, offset = unlabelled.centre(z, rows)
    linear = unlabelled.pt_map(config, z, one_hot, rows)
  else:
    linear = getattr(supervised, config.kind)(config, z, one_hot)
  return Task(*linear, offset)


def _predict(config, params, task, x, context):
  """Return logits f32[n, N] of images f32[n, H, W, C] or rows f32[n, D]."""
  del context
  z = _transformed(config, params, x)
  if config.kind == 'pt_map':
    z = losses.unit(z - task.offset)
  return z @ task.weights + task.bias


def _loss(config, params, episode, key, step):
  del key, step
  x = jnp.concatenate([episode.support.x, episode.query.x])
  gaps = inputs.read(config, x) - params['mean']
  value = jnp.mean(jnp.sum(jnp.square(gaps), axis=1)) / 2
  return value, {'mean_norm': jnp.linalg.norm(params['mean'])}
