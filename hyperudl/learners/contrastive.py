"""A small image-text encoder, trained to tell the answers of a task apart.

After CLIP (Radford et al. 2021, arXiv:2103.00020) with the contrast among the
answers of a question in place of a batch of captions, which on small scenes
learns several times faster:
  p(answer k | image x) = softmax_k(scale cos(f(x), g(t_k))).
It is the frozen upstream of the learners with language. Train it on answers
that name what they speak of (`language.answers=mixed`). What other tasks ask of
the queries (`extra['asked']`, see `data/vqa_episodes.py`) is part of the loss,
the mean over all pairs of an image and a question that has an answer there.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import language


def make(
  way,
  *,
  vocabulary=512,
  width=128,
  hidden=(192, 96),
  grid=2,
  inner=96,
  length=32,
  scale=10.0,
):
  """The `contrastive` learner. Its task is the `language.Words` of a task.

  Args:
    way: N.
    vocabulary: word ids that there may be.
    width: E, of the common space.
    hidden: of the perceptron of an image patch.
    grid: patches per side of an image.
    inner: width of words in the text tower, a multiple of 4.
    length: words of the longest string.
    scale: initial inverse temperature, learned.

  Raises:
    ValueError: for sizes below 1 or a scale that is not positive.
  """
  del way
  towers = language.Towers(
    vocabulary, width, tuple(hidden), grid, inner, length
  )
  language.check(towers)
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
    asked = (episode.extra or {}).get('asked')
    if asked is None:
      return core.cross_entropy(own, query.y), metrics
    vectors = language.answers(towers, params, asked['answers'])
    others = jax.vmap(
      lambda vectors, mask: language.logits(
        features, language.Words(None, vectors, mask), scale
      )
    )(vectors, asked['mask'])
    logits = jnp.concatenate([own, others.reshape(-1, own.shape[-1])])
    y = jnp.concatenate([query.y, asked['y'].reshape(-1)])
    metrics['accuracy_asked'] = core.accuracy(logits, y)
    return core.cross_entropy(logits, y), metrics

  return core.make_learner(init, adapt, predict, loss)
