"""Prototypical networks whose support is filled up with generated features.

Wang et al. 2018, arXiv:1801.05401: for each class M features
  h_m = G(f(x_i), noise_m),  x_i a random labelled image of the class,
are added to the K real ones and the prototype is taken of all of them; G is
trained with the rest through the episodic loss. Two generators:

  residual  relu(z + MLP([z; noise])) whose last layer starts at zero, so that
            G(z, noise) = z at first for features that are not negative;
  source    the form of the code this follows: [z; noise] with as much noise as
            features, two layers of 1.5 D with ReLU and dropout .5, then D with
            ReLU (3200-2400-2400-1600 for the 1600 features of 84 x 84 images).

What hallucinations count: weight='count' as much as real features, which are
1 of 101 at K = 1 and M = 100; 'learned' together e^(log_mass) real ones,
whatever M. noise='zero' is the control G(z, 0), which is the same for all M: a
learned shift of the prototype; 'fixed' draws the same noise for every class,
image and episode. Results say what a picture of the features hides:

  diversity        tr Cov of a class's hallucinations / tr Cov of its queries;
  purity           share of hallucinations nearest to the true mean (support
                   and queries) of their own class;
  prototype_error  |p - p_true| / |p_K - p_true| of the prototypes with and
                   without hallucinations: below 1 they help.

With M = 0 this is `protonet`.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners import protonet
from hyperudl.ops import losses

GENERATORS = ('residual', 'source')
NOISES = ('gaussian', 'zero', 'fixed')
WEIGHTS = ('count', 'learned')
FIXED = 0  # the key of fixed noise


class Generator(nn.Module):
  """(f32[n, D], f32[n, noise]) -> f32[n, D], never negative.

  Attributes:
    kind: one of GENERATORS.
    hidden: width of the residual form; the source's is 1.5 D.
    dropout: share of hidden units dropped in training, of the source's form.
  """

  kind: str
  hidden: int
  dropout: float

  @nn.compact
  def __call__(self, z, noise, train):
    x, size = jnp.concatenate([z, noise], axis=-1), z.shape[-1]
    if self.kind == 'source':
      for _ in range(2):
        x = jax.nn.relu(nn.Dense(3 * size // 2)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
      return jax.nn.relu(nn.Dense(size)(x))
    for _ in range(2):
      x = jax.nn.relu(nn.Dense(self.hidden)(x))
    last = nn.Dense(size, kernel_init=nn.initializers.zeros)
    return jax.nn.relu(z + last(x))


class _Settings(NamedTuple):
  count: int
  test_count: int
  generator: str
  hidden: int
  noise_size: int
  noise: str
  weight: str
  mass: float
  dropout: float
  frozen: bool


def make(
  way,
  *,
  count=10,
  test_count=-1,
  generator='residual',
  hidden=256,
  noise_size=64,
  noise='gaussian',
  weight='learned',
  mass=1.0,
  dropout=0.5,
  frozen=False,
  **settings,
):
  """The `hallucination` learner. Its task is the prototypes f32[N, D].

  Args:
    way: N.
    count: M >= 0, hallucinations of each class.
    test_count: M of evaluations; -1 for the same.
    generator: 'residual' or 'source'.
    hidden: width of the residual one.
    noise_size: numbers of noise of the residual one; the source's has D.
    noise: 'gaussian', 'zero' or 'fixed'.
    weight: 'count' or 'learned'.
    mass: of all hallucinations together at first, in real features; > 0.
    dropout: of the source's form, in training.
    frozen: train the generator alone on the embedding of another run,
      `init_from.protonet`. Without it `init_from.net` is a warm start.
    **settings: of `protonet.make`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
    TypeError: for a setting that does not exist.
  """
  for name, value, choices in (
    ('generator', generator, GENERATORS),
    ('noise', noise, NOISES),
    ('weight', weight, WEIGHTS),
  ):
    if value not in choices:
      raise ValueError(f'{name} must be one of {choices}, not {value!r}')
  if count < 0 or test_count < -1 or min(hidden, noise_size) < 1:
    raise ValueError(
      'count must be >= 0, test_count >= -1, hidden and noise_size >= 1, not '
      f'{(count, test_count, hidden, noise_size)}'
    )
  if mass <= 0 or not 0 <= dropout < 1:
    raise ValueError(
      f'mass must be > 0 and dropout in [0, 1), not {mass} and {dropout}'
    )
  p = protonet.settings_of(way, **settings)
  s = _Settings(
    count,
    count if test_count < 0 else test_count,
    generator,
    hidden,
    noise_size,
    noise,
    weight,
    mass,
    dropout,
    frozen,
  )
  return learners.make_learner(
    lambda key, episode: _init(s, p, key, episode),
    lambda params, support, key, *, train: _adapt(
      s, p, params, support, key, train
    )[0],
    lambda params, task, x, context: protonet.answer(
      p, _base(params), task, protonet.embed(p, _base(params), x)
    ),
    evaluate=lambda params, episode, key: _evaluate(s, p, params, episode, key),
  )


make.__signature__ = learners.spelled_out(make, protonet.make)


def _base(params):
  """The parameters that are those of `protonet`."""
  return params['frozen']['protonet'] if 'frozen' in params else params


def _init(s, p, key, episode):
  base = protonet.init(p, key, episode)  # with the key: M = 0 is protonet
  params = {'frozen': {'protonet': base}} if s.frozen else base
  if s.count or s.test_count:
    z = protonet.embed(p, base, episode.support.x[:1])
    key = jax.random.fold_in(key, 1)
    own = _module(s).init(key, z, _noise_like(s, z), False)
    params['generator'] = own['params']
    if s.weight == 'learned':
      params['log_mass'] = jnp.log(jnp.asarray(s.mass, jnp.float32))
  return params


def _module(s):
  return Generator(s.generator, s.hidden, s.dropout)


def _noise_like(s, z):
  size = z.shape[-1] if s.generator == 'source' else s.noise_size
  return jnp.zeros((*z.shape[:-1], size), z.dtype)


def hallucinate(s, params, z, y, way, count, key, train):
  """Generated features f32[N, M, D].

  Args:
    s: settings.
    params: with the `generator`.
    z: f32[S, D], features of the support.
    y: i32[S]; rows with -1 are never chosen.
    way: N; each class has a labelled row.
    count: M >= 1.
    key: of rows, noise and dropout.
    train: whether dropout acts.
  """
  rows_key, noise_key, dropout_key = jax.random.split(key, 3)
  own = jnp.where(y == jnp.arange(way)[:, None], 0.0, -jnp.inf)  # [N, S]
  rows = jax.random.categorical(rows_key, own[:, None], shape=(way, count))
  chosen = z[rows]
  noise = _noise_like(s, chosen)
  if s.noise == 'gaussian':
    noise = jax.random.normal(noise_key, noise.shape, noise.dtype)
  elif s.noise == 'fixed':
    one = jax.random.normal(jax.random.key(FIXED), noise.shape[-1:])
    noise = jnp.broadcast_to(one, noise.shape)
  return _module(s).apply(
    {'params': params['generator']},
    chosen,
    noise,
    train,
    rngs={'dropout': dropout_key},
  )


def _adapt(s, p, params, support, key, train):
  """(prototypes, hallucinations or None)."""
  z = protonet.embed(p, _base(params), support.x)
  start = losses.class_means(z, support.y, p.way)
  count, made = s.count if train else s.test_count, None
  if count:
    made = hallucinate(s, params, z, support.y, p.way, count, key, train)
    shots = jnp.sum(jax.nn.one_hot(support.y, p.way), axis=0)[:, None]
    mass = float(count)
    if s.weight == 'learned':
      mass = jnp.exp(params['log_mass'])
    start = (shots * start + mass * jnp.mean(made, axis=1)) / (shots + mass)
  return protonet.refined(p, _base(params), start, z, support.y), made


def _evaluate(s, p, params, episode, key):
  prototypes, made = _adapt(s, p, params, episode.support, key, False)
  base = _base(params)
  support = protonet.embed(p, base, episode.support.x)
  query = protonet.embed(p, base, episode.query.x)
  found = {
    **losses.classification_metrics(
      protonet.answer(p, base, prototypes, query), episode.query.y
    ),
    'points/support': support,
    'points/query': query,
  }
  if made is not None:
    truth = losses.class_means(
      jnp.concatenate([support, query]),
      jnp.concatenate([episode.support.y, episode.query.y]),
      p.way,
    )
    plain = losses.class_means(support, episode.support.y, p.way)
    plain = protonet.refined(p, base, plain, support, episode.support.y)
    found.update(
      quality(made, query, episode.query.y, prototypes, plain, truth)
    )
    found['points/hallucinated'] = made
  return found


def quality(made, query, y, prototypes, plain, truth):
  """What a picture hides: {'diversity', 'purity', 'prototype_error'}, f32[].

  Args:
    made: f32[N, M, D], hallucinations.
    query: f32[Q, D], real features.
    y: i32[Q].
    prototypes, plain: f32[N, D], with and without hallucinations.
    truth: f32[N, D], means of all real features.
  """
  spread = lambda x, mask: jnp.sum(losses.masked_variance(x, mask))
  way, count = made.shape[:2]
  own = (y == jnp.arange(way)[:, None]).astype(made.dtype)
  real = jax.vmap(spread, (None, 0))(query, own)
  fake = jax.vmap(spread)(made, jnp.ones((way, count)))
  flat = made.reshape(-1, made.shape[-1])
  nearest = jnp.argmin(losses.squared_distances(flat, truth), axis=-1)
  error = lambda x: jnp.sqrt(jnp.sum(jnp.square(x - truth)))
  return {
    'diversity': jnp.sum(fake) / jnp.maximum(jnp.sum(real), 1e-12),
    'purity': jnp.mean(nearest == jnp.repeat(jnp.arange(way), count)),
    'prototype_error': error(prototypes) / jnp.maximum(error(plain), 1e-12),
  }
