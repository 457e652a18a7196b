"""Guides the latent of a network by a question: HyperCLIP.

Nava et al. 2023, arXiv:2210.08942. Let the rows of f be embeddings of the
weights of the T tasks of an episode and the rows of g those of their questions,
all unit vectors. The encoder of weights is trained on
  CE(scale f g^T, S) + CE(scale g f^T, S),
where row i of S is uniform over the tasks with the same question as task i in
any wording (the original takes the identity for S, which pushes a question away
from its other wordings). A new task gets its network without any image, by
gradient descent on its latent z, of
  -cos(f(W(z)), g) + penalty / 2 |z - z_0|^2.
Training needs episodes with an axis of T = `episode.tasks` tasks; evaluation
works with and without that axis.
"""

import dataclasses
import functools
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_space
from hyperudl.learners._language import weight_vae
from hyperudl.nets import mlp
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(latent_space.Config):
  """Hyperparameters of `hyperclip`."""

  encoder: tuple[int, ...] = field((128, 128), at_least=1)  # of weights
  contrast: float = field(20.0, above=0)  # scale of the cosines
  noise: float = field(0.1, at_least=0)  # std of noise on training latents
  guidance_steps: int = field(50, at_least=0)  # of Adam towards the question
  guidance_rate: float = field(0.03, above=0)
  guidance_penalty: float = field(0.0, at_least=0)  # weight of |z - z_0|^2 / 2
  # 'cosine' lowers the rate to zero.
  guidance_schedule: Literal['constant', 'cosine'] = 'constant'
  langevin: float = field(0.0, at_least=0)  # std of noise on each gradient


class Task(NamedTuple):
  """The result of `adapt`."""

  network: hypernetwork.Task
  latent: jax.Array  # f32[Z], in the configured space


def make(config: Config) -> core.Learner:
  """Return the `hyperclip` learner."""
  bind = lambda function: functools.partial(function, config)
  functions = _init, _adapt, _predict, _loss, _evaluate
  return learners.make_learner(*map(bind, functions))


def _init(config, key, episode):
  keys = jax.random.split(key)
  if episode.support.y.ndim == 2:  # T tasks: take the first
    episode = jax.tree.map(lambda leaf: leaf[0], episode)
  params = {'frozen': latent_space.init_frozen(config, keys[0], episode)}
  space = latent_space.LatentSpace(config, params)
  size = _deviation(space, jnp.zeros((config.dimension,))).size
  width = space.embed_question(episode.support.context).shape[0]
  params['encoder'] = mlp.init(keys[1], (size, *config.encoder, width))
  params['spread'] = {'log': jnp.zeros((), jnp.float32)}
  return params


def _deviation(space, latent):
  """Return the weights of a latent minus the hypernet's base: f32[D]."""
  return space.net.deviation(space.decode(latent))


def _embedding(space, latent):
  """Return f(W(z)), a unit vector f32[E]."""
  scaled = _deviation(space, latent) * jnp.exp(-space.params['spread']['log'])
  return losses.unit(mlp.apply(space.params['encoder'], scaled))


def _similarity(space, latent, question):
  return jnp.sum(_embedding(space, latent) * question)


def _loss(config, params, episode, key, step):
  del step
  if episode.support.y.ndim == 1:
    raise ValueError(
      'hyperclip contrasts the tasks of an episode: set episode.tasks >= 2'
    )
  space = latent_space.LatentSpace(config, params)
  latents = jax.vmap(space.task_latent)(episode)
  latents += config.noise * jax.random.normal(key, latents.shape)
  f = jax.vmap(functools.partial(_embedding, space))(latents)
  questions = jax.vmap(space.embed_question)(episode.support.context)
  g = jax.lax.stop_gradient(questions)
  logits, same = config.contrast * f @ g.T, _same_question(episode)
  labels = same / same.sum(axis=1)
  contrast = sum(
    optax.softmax_cross_entropy(each, labels).mean()
    for each in (logits, logits.T)
  )
  deviations = jax.vmap(functools.partial(_deviation, space))(latents)
  fit = weight_vae.spread_nll(
    params['spread']['log'], jax.lax.stop_gradient(deviations)
  )
  return contrast + fit, {
    'contrast': contrast,
    'retrieval': _retrieval_rate(logits, same),
  }


