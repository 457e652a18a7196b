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
from hyperudl import hypernets
from hyperudl import learners
from hyperudl import losses
from hyperudl import spaces
from hyperudl.learners import hypernet
from hyperudl.nets import diffusion


class Settings(NamedTuple):
  """See `make`."""

  space: spaces.Space
  schedule: str
  timesteps: int
  hidden: tuple
  drop_rate: float
  gamma: float
  sampler_steps: int
  eta: float
  clip: float
  samples: int
  few_shot_gamma: float
  finetune_steps: int
  ema: float


def make(
  way,
  *,
  space='hnet',
  hvae_latent=32,
  hvae_hidden=(128, 128),
  schedule='cosine',
  timesteps=100,
  denoiser=(256, 256),
  drop_rate=0.2,
  gamma=1.0,
  sampler_steps=50,
  eta=1.0,
  clip=4.0,
  samples=1,
  few_shot_gamma=0.0,
  finetune_steps=0,
  ema=0.999,
  **settings,
):
  """The `hyperldm` learner.

  Args:
    way: N.
    space: 'hnet' or 'hvae', see `spaces.py`.
    hvae_latent, hvae_hidden: sizes of the frozen `hvae`.
    schedule: 'cosine' or 'linear'.
    timesteps: T, of the diffusion.
    denoiser: widths of its blocks.
    drop_rate: probability of training without the question.
    gamma: guidance; 0 ignores the question, 1 is the conditional model.
    sampler_steps: of the DDIM sampler, <= timesteps.
    eta: its noise; 1 with all timesteps is DDPM.
    clip: bound of the estimate of the standardised latent.
    samples: networks whose probabilities are averaged.
    few_shot_gamma: guidance by the loss on the support while sampling.
    finetune_steps: inner steps on the support from the sampled latent.
    ema: decay of the running mean of the denoiser.
    **settings: of the frozen `hypernet`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  s = Settings(
    spaces.Space(
      space,
      hypernet.settings_of(way, **settings),
      hvae_latent,
      tuple(hvae_hidden),
    ),
    schedule,
    timesteps,
    tuple(denoiser),
    drop_rate,
    gamma,
    sampler_steps,
    eta,
    clip,
    samples,
    few_shot_gamma,
    finetune_steps,
    ema,
  )
  _check(s)
  return core.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


make.__signature__ = learners.spelled_out(make, hypernet.make)


def _check(s):
  spaces.check(s.space)
  diffusion.schedule(s.schedule, s.timesteps)
  if not 1 <= s.sampler_steps <= s.timesteps:
    raise ValueError(
      f'sampler_steps must be 1 to timesteps={s.timesteps}, not '
      f'{s.sampler_steps}'
    )
  shares = {'drop_rate': s.drop_rate, 'eta': s.eta, 'ema': s.ema}
  for name, value in shares.items():
    if not 0 <= value <= 1:
      raise ValueError(f'{name} must be in [0, 1], not {value}')
  if s.samples < 1 or s.finetune_steps < 0 or s.clip <= 0:
    raise ValueError(
      'samples must be >= 1, finetune_steps >= 0 and clip > 0, not '
      f'{s.samples}, {s.finetune_steps} and {s.clip}'
    )


def _denoiser(s):
  return diffusion.Denoiser(spaces.width(s.space), s.hidden)


def _init(s, key, episode):
  keys = jax.random.split(key)
  frozen = spaces.init_frozen(s.space, keys[0], episode)
  z = jnp.zeros((1, spaces.width(s.space)))
  question = _question(s, {'frozen': frozen}, episode.support.context)[None]
  net = _denoiser(s).init(keys[1], z, jnp.zeros((1,), jnp.int32), question)
  moments = {
    'mean': jnp.zeros(z.shape[1:], jnp.float32),
    'log_std': jnp.zeros(z.shape[1:], jnp.float32),
  }
  params = {'denoiser': net['params'], 'moments': moments}
  decay = jnp.asarray(s.ema, jnp.float32)
  frozen['ema'] = {**jax.tree.map(jnp.copy, params), 'decay': decay}
  return {**params, 'frozen': frozen}


def _question(s, params, context):
  """The question, of length sqrt(E): f32[E]."""
  net = spaces.net_params(params)
  question = hypernets.words_of(s.space.net, net, context).question
  return losses.unit(question) * jnp.sqrt(question.shape[0])


def _moments(params):
  stored = params['moments']
  return diffusion.Moments(stored['mean'], jnp.exp(stored['log_std']))


def _noise_of(s, params):
  net = _denoiser(s)
  return lambda z, t, c: net.apply({'params': params['denoiser']}, z, t, c)


def _loss(s, params, episode, key):
  """The denoising loss of one task and the fit of the latents' moments."""
  z = spaces.point_of_task(s.space, params, episode)
  question = _question(s, params, episode.support.context)
  moments = jax.lax.stop_gradient(_moments(params))
  value = diffusion.epsilon_loss(
    _noise_of(s, params),
    diffusion.schedule(s.schedule, s.timesteps),
    diffusion.standardise(z, moments)[None],
    jax.lax.stop_gradient(question)[None],
    key,
    s.drop_rate,
  )
  # Over many tasks the negative log-likelihood of a Gaussian has its minimum
  # at the mean and the standard deviation.
  stored = params['moments']
  spread = jnp.square((z - stored['mean']) * jnp.exp(-stored['log_std']))
  fit = jnp.mean(stored['log_std'] + 0.5 * spread)
  return value + fit, {'denoising': value, 'fit': fit}


def _sample(s, params, support, key):
  """f32[Z]: one network for the question."""
  params = {**params, **_averaged(params)}
  question = _question(s, params, support.context)
  schedule = diffusion.schedule(s.schedule, s.timesteps)
  moments, predict = _moments(params), _noise_of(s, params)
  push = None
  if s.few_shot_gamma:
    net = spaces.net_params(params)
    words = hypernets.words_of(s.space.net, net, support.context)
    features = hypernets.features_of(s.space.net, net, support.x)

    def loss(z):
      z = diffusion.unstandardise(z, moments)
      value = spaces.value_of(s.space, params, z)
      logits = hypernets.answer(
        s.space.net, net, value, words, support.x, features
      )
      return core.cross_entropy(logits, support.y)

    push = diffusion.few_shot_push(
      loss, s.few_shot_gamma, schedule, clip=s.clip
    )
  z = diffusion.sample_ddim(
    lambda z, t: diffusion.guided(predict, z, t, question, s.gamma),
    schedule,
    key,
    (spaces.width(s.space),),
    s.sampler_steps,
    s.eta,
    s.clip,
    push=push,
  )
  return diffusion.unstandardise(z, moments)


def _averaged(params):
  ema = params['frozen']['ema']
  return {name: ema[name] for name in ('denoiser', 'moments')}


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

  values = jax.vmap(one)(jax.random.split(key, s.samples))
  words = hypernets.words_of(s.space.net, net, support.context)
  return {'value': values, 'words': words}


def _predict(s, params, task, x):
  """Log of the mean probabilities of the samples: f32[n, N]."""
  net = spaces.net_params(params)
  features = hypernets.features_of(s.space.net, net, x)
  answer = lambda value: jax.nn.log_softmax(
    hypernets.answer(s.space.net, net, value, task['words'], x, features)
  )
  every = jax.vmap(answer)(task['value'])
  return jax.nn.logsumexp(every, axis=0) - jnp.log(s.samples)


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
