"""Embeds the images and strings of a task with an image-text encoder."""

import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.nets import towers as towers_lib


@dataclasses.dataclass(frozen=True)
class Config:
  """Sizes of the encoder, which all learners that use it inherit."""

  way: int = field(5, at_least=1)  # N, the largest number of answers of a task
  vocabulary: int = field(512, at_least=1)  # word ids; 0 is padding
  width: int = field(300, at_least=1)  # E = d (d + 1) / 2, of embeddings
  hidden: tuple[int, ...] = field((192, 96), at_least=1)  # of a patch's MLP
  grid: int = field(2, at_least=1)  # patches per side of an image

  def __post_init__(self):
    hyperparameters.check(self)


class Towers(NamedTuple):
  """The image encoder and the text encoder."""

  image: towers_lib.ImageTower
  text: towers_lib.TextTower


def make_towers(config: Any, inner: int) -> Towers:
  """Return the encoders for the sizes of a config.

  Args:
    config: `Config`, or a ConfigDict with its fields.
    inner: width of the word vectors.
  """
  return Towers(
    towers_lib.ImageTower(config.width, tuple(config.hidden), config.grid),
    towers_lib.TextTower(config.vocabulary, config.width, inner),
  )


def init(
  towers: Towers, key: jax.Array, examples: core.Examples, scale: float = 10.0
) -> core.PyTree:
  """Return parameters 'log_scale', 'image' and 'text'.

  An encoder of images or strings is left out where these are embedded already.

  Args:
    towers: from `make_towers`.
    key: PRNG key.
    examples: images, and the context of a task with language.
    scale: initial inverse temperature of the contrastive loss.

  Raises:
    ValueError: if the examples have no context of a task with language.
  """
  params = {'log_scale': jnp.log(jnp.asarray(scale, jnp.float32))}
  keys = jax.random.split(key)
  if examples.x.ndim > 2:
    params['image'] = towers.image.init(keys[0], examples.x[:1])['params']
  question = _checked(examples.context)['question']
  if _are_ids(question):
    params['text'] = towers.text.init(keys[1], question[None])['params']
  return params


@dataclasses.dataclass(frozen=True)
class DualEncoder:
  """The encoders with their parameters; embedded inputs are not changed."""

  towers: Towers
  params: core.PyTree

  def embed_images(self, x: jax.Array) -> jax.Array:
    """Return features f32[n, E] of images, or `x` if it holds features."""
    if x.ndim == 2:
      return x
    return self.towers.image.apply({'params': self.params['image']}, x)

  def embed_strings(self, strings: jax.Array) -> jax.Array:
    """Return vectors f32[..., E] of word ids i32[..., L]; vectors unchanged."""
    if not _are_ids(strings):
      return strings
    ids = strings.reshape(-1, strings.shape[-1])
    vectors = self.towers.text.apply({'params': self.params['text']}, ids)
    return vectors.reshape(*strings.shape[:-1], -1)

  def embed_words(self, context: core.PyTree) -> towers_lib.Words:
    """Return the question and the answers of a task as vectors.

    Args:
      context: of support or queries, see `data.language.episodes`.

    Raises:
      ValueError: if it is not the context of a task with language.
    """
    context = _checked(context)
    question, answers = context['question'], context['answers']
    if _are_ids(question):
      vectors = self.embed_strings(jnp.concatenate([question[None], answers]))
      question, answers = vectors[0], vectors[1:]
    return towers_lib.Words(question, answers, context['mask'])


def _are_ids(strings):
  return jnp.issubdtype(strings.dtype, jnp.integer)


def _checked(context):
  if not isinstance(context, dict) or 'question' not in context:
    raise ValueError(
      'a task with language is needed, with question and answers: choose '
      'data.dataset=glyphvqa or a Meta-VQA folder'
    )
  return context
