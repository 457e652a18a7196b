"""Extends prototypical networks by generated features added to the support.

Wang et al. 2018, arXiv:1801.05401: for each class, M generated features
  h_m = G(f(x_i), noise_m),  x_i a random labelled image of the class,
are added to the K real ones, and the prototype is the mean of all of them; G is
trained jointly with the embedding by the episodic loss. There are two
generators:

  residual  relu(z + MLP([z; noise])) whose last layer starts at zero, so that
            at first G(z, noise) = z for non-negative features;
  source    the form of the code that this follows: [z; noise] with noise of
            size D, two layers of width 1.5 D with ReLU and dropout .5, then one
            of width D with ReLU (3200-2400-2400-1600 for the D = 1600 features
            of 84 x 84 images).

With weight='count' the hallucinations weigh as much as M real features (at
K = 1, M = 100 the real one then has weight 1 / 101); with 'learned' all of them
together weigh as much as e^(log_mass) real features, for any M. noise='zero' is
a control: G(z, 0) is the same for all M draws of an image, so it only shifts
the prototype. noise='fixed' uses one constant noise vector for all classes,
images and episodes. Metrics of the hallucinations:

  diversity        tr Cov of a class's hallucinations / tr Cov of its queries;
  purity           fraction of hallucinations for which the nearest true mean
                   (of support and queries) is that of their own class;
  prototype_error  |p - p_true| / |p_K - p_true|, where p and p_K are prototypes
                   with and without hallucinations: below 1 they help.

With M = 0 this is `protonet`.
"""

import dataclasses
from functools import partial
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners import protonet
from hyperudl.ops import losses

FIXED_NOISE_SEED = 0


@dataclasses.dataclass(frozen=True)
class Config(protonet.Config):
  """Hyperparameters of `hallucination`."""

  count: int = field(10, at_least=0)  # M, for each class
  test_count: int = field(-1, at_least=-1)  # M of evaluations; -1: `count`
  generator: Literal['residual', 'source'] = 'residual'
  hidden: int = field(256, at_least=1)  # width of 'residual'
  noise_size: int = field(64, at_least=1)  # of 'residual'; D for 'source'
  noise: Literal['gaussian', 'zero', 'fixed'] = 'gaussian'
  weight: Literal['count', 'learned'] = 'learned'
  mass: float = field(1.0, above=0)  # initial e^(log_mass), in real features
  dropout: float = field(0.5, at_least=0, below=1)  # of 'source', in training
  # Freeze the embedding, loaded from another run (`init_from.protonet`), and
  # train only the generator. If False, `init_from.net` gives a warm start.
  frozen: bool = False


