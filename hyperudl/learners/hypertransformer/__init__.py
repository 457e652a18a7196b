"""Generates a small CNN with one transformer per layer: HyperTransformer.

Zhmoginov, Sandler, Vladymyrov 2022, arXiv:2201.04182. Layers are generated in
order; z_l are the support's activations after the generated layers 1..l-1:
  theta_l = T_l([M_l[j]; 0]_j, [L_l[y_i]; h_l(z_l,i); s(x_i)]_i)
  outer loss = mean cross-entropy of f_theta on the queries
Slice j of theta_l is read at its weight token j. M_l is a table of weight
slices and L_l one of labels (its last row means "no label", for support rows
with y = -1); h_l are layer features, s shared image features, T_l is a post-LN
encoder without positional encoding. There is no inner loop. The CNN is conv,
activation, max-pooling, normalisation, and a linear layer. The last operation
of T_l is a layer norm, so weights start at unit variance.

Differs from the reference (TensorFlow code of the authors):
  * There are norms other than `norm='batch'` (the reference), which uses the
    statistics of the current images: of the support set during generation, of
    the queries at prediction, which is transductive. 'group', 'layer' and
    'none' are not.
  * Dropout acts only in training (in the reference also in evaluation).
  * The encoder of the logits layer has no bias in its last layer norm, because
    that bias would change all logits of an image equally and gets no gradient.
  * Images in [0, 1] are mapped to [-1, 1] (there 0..255 to x / 128 - 1).
  * Max-pooling is done before the activation. As the activation is increasing,
    the result is the same for a quarter of the work.

Published: Omniglot 20-way 1-shot, 8 channels: 87.2% (there support and queries
overlap in 5% of the draws, and norms use batch statistics of the queries).
The defaults are the authors' Omniglot 1-shot script (20-way, 60 queries,
SGD at .02, one episode per update; 843,232 parameters; theirs has 72 more, the
bias above). Their CNN 'maxpool-4-layer' is net='maxpool', depth=4; '3-layer'
and '4-layer' are net='strided', stride=2, depth=3 and 4.
"""

import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.config import ConfigDict
from hyperudl.learners.hypertransformer import class_weights
from hyperudl.learners.hypertransformer import config as config_lib
from hyperudl.learners.hypertransformer import feature_extractors
from hyperudl.learners.hypertransformer import losses
from hyperudl.learners.hypertransformer import target_network
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.ops import losses as ops_losses

Config = config_lib.Config
# See `learners.check_run`.
SUPPORTS = frozenset({'emit_from', 'missing_classes', 'varies'})


def check_run(config: ConfigDict) -> None:
  """Refuse `episode.emit_from` in a stage that generates no weights.

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

  Its task is the parameters of the CNN, or {'cnn', 'prototypes', 'scale'} if it
  has no logits layer; with head='class_weights' the prototypes are generated.
  """
  target_network.make(config)  # checks the choices of the CNN
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

  These are 'writer' (the weight generator) and, if configured, 'net' (the
  learned part of the CNN), 'shared' (features of images), 'support_norms',
  'log_scale', 'class_weights' and 'heads' (of the warm-up).
  """
  keys, x = jax.random.split(key, 5), episode.support.x
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
  if config.head != 'written' and config.logits_scale:
    params['log_scale'] = jnp.log(jnp.float32(config.logits_scale))
  if config.head == 'class_weights':
    features = target_network.embed(config, cnn, x)
    params['class_weights'] = class_weights.ClassWeights(config).init(
      *(keys[4], features, shared, episode.support.y), train=False
    )['params']
  if config.warmup_steps:
    params['heads'] = [
      losses.init_dense(k, config.channels, config.way)
      for k in jax.random.split(keys[3], config.depth - 1)
    ]
  return params


def _init_shared(config, key, x):
  """Return {'shared': 'features' and, if it is trained, 'head'}, or {}."""
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
  """Return the CNN of one episode, with prototypes if it has no logits layer.

  If the context of the support has 'emit_from' (Examples with a leading axis),
  return the mean of the CNNs generated for those supports, with prototypes of
  the support itself. This control measures whether the generated weights
  matter.

  Args:
    config: hyperparameters.
    params: of the learner.
    support: images in [0, 1] and labels.
    key: PRNG key of dropout.
    train: whether dropout is on.

  Raises:
    core.BadInput: for 'emit_from' with a generated logits layer.
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
      "it needs learner.head='prototypes' or 'class_weights'"
    )
  else:
    cnns = jax.lax.map(generate, others)
    cnn = jax.tree.map(lambda leaf: leaf.mean(axis=0), cnns)
  if config.head == 'written':
    return cnn
  task = {
    'cnn': cnn,
    'prototypes': _prototypes(config, params, cnn, support, key, train),
    'scale': distance_scale(config, params),
  }
  if config.varies:
    task['present'] = ops_losses.class_counts(support.y, config.way) > 0
  return task


def _prototypes(config, params, cnn, support, key, train):
  """Return the class means f32[N, D], or class weights, of features."""
  domains = target_network.counted_rows(config, support.y)
  features = target_network.embed(config, cnn, support.x, domains)
  if config.head == 'prototypes':
    return ops_losses.class_means(features, support.y, config.way)
  return class_weights.ClassWeights(config).apply(
    {'params': params['class_weights']},
    features,
    feature_extractors.shared_features(config, params, support.x),
    support.y,
    train=train,
    rngs={'dropout': jax.random.fold_in(key, 2)},
  )


def distance_scale(config: Config, params: core.PyTree) -> jax.Array:
  """Return the factor f32[] of squared distances to prototypes."""
  return jnp.exp(params['log_scale']) if config.logits_scale else jnp.ones(())


def _predict(config, params, task, x, context):
  del params, context
  if config.head == 'written':
    return target_network.embed(config, task, x)
  features = target_network.embed(config, task['cnn'], x)
  distances = ops_losses.squared_distances(features, task['prototypes'])
  logits = -task['scale'] * distances
  return ops_losses.mask_absent(logits, task.get('present'))


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
  """Make the learner of stage 'shared', which only trains shared features."""

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
