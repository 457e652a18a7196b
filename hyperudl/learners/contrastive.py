"""Trains a small image-text encoder to discriminate the answers of a task.

After CLIP (Radford et al. 2021, arXiv:2103.00020), but the contrast is among
the answers to a question, not among a batch of captions, which learns several
times faster on small scenes:
  p(answer k | image x) = softmax_k(scale cos(f(x), g(t_k))).
The learners with language use this encoder frozen. Train it on answers that
name their referent (`language.answers=mixed`). The loss is the mean over all
pairs of an image and a question that has an answer for it, including questions
of other tasks about the queries (`extra['asked']`, see
`data/language/questions.py`). Captions of the queries (`extra['captions']`) add
the loss of CLIP: for each image the contrast among the episode's captions, and
for each caption the contrast among its images; a caption of another image that
happens to be true of an image as well is left out of both.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core.hyperparameters import field
from hyperudl.learners._language import dual_encoder
from hyperudl.nets import towers as towers_lib
from hyperudl.ops import losses


@dataclasses.dataclass(frozen=True)
class Config(dual_encoder.Config):
  """Hyperparameters of `contrastive`."""

  inner: int = field(96, at_least=1)  # width of the word vectors
  scale: float = field(10.0, above=0)  # initial inverse temperature, learned

  def __post_init__(self):
    super().__post_init__()
    towers_lib.pair_dimension(self.width)

  @property
  def towers(self) -> dual_encoder.Towers:
    """The image encoder and the text encoder."""
    return dual_encoder.make_towers(self, self.inner)


def make(config: Config) -> core.Learner:
  """Return the `contrastive` learner; its task is a `towers.Words`."""
  bind = lambda function: functools.partial(function, config)
  return learners.make_learner(*map(bind, (_init, _adapt, _predict, _loss)))


def _init(config, key, episode):
  return dual_encoder.init(config.towers, key, episode.support, config.scale)


def _adapt(config, params, support, key, *, train):
  del key, train
  encoder = dual_encoder.DualEncoder(config.towers, params)
  return encoder.embed_words(support.context)


def _predict(config, params, task, x, context):
  del context
  encoder = dual_encoder.DualEncoder(config.towers, params)
  return _logits(params, encoder.embed_images(x), task)


def _logits(params, features, words):
  scale = jnp.exp(params['log_scale'])
  return towers_lib.cosine_logits(features, words, scale)


def _loss(config, params, episode, key, step):
  del key, step
  query, extra = episode.query, episode.extra or {}
  encoder = dual_encoder.DualEncoder(config.towers, params)
  features = encoder.embed_images(query.x)
  words = encoder.embed_words(episode.support.context)
  logits, y = _logits(params, features, words), query.y
  metrics = {'accuracy': losses.accuracy(logits, y)}
  if 'asked' in extra:
    asked = extra['asked']
    other_logits = jax.vmap(
      lambda vectors, mask: _logits(
        params, features, towers_lib.Words(None, vectors, mask)
      )
    )(encoder.embed_strings(asked['answers']), asked['mask'])
    other_logits = other_logits.reshape(-1, logits.shape[-1])
    logits = jnp.concatenate([logits, other_logits])
    y = jnp.concatenate([y, asked['y'].reshape(-1)])
    metrics['accuracy_asked'] = losses.accuracy(logits, y)
  value = losses.cross_entropy(logits, y)
  if 'captions' in extra:
    vectors = encoder.embed_strings(extra['captions']['strings'])
    words = towers_lib.Words(None, vectors, jnp.ones(len(vectors)))
    contrast, metrics['accuracy_captions'] = caption_contrast(
      _logits(params, features, words), extra['captions']['true']
    )
    value += contrast
  return value, metrics


def caption_contrast(
  logits: jax.Array, true: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return the contrastive loss of images and captions, and the accuracy.

  Args:
    logits: f32[Q, Q] of image i and caption j; caption i belongs to image i.
    true: bool[Q, Q], whether caption j is true of image i; pairs with a caption
      that is not true of its own image do not count.

  Returns:
    (loss f32[], accuracy f32[] of choosing a caption for each image).
  """
  diagonal = jnp.eye(len(logits), dtype=bool)
  valid = jnp.diagonal(true)
  y = jnp.where(valid, jnp.arange(len(logits)), -1)
  also_true, hidden = true & ~diagonal, towers_lib.MASKED_LOGIT
  by_image = jnp.where(also_true | ~valid, hidden, logits)
  by_caption = jnp.where(also_true.T, hidden, logits.T)
  value = losses.cross_entropy(by_image, y)
  value += losses.cross_entropy(by_caption, y)
  return value / 2, losses.accuracy(by_image, y)
