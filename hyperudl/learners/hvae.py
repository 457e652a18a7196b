"""Trains a variational autoencoder of the weights of adapted networks: HVAE.

Nava et al. 2023, arXiv:2210.08942: the weights of a training task are those
that the frozen `hypernet` decodes from the latent of the task; the loss is in
`_language/weight_vae.py`. `hyperclip` and `hyperldm` work in the latent space
of this autoencoder if `space='hvae'`. As a classifier it fine-tunes a latent on
the support, starting from the encoding of the hypernet's unadapted network.
`accuracy_reconstructed` is the accuracy of the network that the hypernet adapts
to the support, after encoding and decoding its weights.
"""

import dataclasses
import functools

import jax
import optax

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import weight_vae
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(weight_vae.Config):
  """Hyperparameters of `hvae`."""

  beta: float = field(1.0, at_least=0)  # weight of the KL
  hvae_steps: int = field(50, at_least=0)  # Adam steps on the support
  hvae_rate: float = field(0.03, above=0)


def make(config: Config) -> core.Learner:
  """Return the `hvae` learner; its task is a `hypernetwork.Task`."""
  bind = lambda function: functools.partial(function, config)
  functions = _init, _adapt, _predict, _loss, _evaluate
  return learners.make_learner(*map(bind, functions))


def _init(config, key, episode):
  keys = jax.random.split(key)
  net = hypernetwork.init(config, keys[0], episode)
  vae = weight_vae.init(config, keys[1], net['decoder']['base'])
  return {**vae, 'frozen': hypernetwork.freeze(net)}


def _adapt(config, params, support, key, *, train):
  del key, train
  net = hypernetwork.unfreeze(config, params)
  words = net.encoder.embed_words(support.context)
  loss = net.make_support_loss(support, words)
  fast = net.initial_weights(support.context)
  latent, _ = gradient_descent.optimise(
    lambda latent, step: loss(weight_vae.decode(params, net, latent)),
    weight_vae.encode(params, net, fast)[0],
    optax.adam(config.hvae_rate),
    config.hvae_steps,
  )
  return hypernetwork.Task(weight_vae.decode(params, net, latent), words)


def _predict(config, params, task, x, context):
  del context
  return hypernetwork.unfreeze(config, params).logits(task, x)


def _loss(config, params, episode, key, step):
  del step
  net = hypernetwork.unfreeze(config, params)
  fast = hypernetwork.FastWeights(net.task_latent(episode))
  return weight_vae.elbo(params, net, fast, config.beta, key)


def _evaluate(config, params, episode, key):
  support, query = episode.support, episode.query
  net = hypernetwork.unfreeze(config, params)
  task = _adapt(config, params, support, key, train=False)
  initial_weights = net.initial_weights(support.context)
  adapted = net.adapt(support, initial_weights).fast
  latent = weight_vae.encode(params, net, adapted)[0]
  reconstructed = weight_vae.decode(params, net, latent)
  accuracy = lambda fast: losses.accuracy(
    net.logits(task._replace(fast=fast), query.x), query.y
  )
  return {
    **losses.classification_metrics(net.logits(task, query.x), query.y),
    'accuracy_hypernet': accuracy(adapted),
    'accuracy_reconstructed': accuracy(reconstructed),
    'accuracy_start': accuracy(initial_weights),
  }
