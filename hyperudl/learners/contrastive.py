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

from hyperudl import core
from hyperudl import language
from hyperudl.nets import text


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
  towers = language.Towers(vocabulary, width, tuple(hidden), grid, inner)
  language.check(towers)
  text.factors_of(width)
  if scale <= 0:
    raise ValueError(f'scale must be > 0, not {scale}')

  def init(key, episode):
    return language.init(towers, key, episode.support, scale)

  def adapt(params, support, key, *, train):
    del key, train
    return language.words(towers, params, support.context)

  def predict(params, task, x, context):
    del context
    features = language.images(towers, params, x)
    return language.logits(features, task, jnp.exp(params['log_scale']))

  def loss(params, episode, key, step):
    del step
    query = episode.query
    task = adapt(params, episode.support, key, train=True)
    scale = jnp.exp(params['log_scale'])
    features = language.images(towers, params, query.x)
    own = language.logits(features, task, scale)
    metrics = {'accuracy': core.accuracy(own, query.y)}
    extra = episode.extra or {}
    asked, captions = extra.get('asked'), extra.get('captions')
    logits, y = own, query.y
    if asked is not None:
      vectors = language.answers(towers, params, asked['answers'])
      others = jax.vmap(
        lambda vectors, mask: language.logits(
          features, language.Words(None, vectors, mask), scale
        )
      )(vectors, asked['mask'])
      logits = jnp.concatenate([own, others.reshape(-1, own.shape[-1])])
      y = jnp.concatenate([query.y, asked['y'].reshape(-1)])
      metrics['accuracy_asked'] = core.accuracy(logits, y)
    value = core.cross_entropy(logits, y)
    if captions is not None:
      vectors = language.answers(towers, params, captions['strings'])
      said = language.Words(None, vectors, jnp.ones(len(vectors)))
      logits = language.logits(features, said, scale)
      among, metrics['accuracy_captions'] = contrast(logits, captions['true'])
      value += among
    return value, metrics

  return core.make_learner(init, adapt, predict, loss)


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
  images = jnp.where(others | ~said, language.NEVER, logits)
  strings = jnp.where(others.T, language.NEVER, logits.T)
  value = core.cross_entropy(images, y) + core.cross_entropy(strings, y)
  return value / 2, core.accuracy(images, y)
