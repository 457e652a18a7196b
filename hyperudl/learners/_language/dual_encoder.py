"""What learners with language share: features of images and strings."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.data.language import task_set
from hyperudl.nets import towers as text
from hyperudl.ops import losses

NEVER = -1e9  # logit of an answer that the task does not have
PART = 512  # images, or tasks, that `encoded` takes at a time


class Towers(NamedTuple):
  """Sizes of the encoder; see `learners.contrastive.make`."""

  vocabulary: int = 512
  width: int = 300
  hidden: tuple[int, ...] = (192, 96)
  grid: int = 2
  inner: int = 96


class Words(NamedTuple):
  """The strings of a task as vectors."""

  question: jax.Array  # f32[E]
  answers: jax.Array  # f32[N, E]
  mask: jax.Array  # f32[N]


def check(towers):
  """Raises ValueError for sizes below 1."""
  sizes = (*towers[:2], *towers.hidden, *towers[3:])
  if min(sizes) < 1:
    raise ValueError(f'sizes of the encoder must be >= 1: {towers}')


def init(towers, key, examples, scale=10.0):
  """Parameters: 'image' and 'text' towers, where these are no features yet.

  Args:
    towers: `Towers`.
    key: PRNG key.
    examples: Examples with the context of a task with language.
    scale: initial inverse temperature of the contrast, 'log_scale'.
  """
  params = {'log_scale': jnp.log(jnp.asarray(scale, jnp.float32))}
  keys = jax.random.split(key)
  if examples.x.ndim > 2:
    net = _image(towers)
    params['image'] = net.init(keys[0], examples.x[:1])['params']
  context = _context(examples.context)
  if jnp.issubdtype(context['question'].dtype, jnp.integer):
    ids = context['question'][None]
    params['text'] = _text(towers).init(keys[1], ids)['params']
  return params


def images(towers, params, x):
  """Features f32[n, E] of images, or the features that x is already."""
  if x.ndim == 2:
    return x
  return _image(towers).apply({'params': params['image']}, x)


def words(towers, params, context):
  """`Words` of a task.

  Raises:
    ValueError: without the context of a task with language.
  """
  context = _context(context)
  question, answers = context['question'], context['answers']
  if jnp.issubdtype(question.dtype, jnp.integer):
    ids = jnp.concatenate([question[None], answers])
    vectors = _text(towers).apply({'params': params['text']}, ids)
    question, answers = vectors[0], vectors[1:]
  return Words(question, answers, context['mask'])


def answers(towers, params, strings):
  """Vectors f32[..., E] of answers: word ids i32[..., L], or what they are."""
  if not jnp.issubdtype(strings.dtype, jnp.integer):
    return strings
  ids = strings.reshape(-1, strings.shape[-1])
  vectors = _text(towers).apply({'params': params['text']}, ids)
  return vectors.reshape(*strings.shape[:-1], -1)


def encoded(towers, params, tasks):
  """A set of tasks whose images and strings the encoder has been through.

  `images`, `words` and `answers` leave its features and vectors as they are.

  Args:
    towers: `Towers`.
    params: of a frozen encoder.
    tasks: a `vqa.TaskSet`; what is features already stays.
  """
  found, params = {}, jax.tree.map(jnp.asarray, params)  # from a checkpoint
  pixels, question = tasks.images, tasks.question
  if pixels.ndim > 2:
    see = jax.jit(lambda part: images(towers, params, task_set.as_floats(part)))
    parts = range(0, len(pixels), PART)
    features = [np.asarray(see(pixels[i : i + PART])) for i in parts]
    found['images'] = np.concatenate(features)
  if np.issubdtype(question.dtype, np.integer):
    read = jax.jit(lambda strings: answers(towers, params, strings))
    for name in ('question', 'answers'):
      strings = getattr(tasks, name)
      parts = [strings[i : i + PART] for i in range(0, len(strings), PART)]
      found[name] = np.concatenate([np.asarray(read(part)) for part in parts])
  return tasks._replace(**found)


def logits(features, found, scale):
  """scale cos(f32[n, E], answers), never an absent answer: f32[n, N]."""
  cosines = losses.unit(features) @ losses.unit(found.answers).T
  return jnp.where(found.mask > 0, scale * cosines, NEVER)


def _context(context):
  if not isinstance(context, dict) or 'question' not in context:
    raise ValueError(
      'a task with language is needed, with question and answers: choose '
      'data.dataset=glyphvqa or a Meta-VQA folder'
    )
  return context


def _image(towers):
  return text.ImageTower(towers.width, tuple(towers.hidden), towers.grid)


def _text(towers):
  return text.TextTower(towers.vocabulary, towers.width, towers.inner)
