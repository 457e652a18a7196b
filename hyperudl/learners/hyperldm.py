"""HyperLDM: diffusion over the latents of networks, guided by a question.

Nava et al. 2023, arXiv:2210.08942. A denoiser is trained on the latents z_i of
training tasks and their questions c_i,
  mean |e - eps(sqrt(a_t) z_i + sqrt(1 - a_t) e, t, c_i or 0)|^2,
and a new task gets its network without any image: z is sampled from the
question by classifier-free guidance (`nets/diffusion.py`) and decoded by the
frozen `hypernet` (or `hvae`). Samples are drawn with the running mean of the
denoiser's weights (`frozen/ema`). `accuracy` is that of the sampled network;
after `finetune_steps` on the support it is few-shot.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import denoising
from hyperudl import hypernets
from hyperudl import learners
from hyperudl import losses
from hyperudl import spaces
from hyperudl.learners import hypernet


class Settings(NamedTuple):
  """See `make`."""

  space: spaces.Space
  diffusion: denoising.Settings
  few_shot_gamma: float
  finetune_steps: int


def make(
  way,
  *,
  space='hnet',
  hvae_latent=32,
  hvae_hidden=(128, 128),
  few_shot_gamma=0.0,
  finetune_steps=0,
  **settings,
):
  """The `hyperldm` learner.

  Args:
    way: N.
    space: 'hnet' or 'hvae', see `spaces.py`.
    hvae_latent, hvae_hidden: sizes of the frozen `hvae`.
    few_shot_gamma: guidance by the loss on the support while sampling.
    finetune_steps: inner steps on the support from the sampled latent.
    **settings: of the diffusion (`denoising.make`) and of the frozen
      `hypernet`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  diffusion, net = learners.divided(settings, denoising.make)
  s = Settings(
    spaces.Space(
      space, hypernet.settings_of(way, **net), hvae_latent, tuple(hvae_hidden)
    ),
    denoising.make(**diffusion),
    few_shot_gamma,
    finetune_steps,
  )
  spaces.check(s.space)
  if finetune_steps < 0:
    raise ValueError(f'finetune_steps must be >= 0, not {finetune_steps}')
  return core.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


make.__signature__ = learners.spelled_out(make, denoising.make, hypernet.make)


def _init(s, key, episode):
  keys = jax.random.split(key)
  frozen = spaces.init_frozen(s.space, keys[0], episode)
  question = _question(s, {'frozen': frozen}, episode.support.context)
  own = denoising.init(s.diffusion, keys[1], spaces.width(s.space), question)
  return {**own, 'frozen': {**frozen, **own['frozen']}}


def _question(s, params, context):
  """The question, of length sqrt(E): f32[E]."""
  net = spaces.net_params(params)
  question = hypernets.words_of(s.space.net, net, context).question
  return losses.unit(question) * jnp.sqrt(question.shape[0])


def _loss(s, params, episode, key):
  z = spaces.point_of_task(s.space, params, episode)
  question = _question(s, params, episode.support.context)
  return denoising.loss(s.diffusion, params, z, question, key)


def _sample(s, params, support, key):
  """f32[Z]: one network for the question."""
  net = spaces.net_params(params)
  words = hypernets.words_of(s.space.net, net, support.context)
  x, features = support.x, hypernets.features_of(s.space.net, net, support.x)

  def few_shot_loss(z):
    value = spaces.value_of(s.space, params, z)
    logits = hypernets.answer(s.space.net, net, value, words, x, features)
    return core.cross_entropy(logits, support.y)

  question = _question(s, params, support.context)
  few_shot = (few_shot_loss, s.few_shot_gamma) if s.few_shot_gamma else None
  return denoising.sample(s.diffusion, params, question, key, few_shot)


def _adapt(s, params, support, key):
  """{'value', 'words'} with the axis M on the values."""
  net = spaces.net_params(params)

  def one(key):
    value = spaces.value_of(s.space, params, _sample(s, params, support, key))
    if s.finetune_steps:
      steps = s.finetune_steps
      task = hypernets.adapted(s.space.net, net, support, value, steps)
      value = task['value']
    return value

  values = jax.vmap(one)(jax.random.split(key, s.diffusion.samples))
  words = hypernets.words_of(s.space.net, net, support.context)
  return {'value': values, 'words': words}


def _predict(s, params, task, x):
  """Log of the mean probabilities of the samples: f32[n, N]."""
  net = spaces.net_params(params)
  features = hypernets.features_of(s.space.net, net, x)
  answer = lambda value: hypernets.answer(
    s.space.net, net, value, task['words'], x, features
  )
  return denoising.mean_of(jax.vmap(answer)(task['value']))


def _evaluate(s, params, episode, key):
  query = episode.query
  task = _adapt(s, params, episode.support, key)
  net = spaces.net_params(params)
  z = spaces.start(s.space, params, episode.support.context)
  first = {**task, 'value': spaces.value_of(s.space, params, z)}
  logits = hypernets.predict(s.space.net, net, first, query.x)
  return {
    **core.classification_metrics(_predict(s, params, task, query.x), query.y),
    'accuracy_start': core.accuracy(logits, query.y),
  }
