"""A small image-text encoder, trained to tell the answers of a task apart.

After CLIP (Radford et al. 2021, arXiv:2103.00020) with the contrast among the
answers of a question in place of a batch of captions, which on small scenes
learns several times faster:
  p(answer k | image x) = softmax_k(scale cos(f(x), g(t_k))).
It is the frozen upstream of the learners with language. Train it on answers
that name what they speak of (`language.answers=mixed`). What other tasks ask of
the queries (`extra['asked']`, see `data/vqa_episodes.py`) is part of the loss,
the mean over all pairs of an image and a question that has an answer there.
Captions of the queries (`extra['captions']`) add the contrast of CLIP, among
the captions of an episode for each image and among its images for each caption;
captions of others that are true of an image too are in neither.
"""

import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners._language import dual_encoder
from hyperudl.nets import towers as text
from hyperudl.ops import losses


def make(
  way,
  *,
  vocabulary=512,
  width=300,
  hidden=(192, 96),
  grid=2,
  inner=96,
  scale=10.0,
):
  """The `contrastive` learner. Its task is the `language.Words` of a task.

  Args:
    way: N.
    vocabulary: word ids that there may be.
    width: E = d (d + 1) / 2, of the common space, see nets/text.py.
    hidden: of the perceptron of an image patch.
    grid: patches per side of an image.
    inner: width of words in the text tower.
    scale: initial inverse temperature, learned.

  Raises:
    ValueError: for sizes below 1, a width that is no d (d + 1) / 2 or a scale
      that is not positive.
  """
  del way
  towers = dual_encoder.Towers(vocabulary, width, tuple(hidden), grid, inner)
  dual_encoder.check(towers)
  text.factors_of(width)
  if scale <= 0:
    raise ValueError(f'scale must be > 0, not {scale}')

  def init(key, episode):
    return dual_encoder.init(towers, key, episode.support, scale)

  def adapt(params, support, key, *, train):
    del key, train
    return dual_encoder.words(towers, params, support.context)

  def predict(params, task, x, context):
    del context
    features = dual_encoder.images(towers, params, x)
    return dual_encoder.logits(features, task, jnp.exp(params['log_scale']))

  def loss(params, episode, key, step):
    del step
    query = episode.query
    task = adapt(params, episode.support, key, train=True)
    scale = jnp.exp(params['log_scale'])
    features = dual_encoder.images(towers, params, query.x)
    own = dual_encoder.logits(features, task, scale)
    metrics = {'accuracy': losses.accuracy(own, query.y)}
    extra = episode.extra or {}
    asked, captions = extra.get('asked'), extra.get('captions')
    logits, y = own, query.y
    if asked is not None:
      vectors = dual_encoder.answers(towers, params, asked['answers'])
      others = jax.vmap(
        lambda vectors, mask: dual_encoder.logits(
          features, dual_encoder.Words(None, vectors, mask), scale
        )
      )(vectors, asked['mask'])
      logits = jnp.concatenate([own, others.reshape(-1, own.shape[-1])])
      y = jnp.concatenate([query.y, asked['y'].reshape(-1)])
      metrics['accuracy_asked'] = losses.accuracy(logits, y)
    value = losses.cross_entropy(logits, y)
    if captions is not None:
      vectors = dual_encoder.answers(towers, params, captions['strings'])
      said = dual_encoder.Words(None, vectors, jnp.ones(len(vectors)))
      logits = dual_encoder.logits(features, said, scale)
      among, metrics['accuracy_captions'] = contrast(logits, captions['true'])
      value += among
    return value, metrics

  return learners.make_learner(init, adapt, predict, loss)


def contrast(logits, true):
  """(f32[], f32[]): the contrast of images and captions, and its accuracy.

  Args:
    logits: f32[Q, Q] of image i and caption j; caption i is that of image i.
    true: bool[Q, Q], whether it is true of it; rows that are not true of their
      own image count for nothing.
  """
  count = len(logits)
  own = jnp.eye(count, dtype=bool)
  said = jnp.diagonal(true)
  y = jnp.where(said, jnp.arange(count), -1)
  others = true & ~own
  images = jnp.where(others | ~said, dual_encoder.NEVER, logits)
  strings = jnp.where(others.T, dual_encoder.NEVER, logits.T)
  value = losses.cross_entropy(images, y) + losses.cross_entropy(strings, y)
  return value / 2, losses.accuracy(images, y)
