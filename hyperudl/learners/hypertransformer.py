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
  * The encoder-decoder, the 'separate' generator and learned weights added
    to written ones are left out: no published script uses them.

Published: Omniglot 20-way 1-shot, 8 channels: 87.2% (support and query
overlap in 5% of the draws there, batch statistics of the queries).
The defaults are the authors' Omniglot 1-shot script (20-way, 60 queries,
SGD at .02, one episode per update; 843,232 parameters, theirs 72 more, that
bias). Their CNN 'maxpool-4-layer' is net='maxpool', depth=4; '3-layer' and
'4-layer' are net='strided', stride=2, depth=3 and 4.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import losses
from hyperudl.nets import writer


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
  features=8,
  logits_features='default',
  logits_nonlinear=False,
  shared='4-layer',
  shared_dim=32,
  shared_padding='SAME',
  embedding=32,
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
  logits_scale=0.0,
  label_smoothing=0.0,
  l2_reg_weight=0.0,
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
    layers: of each encoder.
    heads: of each encoder.
    key_query, value, inner: sizes in the encoder, up to 3 as a fraction of
      its width; see `transformer.Encoder`.
    attention: 'softmax' or 'sigmoid'.
    nonlinearity: of the encoder, 'relu', 'gelu' or 'lrelu' (0.1).
    skip_last_nonlinearity: make the last feed-forward net linear.
    dropout: rate in the encoders, in [0, 1).
    shared_dropout: rate on the shared features.
    feature_dropout: rate on the layer features.
    logits_scale: initial value of a learned factor of the written logits
      layer; 0 for none (the reference). Written weights have unit variance,
      so that wide last layers start with large logits: 1 / sqrt(D) helps.
      Convolutions need none: normalisation undoes their scale.
    label_smoothing: in [0, 1).
    l2_reg_weight: times the sum of squares of all kernels, added to the
      loss.

  Raises:
    core.BadInput: for wrong values, listing the choices.
  """
  s = writer.Settings(**locals())  # first, while these are all the names
  writer.check(s)
  cnn, generator = writer.make_net(s), writer.Writer(s)

  def init(key, episode):
    learn_key, write_key = jax.random.split(key)
    x, y = _pixels(episode.support.x), episode.support.y
    learned, _ = writer.split(s, cnn.init(learn_key, x)['params'])
    variables = generator.init(write_key, learned, x, y, train=False)
    params = {'writer': variables['params']}
    return {**params, 'net': learned} if learned else params

  def adapt(params, support, key, *, train):
    return generator.apply(
      {'params': params['writer']},
      params.get('net', {}),
      _pixels(support.x),
      support.y,
      train=train,
      rngs={'dropout': key},
    )

  def predict(params, task, x, context):
    del params, context
    return cnn.apply({'params': task}, _pixels(x))

  def loss(params, episode, key, step):
    del step
    task = adapt(params, episode.support, key, train=True)
    logits = predict(params, task, episode.query.x, None)
    fit = _smoothed_cross_entropy(logits, episode.query.y, label_smoothing)
    decay = l2_reg_weight * _kernel_squares(task)
    metrics = {
      'accuracy': core.accuracy(logits, episode.query.y),
      'cross_entropy': fit,
      'regularisation': decay,
    }
    return fit + decay, metrics

  return core.make_learner(init, adapt, predict, loss)


def _pixels(x):
  return 2.0 * x - 1.0


def _smoothed_cross_entropy(logits, y, smoothing):
  """Cross-entropy against (1 - smoothing) * one-hot + smoothing / N."""
  fit = core.cross_entropy(logits, y)
  if not smoothing:
    return fit
  labelled = (y >= 0).astype(logits.dtype)
  uniform = -jnp.mean(jax.nn.log_softmax(logits, axis=-1), axis=-1)
  even = losses.masked_mean(uniform, labelled)
  return (1 - smoothing) * fit + smoothing * even


def _kernel_squares(task):
  """Sum of squares of all kernels of the CNN, written or learned."""
  return sum(jnp.sum(jnp.square(layer['kernel'])) for layer in task.values())
