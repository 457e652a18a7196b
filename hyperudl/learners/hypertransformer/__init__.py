"""HyperTransformer: one transformer per layer generates a small CNN.

Zhmoginov, Sandler, Vladymyrov 2022, arXiv:2201.04182. Layers are generated in
order; z_l is the support set after the layers 1..l-1 generated before:
  theta_l = T_l([M_l[j]; 0]_j, [L_l[y_i]; h_l(z_l,i); s(x_i)]_i)  at weights j
  outer loss = mean cross-entropy of f_theta on the queries
with tables M_l (weight slices) and L_l (labels; its last row means "no label",
used by support rows with y = -1), layer features h_l, shared image features s
and a post-LN encoder T_l without positional encoding. There is no inner loop.
The CNN is conv, activation, max-pooling, normalisation, and a linear layer.
The last operation of T_l is a layer norm, so weights start at unit variance.

Differs from the reference (TensorFlow code of the authors):
  * `norm='batch'` (the reference) uses the statistics of the images at hand:
    of the support set during generation, of the queries at prediction, which
    is transductive. 'group', 'layer' and 'none' are not.
  * Dropout acts in training only (there also in evaluation).
  * The encoder of the logits layer has no bias in its last layer norm: it
    would move all logits of an image alike and has no gradient.
  * Images in [0, 1] are mapped to [-1, 1] (there x / 128 - 1 of 0..255).
  * Max-pooling stands before the activation, which is increasing: the same
    numbers from a quarter of the work.

Published: Omniglot 20-way 1-shot, 8 channels: 87.2% (support and query
overlap in 5% of the draws there, batch statistics of the queries).
The defaults are the authors' Omniglot 1-shot script (20-way, 60 queries,
SGD at .02, one episode per update; 843,232 parameters, theirs 72 more, that
bias). Their CNN 'maxpool-4-layer' is net='maxpool', depth=4; '3-layer' and
'4-layer' are net='strided', stride=2, depth=3 and 4.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.config import ConfigDict
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import losses
from hyperudl.learners.hypertransformer import target_network
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.ops import losses as ops_losses

Config = config_lib.Config
# See `learners.check_run`.
SUPPORTS = frozenset({'emit_from', 'missing_classes'})


def check_run(config: ConfigDict) -> None:
  """Refuse other supports in a stage that generates no weights.

  Raises:
    core.BadInput: naming the fields.
  """
  if config.episode.emit_from != 'own' and config.learner.stage == 'shared':
    raise core.BadInput(
      f'config.episode.emit_from = {config.episode.emit_from!r} replaces the '
      'supports that weights are generated from, and '
      "config.learner.stage = 'shared' generates none: set it to 'own'"
    )


def make(config: Config) -> core.Learner:
  """Make the `hypertransformer` learner.

  Its task is the parameters of the CNN, or with head='prototypes'
  {'cnn', 'prototypes', 'scale'}.
  """
  target_network.make(config)  # checks its own choices
  if config.stage == 'shared':
    return _make_shared_stage(config)
  functions = init, adapt, _predict, _loss
  return learners.make_learner(
    *(functools.partial(function, config) for function in functions)
  )


def init(
  config: Config, key: jax.Array, episode: core.Episode
) -> dict[str, core.PyTree]:
  """Return the learner's parameters.

  These are 'writer' (the weight generator) and, where they exist, 'net' (the
  learned part of the CNN), 'shared', 'support_norms', 'log_scale', 'heads'.
  """
  keys, x = jax.random.split(key, 4), episode.support.x
  pixels = target_network.scale_pixels(x)
  specs = target_network.layer_specs(config, pixels)
  cnn = target_network.make(config).init(keys[0], pixels)['params']
  learned = target_network.learned_part(config, specs, cnn)
  norms = target_network.norms(learned) if config.separate_norm else {}
  params = _init_shared(config, keys[1], pixels)
  shared = feature_extractors.shared_features(config, params, x)
  generator = weight_generator.WeightGenerator(config)
  variables = generator.init(
    keys[2], learned, norms, episode.support, shared, False
  )
  params['writer'] = variables.get('params', {})
  if learned:
    params['net'] = learned
  if norms:
    params['support_norms'] = norms
  if config.head == 'prototypes' and config.logits_scale:
    params['log_scale'] = jnp.log(jnp.float32(config.logits_scale))
  if config.warmup_steps:
    params['heads'] = [
      losses.init_dense(k, config.channels, config.way)
      for k in jax.random.split(keys[3], config.depth - 1)
    ]
  return params


def _init_shared(config, key, x):
  """{'shared': features and, where it is trained, head}, or {}."""
  if config.shared == 'none':
    return {}
  keys = jax.random.split(key)
  network = feature_extractors.make_shared(config)
  params = {'features': network.init(keys[0], x)['params']}
  if config.shared_head_weight or config.stage == 'shared':
    params['head'] = losses.init_dense(
      keys[1], config.shared_dim, config.shared_head_classes
    )
  return {'shared': params}


def adapt(
  config: Config,
  params: core.PyTree,
  support: core.Examples,
  key: jax.Array,
  *,
  train: bool,
) -> core.PyTree:
  """Return the CNN of one episode, with prototypes where it has no logits.

  Where the context of the support holds 'emit_from' (Examples with a leading
  axis), the mean of the CNNs generated for those supports, with prototypes of
  the support itself: the control of whether the generated weights matter.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: images in [0, 1] and labels.
    key: PRNG key of dropout.
    train: whether it acts.

  Raises:
    core.BadInput: for other supports and a generated logits layer.
  """
  generate = lambda support: weight_generator.generate(
    config, params, support, key, train
  )
  others = (support.context or {}).get('emit_from')
  if others is None:
    cnn = generate(support)
  elif config.head == 'written':
    raise core.BadInput(
      'episode.emit_from: logits generated for other classes do not fit these; '
      "it needs learner.head='prototypes'"
    )
  else:
    cnns = jax.lax.map(generate, others)
    cnn = jax.tree.map(lambda leaf: leaf.mean(axis=0), cnns)
  if config.head == 'written':
    return cnn
  features = target_network.embed(config, cnn, support.x)
  return {
    'cnn': cnn,
    'prototypes': ops_losses.class_means(features, support.y, config.way),
    'scale': distance_scale(config, params),
  }


def distance_scale(config: Config, params: core.PyTree) -> jax.Array:
  """Return the factor f32[] of squared distances from prototypes."""
  return jnp.exp(params['log_scale']) if config.logits_scale else jnp.ones(())


def _predict(config, params, task, x, context):
  del params, context
  if config.head == 'written':
    return target_network.embed(config, task, x)
  features = target_network.embed(config, task['cnn'], x)
  distances = ops_losses.squared_distances(features, task['prototypes'])
  return -task['scale'] * distances


def _loss(config, params, episode, key, step):
  task = adapt(config, params, episode.support, key, train=True)
  query = episode.query
  logits = _predict(config, params, task, query.x, query.context)
  cnn = task if config.head == 'written' else task['cnn']
  fit = losses.smoothed_cross_entropy(logits, query.y, config.label_smoothing)
  decay = config.l2_reg_weight * losses.kernel_squares(cnn)
  metrics = {
    'accuracy': ops_losses.accuracy(logits, query.y),
    'cross_entropy': fit,
    'regularisation': decay,
  }
  value = fit
  if config.warmup_steps:
    weights = losses.warmup_weights(step, config.warmup_steps, config.depth - 1)
    heads = losses.head_losses(config, params['heads'], cnn, query)
    value = weights[-1] * fit
    value += sum(weight * each for weight, each in zip(weights, heads))
    metrics['warmup'] = 1.0 - weights[-1]
  value += decay
  if config.variation_weight:
    metrics['variation'] = losses.variation(params['net'], cnn)
    value += config.variation_weight * metrics['variation']
  if config.shared_head_weight:
    shared, accuracy = losses.shared_head(
      config, params, episode, jax.random.fold_in(key, 1)
    )
    metrics |= {'shared_loss': shared, 'shared_accuracy': accuracy}
    value += config.shared_head_weight * shared
  return value, metrics


def _make_shared_stage(config):
  """Stage 'shared': features that tell the training classes apart."""

  def adapt(params, support, key, *, train):
    del key, train
    features = feature_extractors.shared_features(config, params, support.x)
    return ops_losses.class_means(features, support.y, config.way)

  def predict(params, task, x, context):
    del context
    features = feature_extractors.shared_features(config, params, x)
    return -ops_losses.squared_distances(features, task)

  def loss(params, episode, key, step):
    del step
    value, accuracy = losses.shared_head(config, params, episode, key)
    return value, {'accuracy': accuracy}

  init = lambda key, episode: _init_shared(
    config, key, target_network.scale_pixels(episode.support.x)
  )
  return learners.make_learner(init, adapt, predict, loss)