class Generator(nn.Module):
  """Maps features f32[n, D] and noise f32[n, noise] to features f32[n, D] >= 0.

  Attributes:
    kind: 'residual' or 'source'.
    hidden: width of 'residual'; that of 'source' is 1.5 D.
    dropout: fraction of hidden units of 'source' that are dropped in training.
  """

  kind: str
  hidden: int
  dropout: float

  @nn.compact
  def __call__(
    self, features: jax.Array, noise: jax.Array, train: bool
  ) -> jax.Array:
    """Generate features, with dropout if `train`."""
    x, size = jnp.concatenate([features, noise], -1), features.shape[-1]
    if self.kind == 'source':
      for _ in range(2):
        x = jax.nn.relu(nn.Dense(3 * size // 2)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
      return jax.nn.relu(nn.Dense(size)(x))
    for _ in range(2):
      x = jax.nn.relu(nn.Dense(self.hidden)(x))
    last = nn.Dense(size, kernel_init=nn.initializers.zeros)
    return jax.nn.relu(features + last(x))


def make(config: Config) -> core.Learner:
  """Make the `hallucination` learner; its task is the prototypes f32[N, D]."""
  return learners.make_learner(
    partial(_init, config),
    partial(_adapt, config),
    partial(_predict, config),
    evaluate=partial(_evaluate, config),
  )


def hallucinate(
  config: Config,
  params: core.PyTree,
  features: jax.Array,
  y: jax.Array,
  key: jax.Array,
  *,
  train: bool,
) -> jax.Array | None:
  """Generate features f32[N, M, D], or None for M = 0.

  Args:
    config: hyperparameters.
    params: of the learner, with 'generator'.
    features: f32[S, D], of the support.
    y: i32[S]; rows with -1 are never chosen. Each class has a labelled row.
    key: PRNG key of rows, noise and dropout.
    train: whether M is `count` and dropout is on.
  """
  count, way = _count(config, train), config.way
  if not count:
    return None
  rows_key, noise_key, dropout_key = jax.random.split(key, 3)
  logits = jnp.where(y == jnp.arange(way)[:, None], 0.0, -jnp.inf)  # [N, S]
  rows = jax.random.categorical(rows_key, logits[:, None], shape=(way, count))
  chosen = features[rows]
  noise = _zero_noise(config, chosen)
  if config.noise == 'gaussian':
    noise = jax.random.normal(noise_key, noise.shape, noise.dtype)
  elif config.noise == 'fixed':
    key = jax.random.key(FIXED_NOISE_SEED)
    noise = jnp.broadcast_to(
      jax.random.normal(key, noise.shape[-1:]), noise.shape
    )
  return _generator(config).apply(
    {'params': params['generator']},
    chosen,
    noise,
    train,
    rngs={'dropout': dropout_key},
  )


def quality(
  hallucinated: jax.Array,
  query: jax.Array,
  y: jax.Array,
  prototypes: jax.Array,
  plain: jax.Array,
  truth: jax.Array,
) -> dict[str, jax.Array]:
  """Measure {'diversity', 'purity', 'prototype_error'}, f32[] each.

  Args:
    hallucinated: f32[N, M, D].
    query: f32[Q, D], real features.
    y: i32[Q].
    prototypes: f32[N, D], with hallucinations.
    plain: f32[N, D], prototypes without them.
    truth: f32[N, D], means of all real features.
  """
  variance = lambda x, mask: jnp.sum(losses.masked_variance(x, mask))
  way, count = hallucinated.shape[:2]
  of_class = (y == jnp.arange(way)[:, None]).astype(hallucinated.dtype)
  real = jax.vmap(variance, (None, 0))(query, of_class)
  generated = jax.vmap(variance)(hallucinated, jnp.ones((way, count)))
  flat = hallucinated.reshape(-1, hallucinated.shape[-1])
  nearest = jnp.argmin(losses.squared_distances(flat, truth), axis=-1)
  error = lambda x: jnp.sqrt(jnp.sum(jnp.square(x - truth)))
  return {
    'diversity': jnp.sum(generated) / jnp.maximum(jnp.sum(real), 1e-12),
    'purity': jnp.mean(nearest == jnp.repeat(jnp.arange(way), count)),
    'prototype_error': error(prototypes) / jnp.maximum(error(plain), 1e-12),
  }


def _init(config, key, episode):
  """Return the parameters of `protonet`, 'generator' and 'log_mass'."""
  base = protonet.init(config, key, episode)  # equals protonet's for M = 0
  params = {'frozen': {'protonet': base}} if config.frozen else base
  if config.count or _count(config, train=False):
    features = protonet.embed(config, base, episode.support.x[:1])
    params['generator'] = _generator(config).init(
      jax.random.fold_in(key, 1),
      features,
      _zero_noise(config, features),
      False,
    )['params']
    if config.weight == 'learned':
      params['log_mass'] = jnp.log(jnp.asarray(config.mass, jnp.float32))
  return params


def _adapt(config, params, support, key, *, train):
  """Return the prototypes f32[N, D]."""
  features = protonet.embed(config, _base(params), support.x)
  hallucinated = hallucinate(
    config, params, features, support.y, key, train=train
  )
  return _prototypes(config, params, features, support.y, hallucinated)


def _predict(config, params, task, x, context):
  return protonet.predict(config, _base(params), task, x, context)


def _prototypes(config, params, features, y, hallucinated=None):
  """Return prototypes f32[N, D] of support features and hallucinations."""
  prototypes = losses.class_means(features, y, config.way)
  if hallucinated is not None:
    shots = jnp.sum(jax.nn.one_hot(y, config.way), axis=0)[:, None]
    mass = float(hallucinated.shape[1])
    if config.weight == 'learned':
      mass = jnp.exp(params['log_mass'])
    total = shots * prototypes + mass * jnp.mean(hallucinated, axis=1)
    prototypes = total / (shots + mass)
  return protonet.refine(config, _base(params), prototypes, features, y)


def _evaluate(config, params, episode, key):
  base, y = _base(params), episode.support.y
  support = protonet.embed(config, base, episode.support.x)
  hallucinated = hallucinate(config, params, support, y, key, train=False)
  prototypes = _prototypes(config, params, support, y, hallucinated)
  query = protonet.embed(config, base, episode.query.x)
  logits = protonet.classify(config, base, prototypes, query)
  metrics = {
    **losses.classification_metrics(logits, episode.query.y),
    'points/support': support,
    'points/query': query,
  }
  if hallucinated is not None:
    truth = losses.class_means(
      jnp.concatenate([support, query]),
      jnp.concatenate([y, episode.query.y]),
      config.way,
    )
    plain = _prototypes(config, params, support, y)
    metrics |= quality(
      hallucinated, query, episode.query.y, prototypes, plain, truth
    )
    metrics['points/hallucinated'] = hallucinated
  return metrics


def _base(params):
  """Return the parameters that belong to `protonet`."""
  return params['frozen']['protonet'] if 'frozen' in params else params


def _count(config, train):
  use_test = not train and config.test_count >= 0
  return config.test_count if use_test else config.count


def _generator(config):
  return Generator(config.generator, config.hidden, config.dropout)


def _zero_noise(config, features):
  size = config.noise_size
  if config.generator == 'source':
    size = features.shape[-1]
  return jnp.zeros((*features.shape[:-1], size), features.dtype)
