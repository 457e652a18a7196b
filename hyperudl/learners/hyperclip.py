"""HyperCLIP: an encoder of weights that meets questions, and its guidance.

Nava et al. 2023, arXiv:2210.08942. With f of the weights of task i and g of
its question, both of length 1, over the T tasks of an episode
  CE(scale f g^T, S) + CE(scale g f^T, S),
where S shares its mass among the wordings of the same question (the original
takes the diagonal, and pushes a question away from its other wordings);
a new task gets its network by gradient steps on its latent,
  -cos(f(W(z)), g) + penalty / 2 |z - z_0|^2,
without any image. Training takes episodes of `episode.tasks` = T tasks;
evaluations take them with and without that axis.
"""

from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import optax

from hyperudl import learners
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_space
from hyperudl.nets import mlp
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

SCHEDULES = ('constant', 'cosine')


class Settings(NamedTuple):
  """See `make`."""

  space: latent_space.Space
  encoder: tuple
  contrast: float
  noise: float
  steps: int
  rate: float
  penalty: float
  schedule: str
  langevin: float


def make(
  way,
  *,
  space='hnet',
  hvae_latent=32,
  hvae_hidden=(128, 128),
  encoder=(128, 128),
  contrast=20.0,
  noise=0.1,
  guidance_steps=50,
  guidance_rate=0.03,
  guidance_penalty=0.0,
  guidance_schedule='constant',
  langevin=0.0,
  **settings,
):
  """The `hyperclip` learner.

  Args:
    way: N.
    space: 'hnet' or 'hvae', see `spaces.py`.
    hvae_latent, hvae_hidden: sizes of the frozen `hvae`.
    encoder: widths of the encoder of weights.
    contrast: scale of the cosines of weights and questions.
    noise: standard deviation of the noise on latents in training.
    guidance_steps, guidance_rate: Adam steps towards the question.
    guidance_penalty: of |z - z_0|^2 / 2.
    guidance_schedule: 'constant' or 'cosine' (to nothing), of the rate.
    langevin: standard deviation of the noise added to each gradient.
    **settings: of the frozen `hypernet`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  s = Settings(
    latent_space.Space(
      space,
      hypernet.settings_of(way, **settings),
      hvae_latent,
      tuple(hvae_hidden),
    ),
    tuple(encoder),
    contrast,
    noise,
    guidance_steps,
    guidance_rate,
    guidance_penalty,
    guidance_schedule,
    langevin,
  )
  _check(s)

  def each(function, grouped):
    return jax.vmap(function) if grouped else function

  def adapt(params, support, key, *, train):
    del train
    grouped = support.y.ndim == 2
    keys = jax.random.split(key, support.y.shape[0]) if grouped else key
    one = lambda support, key: _adapt(s, params, support, key)
    return each(one, grouped)(support, keys)

  def predict(params, task, x, context):
    del context
    net = latent_space.net_params(params)
    grouped = task['words'].mask.ndim == 2
    one = lambda task, x: hypernetwork.predict(s.space.net, net, task, x)
    return each(one, grouped)(task, x)

  def evaluate(params, episode, key):
    if episode.query.y.ndim == 1:
      return _evaluate(s, params, episode, key)
    keys = jax.random.split(key, episode.query.y.shape[0])
    one = lambda episode, key: _evaluate(s, params, episode, key)
    found = jax.vmap(one)(episode, keys)
    del found['probabilities']
    means = jax.tree.map(lambda leaf: leaf.mean(axis=0), found)
    return {**means, **_retrieval(s, params, episode)}

  return learners.make_learner(
    lambda key, episode: _init(s, key, episode),
    adapt,
    predict,
    lambda params, episode, key, step: _loss(s, params, episode, key),
    evaluate,
  )


make.__signature__ = learners.spelled_out(make, hypernet.make)


def _check(s):
  latent_space.check(s.space)
  if s.schedule not in SCHEDULES:
    raise ValueError(
      f'guidance_schedule must be one of {SCHEDULES}, not {s.schedule!r}'
    )
  if s.steps < 0 or s.rate <= 0 or s.contrast <= 0 or min(s.encoder) < 1:
    raise ValueError(
      'guidance_steps must be >= 0, guidance_rate and contrast > 0 and encoder '
      f'>= 1, not {s.steps}, {s.rate}, {s.contrast} and {s.encoder}'
    )
  if min(s.noise, s.penalty, s.langevin) < 0:
    raise ValueError(
      'noise, guidance_penalty and langevin must be >= 0, not '
      f'{s.noise}, {s.penalty} and {s.langevin}'
    )


def _first(episode):
  """The first task of an episode with the axis T, or the episode."""
  if episode.support.y.ndim == 1:
    return episode
  return jax.tree.map(lambda leaf: leaf[0], episode)


def _init(s, key, episode):
  keys = jax.random.split(key)
  episode = _first(episode)
  frozen = latent_space.init_frozen(s.space, keys[0], episode)
  params = {'frozen': frozen}
  z = jnp.zeros((latent_space.width(s.space),))
  size = ravel_pytree(latent_space.weights_of(s.space, params, z))[0].size
  width = _question(s, params, episode.support.context).shape[0]
  params['encoder'] = mlp.init_perceptron(keys[1], (size, *s.encoder, width))
  params['spread'] = {'log': jnp.zeros((), jnp.float32)}
  return params


def _question(s, params, context):
  net = latent_space.net_params(params)
  return losses.unit(hypernetwork.words_of(s.space.net, net, context).question)


def _deviation(s, params, z):
  """Flat weights f32[D] at a point, minus the hypernet's base."""
  return latent_space.deviation(
    params, latent_space.weights_of(s.space, params, z)
  )


