"""Builds benchmark rows for the parts of a HyperTransformer's update.

Each part runs separately, with its gradients, on one episode and on inputs of
the right shapes: features of images and of layers, encoders, and the CNN on
support and queries. Encoders are left out for generators with a decoder.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.benchmark import flops
from hyperudl.benchmark import timing
from hyperudl.core import config as config_lib
from hyperudl.core.config import ConfigDict
from hyperudl.learners import hypertransformer
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import layer_generator
from hyperudl.learners.hypertransformer import target_network
from hyperudl.training import train_step


def rows(
  config: ConfigDict, learner: core.Learner, episode: core.Episode
) -> list[timing.Row]:
  """Return a row for each part of a learner; none if stage is not 'all'."""
  if config.learner.stage != 'all':
    return []
  settings = config_lib.learner_settings(config)
  hyper = hypertransformer.Config(way=config.episode.way, **settings)
  key, support = jax.random.key(0), episode.support
  params = jax.jit(learner.init)(key, episode)
  task = jax.jit(lambda p: learner.adapt(p, support, key, train=False))(params)
  cnn = task if hyper.head == 'written' else task['cnn']
  z = target_network.scale_pixels(support.x)
  specs = target_network.layer_specs(hyper, z)
  activations = {}
  for spec in specs:
    activations[spec.name] = z
    if not spec.is_head:
      z = spec.block.apply({'params': cnn[spec.name]}, z)
  images = jnp.concatenate([support.x, episode.query.x])
  parts: dict[str, tuple] = {
    'cnn': (partial(target_network.embed, hyper), cnn, images)
  }
  if hyper.features:
    run = partial(_layer_features, hyper, specs)
    parts['layer features'] = (run, params, activations)
  if hyper.generator == 'joint' and not hyper.decoder:
    sequences = {
      name: _constant_sequence(layer, support)
      for name, layer in params['writer'].items()
      if 'encoder' in layer
    }
    parts['encoders'] = (partial(_encode, hyper, specs), params, sequences)
  if hyper.shared != 'none':
    run = partial(_shared_features, hyper)
    parts['shared features'] = (run, params, activations[specs[0].name])
  return [
    _row(f'part {name}', config.matmul_precision, *part)
    for name, part in parts.items()
  ]


def _shared_features(hyper, params, x):
  net = feature_extractors.make_shared(hyper)
  return net.apply({'params': params['shared']['features']}, x)


def _layer_features(hyper, specs, params, activations):
  by_layer = {}
  for spec in specs:
    x, name = activations[spec.name], f'{spec.name}_features'
    if name in params['writer']:
      net = feature_extractors.make_for_layer(hyper, spec, x.shape[-1])
      by_layer[name] = net.apply({'params': params['writer'][name]}, x)
  return by_layer


def _encode(hyper, specs, params, sequences):
  by_layer = {}
  for spec in specs:
    if spec.name in sequences:
      net = layer_generator.make_encoder(hyper, is_head=spec.is_head)
      variables = {'params': params['writer'][spec.name]['encoder']}
      by_layer[spec.name] = net.apply(variables, sequences[spec.name])
  return by_layer


def _constant_sequence(layer, support):
  """Return a constant input of a layer's encoder, one row for each token."""
  width = layer['encoder']['norm0a']['scale'].shape[0]
  return jnp.ones((layer['weights'].shape[0] + support.y.shape[0], width))


def _row(name, precision, function, params, x):
  """Return the row of the outputs' sum of squares with its gradients."""

  def total(params, x):
    leaves = jax.tree.leaves(function(params, x))
    return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)

  run = jax.value_and_grad(total, (0, 1))
  run = jax.jit(train_step.at_precision(run, precision))
  work = flops.count(run, params, x)
  return timing.Row(name, 1, lambda: run(params, x), work)
