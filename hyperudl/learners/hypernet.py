"""Decodes a latent into the weights of a network for tasks with language: HNET.

Nava et al. 2023, "Meta-Learning via Classifier(-free) Diffusion Guidance",
arXiv:2210.08942. The target network with weights W(z) (`nets/target_nets.py`)
classifies features of a frozen `contrastive` encoder. Kinds:
  autodecoder    a free latent z_i for each training task, learned jointly with
                 the decoder: mean CE(W(z_i)) + penalty |z_i|^2 + .1 CE(W(z_0));
  maml           z = z_0 adapted by inner steps on the support (HNet-MAML);
  multitask      W(z_0) for all tasks, the unconditional network;
  conditional    z = z_0 + MLP(question), then inner steps, if any
                 (conditional multitask, conditional HNet-MAML);
  weights        inner steps on the weights themselves (MNet-MAML);
  film           the question scales and shifts the hidden layer of one adapter.
`accuracy` is measured after the inner steps on the support, `accuracy_start`
before them.
"""

import functools

import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.learners._language import hypernetwork
from hyperudl.ops import losses

Config = hypernetwork.Config
INITIAL_WEIGHT = 0.1  # of CE(W(z_0)) in the loss of an autodecoder


def make(config: Config) -> core.Learner:
  """Return the `hypernet` learner; its task is a `hypernetwork.Task`."""
  bind = lambda function: functools.partial(function, config)
  functions = hypernetwork.init, _adapt, _predict, _loss, _evaluate
  return learners.make_learner(*map(bind, functions))


def _adapt(config, params, support, key, *, train):
  del key, train
  net = hypernetwork.Hypernet(config, params)
  return net.adapt(support, net.initial_weights(support.context))


def _predict(config, params, task, x, context):
  del context
  return hypernetwork.Hypernet(config, params).logits(task, x)


def _loss(config, params, episode, key, step):
  del step
  net = hypernetwork.Hypernet(config, params)
  if config.kind == 'autodecoder':
    return _autodecoder_loss(net, episode)
  task = _adapt(config, params, episode.support, key, train=True)
  logits, y = net.logits(task, episode.query.x), episode.query.y
  return losses.cross_entropy(logits, y), {
    'accuracy': losses.accuracy(logits, y)
  }


def _autodecoder_loss(net, episode):
  """Return the loss of a task's learned latent on all its images; metrics."""
  context = episode.support.context
  x, y, _ = hypernetwork.all_images(episode)
  words = net.encoder.embed_words(context)
  features = net.encoder.embed_images(x)
  logits_of = lambda fast: net.logits(
    hypernetwork.Task(fast, words), x, features
  )
  latent = net.task_code(episode)
  logits = logits_of(hypernetwork.FastWeights(latent))
  initial_logits = logits_of(net.initial_weights(context))
  square = jnp.sum(jnp.square(latent))
  value = losses.cross_entropy(logits, y)
  value += net.config.penalty * square
  value += INITIAL_WEIGHT * losses.cross_entropy(initial_logits, y)
  return value, {
    'accuracy': losses.accuracy(logits, y),
    'accuracy_start': losses.accuracy(initial_logits, y),
    'code_norm': jnp.sqrt(square),
  }


def _evaluate(config, params, episode, key):
  support, query = episode.support, episode.query
  net = hypernetwork.Hypernet(config, params)
  task = _adapt(config, params, support, key, train=False)
  initial_task = task._replace(fast=net.initial_weights(support.context))
  initial_logits = net.logits(initial_task, query.x)
  return {
    **losses.classification_metrics(net.logits(task, query.x), query.y),
    'accuracy_start': losses.accuracy(initial_logits, query.y),
    'nll_start': losses.cross_entropy(initial_logits, query.y),
  }
