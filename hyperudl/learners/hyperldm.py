"""Samples a network for a question by diffusion over latents: HyperLDM.

Nava et al. 2023, arXiv:2210.08942. A denoiser is trained on the latents of
training tasks and their questions (`_language/latent_diffusion.py`). A new task
gets its network without any image: a latent is sampled given the question, by
classifier-free guidance, and decoded by the frozen `hypernet` (or `hvae`).
`accuracy` is that of the sampled network: zero-shot, or few-shot if
`finetune_steps` fine-tune it on the support.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_diffusion
from hyperudl.learners._language import latent_space
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(latent_diffusion.Config, latent_space.Config):
  """Hyperparameters of `hyperldm`."""

  finetune_steps: int = field(0, at_least=0)  # of the sample, on the support

  def __post_init__(self):
    latent_space.Config.__post_init__(self)
    latent_diffusion.Config.__post_init__(self)


def make(config: Config) -> core.Learner:
  """Return the `hyperldm` learner.

  Its task is a `hypernetwork.Task` whose fast weights have a leading axis of
  size `samples`.
  """
  bind = lambda function: functools.partial(function, config)
  functions = _init, _adapt, _predict, _loss, _evaluate
  return learners.make_learner(*map(bind, functions))


def _init(config, key, episode):
  keys = jax.random.split(key)
  frozen = latent_space.init_frozen(config, keys[0], episode)
  space = latent_space.LatentSpace(config, {'frozen': frozen})
  condition = _condition(space, episode.support.context)
  params = latent_diffusion.init(config, keys[1], config.dimension, condition)
  return {**params, 'frozen': {**frozen, **params['frozen']}}


def _condition(space, context):
  """Return the embedded question f32[E], scaled to norm sqrt(E)."""
  question = space.embed_question(context)
  return question * jnp.sqrt(question.shape[0])


def _loss(config, params, episode, key, step):
  del step
  space = latent_space.LatentSpace(config, params)
  condition = _condition(space, episode.support.context)
  latent = space.task_latent(episode)
  return latent_diffusion.loss(config, params, latent, condition, key)


def _adapt(config, params, support, key, *, train):
  del train
  space = latent_space.LatentSpace(config, params)
  words = space.net.encoder.embed_words(support.context)
  loss = space.net.make_support_loss(support, words)
  condition = _condition(space, support.context)

  def sample(key):
    latent = latent_diffusion.sample(
      config, params, condition, key, lambda latent: loss(space.decode(latent))
    )
    fast = space.decode(latent)
    return space.net.adapt(support, fast, config.finetune_steps).fast

  fast = jax.vmap(sample)(jax.random.split(key, config.samples))
  return hypernetwork.Task(fast, words)


def _predict(config, params, task, x, context):
  """Return the log of the mean probabilities of the samples: f32[n, N]."""
  del context
  net = hypernetwork.unfreeze(config, params)
  features = net.encoder.embed_images(x)
  logits = jax.vmap(
    lambda fast: net.logits(task._replace(fast=fast), x, features)
  )(task.fast)
  return losses.log_mean_probability(jax.nn.log_softmax(logits))


def _evaluate(config, params, episode, key):
  support, query = episode.support, episode.query
  space = latent_space.LatentSpace(config, params)
  task = _adapt(config, params, support, key, train=False)
  fast = space.decode(space.initial_latent(support.context))
  initial_logits = space.net.logits(task._replace(fast=fast), query.x)
  logits = _predict(config, params, task, query.x, None)
  return {
    **losses.classification_metrics(logits, query.y),
    'accuracy_start': losses.accuracy(initial_logits, query.y),
  }
