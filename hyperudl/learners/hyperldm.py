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

from hyperudl import learners
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_diffusion
from hyperudl.learners._language import latent_space
from hyperudl.ops import losses


class Settings(NamedTuple):
  """See `make`."""

  space: latent_space.Space
  diffusion: latent_diffusion.Settings
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
  diffusion, net = learners.divided(settings, latent_diffusion.make)
  s = Settings(
    latent_space.Space(
      space, hypernet.settings_of(way, **net), hvae_latent, tuple(hvae_hidden)
    ),
    latent_diffusion.make(**diffusion),
    few_shot_gamma,
    finetune_steps,
  )
  latent_space.check(s.space)
  if finetune_steps < 0:
    raise ValueError(f'finetune_steps must be >= 0, not {finetune_steps}')
  return learners.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


make.__signature__ = learners.spelled_out(
  make, latent_diffusion.make, hypernet.make
)


def _init(s, key, episode):
  keys = jax.random.split(key)
  frozen = latent_space.init_frozen(s.space, keys[0], episode)
  question = _question(s, {'frozen': frozen}, episode.support.context)
  own = latent_diffusion.init(
    s.diffusion, keys[1], latent_space.width(s.space), question
  )
  return {**own, 'frozen': {**frozen, **own['frozen']}}


def _question(s, params, context):
  """The question, of length sqrt(E): f32[E]."""
  net = latent_space.net_params(params)
  question = hypernetwork.words_of(s.space.net, net, context).question
  return losses.unit(question) * jnp.sqrt(question.shape[0])


def _loss(s, params, episode, key):
  z = latent_space.point_of_task(s.space, params, episode)
  question = _question(s, params, episode.support.context)
  return latent_diffusion.loss(s.diffusion, params, z, question, key)


def _sample(s, params, support, key):
  """f32[Z]: one network for the question."""
  net = latent_space.net_params(params)
  words = hypernetwork.words_of(s.space.net, net, support.context)
  x, features = support.x, hypernetwork.features_of(s.space.net, net, support.x)

  def few_shot_loss(z):
    value = latent_space.value_of(s.space, params, z)
    logits = hypernetwork.answer(s.space.net, net, value, words, x, features)
    return losses.cross_entropy(logits, support.y)

  question = _question(s, params, support.context)
  few_shot = (few_shot_loss, s.few_shot_gamma) if s.few_shot_gamma else None
  return latent_diffusion.sample(s.diffusion, params, question, key, few_shot)


def _adapt(s, params, support, key):
  """{'value', 'words'} with the axis M on the values."""
  net = latent_space.net_params(params)

  def one(key):
    value = latent_space.value_of(
      s.space, params, _sample(s, params, support, key)
    )
    if s.finetune_steps:
      steps = s.finetune_steps
      task = hypernetwork.adapted(s.space.net, net, support, value, steps)
      value = task['value']
    return value

  values = jax.vmap(one)(jax.random.split(key, s.diffusion.samples))
  words = hypernetwork.words_of(s.space.net, net, support.context)
  return {'value': values, 'words': words}


def _predict(s, params, task, x):
  """Log of the mean probabilities of the samples: f32[n, N]."""
  net = latent_space.net_params(params)
  features = hypernetwork.features_of(s.space.net, net, x)
  answer = lambda value: hypernetwork.answer(
    s.space.net, net, value, task['words'], x, features
  )
  return latent_diffusion.mean_of(jax.vmap(answer)(task['value']))


def _evaluate(s, params, episode, key):
  query = episode.query
  task = _adapt(s, params, episode.support, key)
  net = latent_space.net_params(params)
  z = latent_space.start(s.space, params, episode.support.context)
  first = {**task, 'value': latent_space.value_of(s.space, params, z)}
  logits = hypernetwork.predict(s.space.net, net, first, query.x)
  return {
    **losses.classification_metrics(
      _predict(s, params, task, query.x), query.y
    ),
    'accuracy_start': losses.accuracy(logits, query.y),
  }