def _encoded(s, params, z):
  """f(W(z)): f32[E] of length 1."""
  flat = _deviation(s, params, z) * jnp.exp(-params['spread']['log'])
  return losses.unit(mlp.perceptron(params['encoder'], flat))


def _loss(s, params, episode, key):
  if episode.support.y.ndim == 1:
    raise ValueError(
      'hyperclip contrasts the tasks of an episode: set episode.tasks >= 2'
    )
  point = lambda episode: latent_space.point_of_task(s.space, params, episode)
  z = jax.vmap(point)(episode)
  z += s.noise * jax.random.normal(key, z.shape)
  f = jax.vmap(lambda z: _encoded(s, params, z))(z)
  question = lambda context: _question(s, params, context)
  g = jax.lax.stop_gradient(jax.vmap(question)(episode.support.context))
  logits, same = s.contrast * f @ g.T, _same(episode)
  shares = same / same.sum(axis=1)
  value = sum(
    optax.softmax_cross_entropy(each, shares).mean()
    for each in (logits, logits.T)
  )
  # The spread of the weights, as the Gaussian likelihood finds it.
  own = jax.vmap(lambda z: _deviation(s, params, z))(z)
  log_spread = params['spread']['log']
  own = jax.lax.stop_gradient(own) * jnp.exp(-log_spread)
  fit = log_spread + 0.5 * jnp.mean(jnp.square(own))
  return value + fit, {
    'contrast': value,
    'retrieval': _found(logits, same),
  }


def _same(episode):
  """f32[T, T], 1 where two tasks ask the same, in whatever words."""
  group = episode.extra['group']
  return (group[:, None] == group).astype(jnp.float32)


def _found(logits, same):
  """Share of rows whose best column is of the same question."""
  best = jnp.argmax(logits, axis=1)
  return jnp.take_along_axis(same, best[:, None], axis=1).mean()


def _adapt(s, params, support, key):
  """{'value', 'words', 'z'} after guidance by the question of one task."""
  net = latent_space.net_params(params)
  words = hypernetwork.words_of(s.space.net, net, support.context)
  first = latent_space.start(s.space, params, support.context)
  objective = _guidance(s, params, first, support.context)
  rate = s.rate
  if s.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(s.rate, max(1, s.steps))

  def noisy(z, step):
    value = objective(z)
    if s.langevin:
      noise = jax.random.normal(jax.random.fold_in(key, step), z.shape)
      value += s.langevin * jnp.sum(noise * z)
    return value

  z, _ = gradient_descent.optimise(noisy, first, optax.adam(rate), s.steps)
  return {
    'value': latent_space.value_of(s.space, params, z),
    'words': words,
    'z': z,
  }


def _guidance(s, params, first, context):
  question = _question(s, params, context)

  def objective(z):
    likeness = jnp.sum(_encoded(s, params, z) * question)
    return -likeness + 0.5 * s.penalty * jnp.sum(jnp.square(z - first))

  return objective


def _retrieval(s, params, episode):
  """Whether fine-tuned weights find the question of their task among T.

  Another wording of the same question is right too. `retrieval` is the share
  of tasks that do, `retrieval_chance` that of blind choice.
  """
  net = latent_space.net_params(params)

  def one(episode):
    value = hypernetwork.adapted_on_all(s.space.net, net, episode)
    z = latent_space.point_of(s.space, params, value)
    question = _question(s, params, episode.support.context)
    return _encoded(s, params, z), question

  f, g = jax.vmap(one)(episode)
  same = _same(episode)
  return {'retrieval': _found(f @ g.T, same), 'retrieval_chance': same.mean()}


def _evaluate(s, params, episode, key):
  """Metrics of one task; how well the guidance points where labels would."""
  support, query = episode.support, episode.query
  net = latent_space.net_params(params)
  task = _adapt(s, params, support, key)
  first = latent_space.start(s.space, params, support.context)

  def loss(z):
    value = latent_space.value_of(s.space, params, z)
    logits = hypernetwork.answer(
      s.space.net, net, value, task['words'], support.x
    )
    return losses.cross_entropy(logits, support.y)

  truth = jax.grad(loss)(first)
  question = _question(s, params, support.context)
  likeness = lambda z: jnp.sum(_encoded(s, params, z) * question)
  led = -jax.grad(likeness)(first)
  start = {**task, 'value': latent_space.value_of(s.space, params, first)}
  logits = hypernetwork.predict(s.space.net, net, start, query.x)
  return {
    **losses.classification_metrics(
      hypernetwork.predict(s.space.net, net, task, query.x), query.y
    ),
    'accuracy_start': losses.accuracy(logits, query.y),
    'gradient_cosine': jnp.sum(losses.unit(truth) * losses.unit(led)),
    'likeness': likeness(task['z']),
    'likeness_start': likeness(first),
    'distance': jnp.sqrt(jnp.sum(jnp.square(task['z'] - first))),
  }
