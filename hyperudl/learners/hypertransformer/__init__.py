"""HyperTransformer: one transformer per layer writes a small CNN.

Zhmoginov, Sandler, Vladymyrov 2022, arXiv:2201.04182. Layers are written in
order; z_l is the support set after the layers 1..l-1 already written:
  theta_l = T_l([M_l[j]; 0]_j, [L_l[y_i]; h_l(z_l,i); s(x_i)]_i)  at weights j
  outer loss = mean cross-entropy of f_theta on the queries
with tables M_l (slices) and L_l (labels; its last row means "no label", used
by support rows with y = -1), layer features h_l, shared image features s and
a post-LN encoder T_l without positional encoding. There is no inner loop.
The CNN is conv, activation, max-pooling, normalisation, and a linear layer.
The last operation of T_l is a layer norm, so weights start at unit variance.

Differs from the reference (TensorFlow code of the authors):
  * `norm='batch'` (the reference) uses the statistics of the images at hand:
    of the support set while writing, of the queries while answering, which
    is transductive at query time. 'group', 'layer' and 'none' are not.
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

from flax import linen as nn
import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners.hypertransformer import config
from hyperudl.learners.hypertransformer import episode_network
from hyperudl.learners.hypertransformer import generator_losses
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.ops import losses


def make(
  way,
  *,
  net='maxpool',
  channels=8,
  depth=4,
  kernel_size=3,
  stride=1,
  activation='relu',
  norm='batch',
  trained_layers=0,
  allocation='output',
  generate_bias=False,
  generate_norm=False,
  add_learned=False,
  separate_norm=False,
  features=8,
  logits_features='default',
  logits_nonlinear=False,
  shared='4-layer',
  shared_dim=32,
  shared_padding='SAME',
  embedding=32,
  generator='joint',
  decoder=False,
  layers=3,
  heads=2,
  key_query=1.0,
  value=1.0,
  inner=1.0,
  attention='softmax',
  nonlinearity='relu',
  skip_last_nonlinearity=False,
  dropout=0.0,
  shared_dropout=0.0,
  feature_dropout=0.0,
  remove_labelled=0.0,
  remove_unlabelled=0.0,
  block_scale=0.0,
  logits_scale=0.0,
  label_smoothing=0.0,
  l2_reg_weight=0.0,
  variation_weight=0.0,
  shared_head_weight=0.0,
  shared_head_classes=0,
  warmup_steps=0,
  head='written',
  stage='all',
):
  """The `hypertransformer` learner. Its task is the parameters of the CNN.

  Args:
    way: N.
    net: 'maxpool' (SAME convolutions, 2x2 pooling, flattened) or 'strided'
      (VALID convolutions, mean over positions).
    channels: filters of each convolution of the CNN.
    depth: convolutions of the CNN.
    kernel_size: of these.
    stride: of these.
    activation: of the CNN, 'relu' or 'lrelu' (0.01).
    norm: of the CNN, 'batch', 'group', 'layer' or 'none'.
    trained_layers: n > 0: the first n convolutions are learned, not
      written; n < 0: the last -n. All of them: only the logits are written.
    allocation: 'output' or 'spatial', see `emit`.
    generate_bias: write a bias of each convolution; without, it has none.
    generate_norm: write the scale and bias of its normalisation; without,
      these are learned.
    add_learned: add learned weights to all that are written.
    separate_norm: learned norms of the support's activations of their own,
      apart from those that queries meet.
    features: filters of the layer features; 0 for none, -1 for the wider of
      the layer's input and output.
    logits_features: features of the last layer: 'default' (convolution),
      'passthrough' (the activations) or 'mix' (both).
    logits_nonlinear: take the last layer's features after a ReLU.
    shared: image features seen by all layers, 'none' or '2-layer',
      '3-layer', '4-layer'; '2-layer-bn', ... normalise over the support.
    shared_dim: their number.
    shared_padding: 'SAME' or 'VALID'.
    embedding: width of the tables of labels and slices.
    generator: 'joint', one encoder over tokens of slices and samples, or
      'separate', an encoder of the samples and a decoder of the slices.
    decoder: put a decoder behind the encoder of the joint generator.
    layers: of each encoder, and of each decoder.
    heads: of each.
    key_query, value, inner: sizes in the encoder, up to 3 as a fraction of
      its width; see `transformer.Encoder`.
    attention: 'softmax' or 'sigmoid'.
    nonlinearity: of the encoder, 'relu', 'gelu' or 'lrelu' (0.1).
    skip_last_nonlinearity: make the last feed-forward net linear.
    dropout: rate in the encoders, in [0, 1).
    shared_dropout: rate on the shared features.
    feature_dropout: rate on the layer features.
    remove_labelled, remove_unlabelled: p in [0, 1]; in training each labelled
      (unlabelled) support row is hidden from attention with a probability
      that is drawn from U(0, p) for each episode.
    block_scale, logits_scale: initial value of a learned factor of what is
      written, one for each layer; 0 for none (the reference). Written weights
      have unit variance, so that wide last layers start with large logits:
      1 / sqrt(D) helps. Under a norm convolutions need none.
    label_smoothing: in [0, 1), of every cross-entropy.
    l2_reg_weight: times the sum of squares of all kernels, added to the
      loss.
    variation_weight: times |written|^2 / |learned|^2 of each convolution,
      added to the loss; with add_learned.
    shared_head_weight: times the cross-entropy of a linear layer that tells
      from the shared features which training class an image of the support
      is, added to the loss.
    shared_head_classes: number of training classes, for that layer.
    warmup_steps: W > 0 trains layer after layer at first: each convolution
      but the last has a learned linear head on its mean query activations,
      and the weight of the loss moves from head to head until step W.
    head: 'written', or 'prototypes': no layer of logits is written, and queries
      are compared with the class means of the last activations by squared
      distance, times logits_scale
      where it is not 0. The task is then {'cnn', 'prototypes', 'scale'}.
    stage: 'all', or 'shared': only the shared features and their head are
      trained, for `init_from.shared` of a later run; then `adapt` takes class
      means of the shared features.

  Raises:
    core.BadInput: for wrong values, listing the choices.
  """
  s = settings_of(**locals())  # while these are all the names
  if s.stage == 'shared':
    return _shared_learner(s)
  return learners.make_learner(
    lambda key, episode: episode_network.init(s, key, episode),
    lambda params, support, key, *, train: episode_network.task_of(
      s, params, support, key, train
    ),
    lambda params, task, x, context: _predict(s, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key, step),
  )


def settings_of(way, **settings):
  """Checked `Settings` with the defaults of `make`.

  Raises:
    core.BadInput: for wrong values, listing the choices.
    TypeError: for a setting that does not exist.
  """
  settings = {**make.__kwdefaults__, **settings}
  s = config.Settings(way=way, **settings)
  config.check(s)
  weight_generator.make_net(s)  # checks its own choices
  return s


def _predict(s, task, x):
  if s.head == 'written':
    return episode_network.embed(s, task, x)
  features = episode_network.embed(s, task['cnn'], x)
  return -task['scale'] * losses.squared_distances(features, task['prototypes'])


def _loss(s, params, episode, key, step):
  task = episode_network.task_of(s, params, episode.support, key, True)
  query = episode.query
  logits = _predict(s, task, query.x)
  cnn = task if s.head == 'written' else task['cnn']
  fit = generator_losses.smoothed_cross_entropy(
    logits, query.y, s.label_smoothing
  )
  decay = s.l2_reg_weight * generator_losses.kernel_squares(cnn)
  metrics = {
    'accuracy': losses.accuracy(logits, query.y),
    'cross_entropy': fit,
    'regularisation': decay,
  }
  value = fit
  if s.warmup_steps:
    weights = generator_losses.warmup_weights(step, s.warmup_steps, s.depth - 1)
    value = weights[-1] * fit
    found = generator_losses.head_losses(
      weight_generator.block(s),
      params['heads'],
      cnn,
      episode_network.pixels(query.x),
      query.y,
      s.label_smoothing,
    )
    value += sum(weight * each for weight, each in zip(weights, found))
    metrics['warmup'] = 1.0 - weights[-1]
  value += decay
  if s.variation_weight:
    metrics['variation'] = generator_losses.variation(params['net'], cnn)
    value += s.variation_weight * metrics['variation']
  if s.shared_head_weight:
    found, right = _shared_head(s, params, episode, jax.random.fold_in(key, 1))
    metrics['shared_loss'], metrics['shared_accuracy'] = found, right
    value += s.shared_head_weight * found
  return value, metrics


def _shared_head(s, params, episode, key):
  """(loss, accuracy) of the training classes of the support's images.

  As everywhere labels are smoothed and shared features dropped, by `key`.
  """
  support, ids = episode.support, episode.extra['class_ids']
  features = episode_network.shared_features(
    s, params, episode_network.pixels(support.x)
  )
  drop = nn.Dropout(s.shared_dropout, deterministic=False)
  features = drop.apply({}, features, rngs={'dropout': key})
  logits = generator_losses.dense(params['shared']['head'], features)
  y = jnp.where(support.y < 0, -1, ids[support.y])
  # A class without an output would be a silent loss of zero.
  fits = jnp.all(ids < s.shared_head_classes)
  value = generator_losses.smoothed_cross_entropy(logits, y, s.label_smoothing)
  value = jnp.where(fits, value, jnp.nan)
  right = (jnp.argmax(logits, axis=-1) == y).astype(jnp.float32)
  return value, losses.masked_mean(right, (y >= 0).astype(jnp.float32))


def _shared_learner(s):
  """Stage 'shared': features that tell the training classes apart."""

  def adapt(params, support, key, *, train):
    del key, train
    features = episode_network.shared_features(
      s, params, episode_network.pixels(support.x)
    )
    return losses.class_means(features, support.y, s.way)

  def predict(params, task, x, context):
    del context
    return -losses.squared_distances(
      episode_network.shared_features(s, params, episode_network.pixels(x)),
      task,
    )

  def loss(params, episode, key, step):
    del step
    value, right = _shared_head(s, params, episode, key)
    return value, {'accuracy': right}

  init = lambda key, episode: episode_network.init_shared(
    s, key, episode_network.pixels(episode.support.x)
  )
  return learners.make_learner(init, adapt, predict, loss)
