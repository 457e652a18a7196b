"""Extends prototypical networks by generated features added to the support.

Wang et al. 2018, arXiv:1801.05401: for each class, M generated features
  h_m = G(f(x_i), noise_m),  x_i a random labelled image of the class,
are added to the K real ones, and the prototype is the mean of all of them; G is
trained jointly with the embedding by the episodic loss. `nets/hallucinator.py`
defines G. With weight='count' the hallucinations weigh as much as M real
features (at K = 1, M = 100 the real one then has weight 1 / 101); with
'learned' all of them together weigh as much as e^(log_mass) real features, for
any M. noise='zero' is a control: G(z, 0) is the same for all M draws of an
image, so it only shifts the prototype. noise='fixed' uses one constant noise
vector for all classes, images and episodes.

A class mean uses only the mean of G over the noise, which a network without
noise can give as well. classifier='ridge' can use the spread: it is a ridge
regression of one-hot targets on real and generated features, weighted like the
mean, with a learned penalty (R2-D2, arXiv:1805.08136), without `distance`.

Metrics of the hallucinations, against the queries, which no prototype contains:

  diversity        tr Cov of G(z, noise) for one row z / tr Cov of the queries
                   of its class, both unbiased: what the noise alone changes;
  purity           fraction of hallucinations for which the nearest mean of
                   queries is that of their own class;
  prototype_error  |p - q| / |p_K - q|, where p and p_K are prototypes with and
                   without hallucinations and q means of queries: below 1 they
                   help; the true mean has sqrt(K / (K + Q)) for K shots and Q
                   queries per class.

With M = 0 and classifier='mean' this is `protonet`.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners import protonet
from hyperudl.nets import hallucinator
from hyperudl.ops import losses
from hyperudl.ops import ridge

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
  classifier: Literal['mean', 'ridge'] = 'mean'  # of real and generated
  penalty: float = field(1.0, above=0)  # initial e^(log_penalty) of 'ridge'
  # Freeze the embedding, loaded from another run (`init_from.protonet`), and
  # train only the generator. If False, `init_from.net` gives a warm start.
  frozen: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.classifier == 'ridge' and self.refine:
      raise ValueError(
        f"classifier='ridge' cannot refine={self.refine}: set refine=0"
      )


def make(config: Config) -> core.Learner:
  """Make the `hallucination` learner; its task is what `_fit` returns."""
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
  one_row: bool = False,
) -> jax.Array | None:
  """Generate features f32[N, M, D], or None for M = 0.

  Args:
    config: hyperparameters.
    params: of the learner, with 'generator'.
    features: f32[S, D], of the support.
    y: i32[S]; rows with -1 are never chosen. Each class has a labelled row.
    key: PRNG key of rows, noise and dropout.
    train: whether M is `count` and dropout is on.
    one_row: use the same row for all hallucinations of a class.
  """
  count, way = _count(config, train), config.way
  if not count:
    return None
  rows_key, noise_key, dropout_key = jax.random.split(key, 3)
  logits = jnp.where(y == jnp.arange(way)[:, None], 0.0, -jnp.inf)  # [N, S]
  drawn = way, 1 if one_row else count
  rows = jax.random.categorical(rows_key, logits[:, None], shape=drawn)
  rows = jnp.broadcast_to(rows, (way, count))
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
  of_one_row: jax.Array,
  query: jax.Array,
  y: jax.Array,
  prototypes: jax.Array,
  plain: jax.Array,
) -> dict[str, jax.Array]:
  """Measure {'diversity', 'purity', 'prototype_error'}, f32[] each.

  Args:
    hallucinated: f32[N, M, D].
    of_one_row: f32[N, M, D], others, all of a class from one row.
    query: f32[Q, D], real features.
    y: i32[Q].
    prototypes: f32[N, D], with hallucinations.
    plain: f32[N, D], prototypes without them.
  """
  way, count = hallucinated.shape[:2]
  of_class = (y == jnp.arange(way)[:, None]).astype(hallucinated.dtype)
  real = jax.vmap(_variance, (None, 0))(query, of_class)
  generated = jax.vmap(_variance)(of_one_row, jnp.ones((way, count)))
  truth = losses.class_means(query, y, way)
  flat = hallucinated.reshape(-1, hallucinated.shape[-1])
  nearest = jnp.argmin(losses.squared_distances(flat, truth), axis=-1)
  error = lambda x: jnp.sqrt(jnp.sum(jnp.square(x - truth)))
  return {
    'diversity': jnp.sum(generated) / jnp.maximum(jnp.sum(real), 1e-12),
    'purity': jnp.mean(nearest == jnp.repeat(jnp.arange(way), count)),
    'prototype_error': error(prototypes) / jnp.maximum(error(plain), 1e-12),
  }


def _variance(x, mask):
  """Return the unbiased tr Cov f32[] of rows of `x` with `mask` 1, or 0."""
  count = jnp.sum(mask)
  biased = jnp.sum(losses.masked_variance(x, mask))
  return biased * count / jnp.maximum(count - 1, 1)


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
  if config.classifier == 'ridge':
    params['log_penalty'] = jnp.log(jnp.asarray(config.penalty, jnp.float32))
  return params


def _adapt(config, params, support, key, *, train):
  """Return what `_fit` fits to the support and its hallucinations."""
  features = protonet.embed(config, _base(params), support.x)
  hallucinated = hallucinate(
    config, params, features, support.y, key, train=train
  )
  return _fit(config, params, features, support.y, hallucinated)


def _predict(config, params, task, x, context):
  del context
  features = protonet.embed(config, _base(params), x)
  return _classify(config, params, task, features)


def _fit(config, params, features, y, hallucinated):
  """Return prototypes f32[N, D], or f32[D + 1, N], the weights of 'ridge'."""
  if config.classifier == 'mean':
    return _prototypes(config, params, features, y, hallucinated)
  weights = (y >= 0).astype(features.dtype)
  if hallucinated is not None:
    way, count, size = hallucinated.shape
    features = jnp.concatenate([features, hallucinated.reshape(-1, size)])
    y = jnp.concatenate([y, jnp.repeat(jnp.arange(way), count)])
    each = _mass(config, params, count) / count
    weights = jnp.append(weights, jnp.broadcast_to(each, (way * count,)))
  targets = jax.nn.one_hot(y, config.way) - 1 / config.way
  penalty = jnp.exp(params['log_penalty'])
  return ridge.fit(_with_ones(features), targets, weights, penalty)


def _classify(config, params, task, features):
  """Return logits f32[n, N] of features f32[n, D]."""
  base = _base(params)
  if config.classifier == 'mean':
    return protonet.classify(config, base, task, features)
  scale = jnp.exp(base['log_scale']) if config.learn_scale else config.scale
  return scale * _with_ones(features) @ task


def _with_ones(features):
  return jnp.pad(features, ((0, 0), (0, 1)), constant_values=1.0)


def _mass(config, params, count):
  """Return the weight of all `count` hallucinations of a class together."""
  if config.weight == 'learned':
    return jnp.exp(params['log_mass'])
  return float(count)


def _prototypes(config, params, features, y, hallucinated=None):
  """Return prototypes f32[N, D] of support features and hallucinations."""
  prototypes = losses.class_means(features, y, config.way)
  if hallucinated is not None:
    shots = jnp.sum(jax.nn.one_hot(y, config.way), axis=0)[:, None]
    mass = _mass(config, params, hallucinated.shape[1])
    total = shots * prototypes + mass * jnp.mean(hallucinated, axis=1)
    prototypes = total / (shots + mass)
  return protonet.refine(config, _base(params), prototypes, features, y)


def _evaluate(config, params, episode, key):
  base, y = _base(params), episode.support.y
  support = protonet.embed(config, base, episode.support.x)
  draw = partial(hallucinate, config, params, support, y, train=False)
  hallucinated = draw(key)
  task = _fit(config, params, support, y, hallucinated)
  query = protonet.embed(config, base, episode.query.x)
  logits = _classify(config, params, task, query)
  metrics = {
    **losses.classification_metrics(logits, episode.query.y),
    'points/support': support,
    'points/query': query,
  }
  if hallucinated is not None:
    metrics |= quality(
      hallucinated,
      draw(jax.random.fold_in(key, 1), one_row=True),
      query,
      episode.query.y,
      _prototypes(config, params, support, y, hallucinated),
      _prototypes(config, params, support, y),
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
  return hallucinator.Generator(config.generator, config.hidden, config.dropout)


def _zero_noise(config, features):
  size = config.noise_size
  if config.generator == 'source':
    size = features.shape[-1]
  return jnp.zeros((*features.shape[:-1], size), features.dtype)