def _same_question(episode):
  """Return f32[T, T], 1 for two tasks with the same question in any wording."""
  group = episode.extra['group']
  return (group[:, None] == group).astype(jnp.float32)


def _retrieval_rate(logits, same):
  """Return the fraction of rows whose largest logit has the same question."""
  best = jnp.argmax(logits, axis=1)
  return jnp.take_along_axis(same, best[:, None], axis=1).mean()


def _adapt(config, params, support, key, *, train):
  del train
  adapt = functools.partial(
    _adapt_task, latent_space.LatentSpace(config, params)
  )
  if support.y.ndim == 1:
    return adapt(support, key)
  return jax.vmap(adapt)(support, jax.random.split(key, len(support.y)))


def _adapt_task(space, support, key):
  """Return the `Task` after guidance by the question of one task."""
  config = space.config
  words = space.net.encoder.embed_words(support.context)
  initial = space.initial_latent(support.context)
  question = space.embed_question(support.context)
  rate = config.guidance_rate
  if config.guidance_schedule == 'cosine':
    rate = optax.cosine_decay_schedule(rate, max(1, config.guidance_steps))

  def loss(latent, step):
    distance = jnp.sum(jnp.square(latent - initial))
    value = -_similarity(space, latent, question)
    value += 0.5 * config.guidance_penalty * distance
    if config.langevin:
      noise = jax.random.normal(jax.random.fold_in(key, step), latent.shape)
      value += config.langevin * jnp.sum(noise * latent)
    return value

  latent, _ = gradient_descent.optimise(
    loss, initial, optax.adam(rate), config.guidance_steps
  )
  return Task(hypernetwork.Task(space.decode(latent), words), latent)


def _predict(config, params, task, x, context):
  del context
  predict = hypernetwork.unfreeze(config, params).logits
  grouped = task.network.words.mask.ndim == 2
  return (jax.vmap(predict) if grouped else predict)(task.network, x)


def _evaluate(config, params, episode, key):
  space = latent_space.LatentSpace(config, params)
  evaluate = functools.partial(_evaluate_task, space)
  if episode.query.y.ndim == 1:
    return evaluate(episode, key)
  keys = jax.random.split(key, len(episode.query.y))
  metrics = jax.vmap(evaluate)(episode, keys)
  del metrics['probabilities']
  means = jax.tree.map(lambda leaf: leaf.mean(axis=0), metrics)
  return {**means, **_retrieval(space, episode)}


def _retrieval(space, episode):
  """Measure how often adapted weights match the question of their task best.

  Another wording of the same question is correct too. `retrieval` is the
  fraction of correct tasks, `retrieval_chance` that of a random choice.
  """

  def embed(episode):
    latent = space.encode(space.net.adapt_to_all_images(episode))
    question = space.embed_question(episode.support.context)
    return _embedding(space, latent), question

  f, g = jax.vmap(embed)(episode)
  same = _same_question(episode)
  return {
    'retrieval': _retrieval_rate(f @ g.T, same),
    'retrieval_chance': same.mean(),
  }


def _evaluate_task(space, episode, key):
  """Return metrics of one task, and how guidance agrees with labels."""
  support, query = episode.support, episode.query
  net, task = space.net, _adapt_task(space, support, key)
  initial = space.initial_latent(support.context)
  support_loss = net.make_support_loss(support, task.network.words)
  loss_gradient = jax.grad(lambda z: support_loss(space.decode(z)))(initial)
  question = space.embed_question(support.context)
  similarity = lambda z: _similarity(space, z, question)
  guidance = -jax.grad(similarity)(initial)
  initial_network = task.network._replace(fast=space.decode(initial))
  logits = net.logits(task.network, query.x)
  initial_logits = net.logits(initial_network, query.x)
  return {
    **losses.classification_metrics(logits, query.y),
    'accuracy_start': losses.accuracy(initial_logits, query.y),
    'gradient_cosine': jnp.sum(
      losses.unit(loss_gradient) * losses.unit(guidance)
    ),
    'likeness': similarity(task.latent),
    'likeness_start': similarity(initial),
    'distance': jnp.sqrt(jnp.sum(jnp.square(task.latent - initial))),
  }
