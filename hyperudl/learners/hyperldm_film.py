"""HyperLDM over the film of `udl`'s CNN, guided by the VAE's posterior.

The guidance of Nava et al. 2023 (arXiv:2210.08942) for another network than
theirs. What `udl` writes for an episode is frozen (`init_from.base`); a point
v f32[F] is added to scale and bias of its norms. For a training episode it is
found with labels of its shifted images, queries and unlabelled ones,
  v <- v - r g / |g|,  g = d CE / d v,  `target_steps` times from 0,
and a denoiser (`denoising.py`) learns v given c, the posterior moments of the
unlabelled and of the labelled images (`stepping.distributions`). A new episode
gets v sampled given c: no label of a shifted image, no gradient. Controls of
each evaluation: v = 0 (`accuracy_unadapted`), c of noise images
(`accuracy_placebo`), and v found with labels of the unlabelled images
(`accuracy_labelled`; of the queries where `episode.transductive`).
Expected: see docs/results/guidance.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.data.episodes import augment
from hyperudl.learners import vae as vae_learner
from hyperudl.learners._language import latent_diffusion
from hyperudl.learners.udl import config
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

_FILM = inner_losses.Options(
  adapt='film',
  steps=0,
  elbo='none',
  ssl='none',
  critic='none',
  gate='none',
  rate=1.0,
  rates='fixed',
  weight=0.0,
  norm='unit',
  meta_grad='none',
  direction='learned',
)


class Settings(NamedTuple):
  """See `settings_of`."""

  udl: config.Settings
  diffusion: latent_diffusion.Settings
  target_steps: int
  target_rate: float


def settings_of(way, *, target_steps=10, target_rate=0.3, **settings):
  """`Settings` of the learner.

  Args:
    way: N.
    target_steps, target_rate: steps with labels that find v, and their length.
    **settings: of the diffusion (`denoising.make`) and of the network that the
      frozen `udl` writes (`writing.make_writer`).

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  diffusion, network = learners.divided(settings, latent_diffusion.make)
  writer = hypernetwork.make_writer(way, **network)
  config.check_writer(writer, _FILM.adapt)
  if target_steps < 1 or target_rate <= 0:
    raise ValueError(
      'target_steps must be >= 1 and target_rate > 0, not '
      f'{target_steps} and {target_rate}'
    )
  return Settings(
    _still(writer),
    latent_diffusion.make(**diffusion),
    target_steps,
    target_rate,
  )


def _still(writer):
  """Settings of a `udl` that writes a network and takes no step."""
  return config.Settings(
    phase='inner',
    setting='classes',
    writer=writer,
    inner=_FILM,
    cluster=0,
    start='identity',
    multi_step=0,
    unadapted_weight=0.0,
    auxiliary_weight=0.0,
    extras=config.Extras(),
  )


def make(way, **settings):
  """The `hyperldm_film` learner; its settings are those of `settings_of`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  s = settings_of(way, **settings)
  return learners.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


make.__signature__ = learners.spelled_out(
  settings_of, latent_diffusion.make, hypernetwork.make_writer
)


def _init(s, key, episode):
  keys = jax.random.split(key, 3)
  w, support = s.udl.writer, episode.support
  vae = vae_learner.make(w.way, latent=w.latent, hidden=w.hidden)
  frozen = {
    'vae': vae.init(keys[0], episode),
    'base': hypernetwork.init(w, keys[1], support),
  }
  _, view = _written(s, {'frozen': frozen}, support)
  width = view.start['film'].size
  own = latent_diffusion.init(s.diffusion, keys[2], width, _condition(view))
  return {**own, 'frozen': {**frozen, **own['frozen']}}


def _written(s, params, support):
  """The task that `udl` writes, and what a loop without labels sees of it."""
  task = inner_loop.written(s.udl, params, support)
  view = inner_loop.view_of(s.udl, params, support, task)
  return inner_loop.replaced(
    task
  ), view  # all that follows is under other films


def _condition(view):
  """c: f32[2 (3 L + 1)], the posterior moments in units of the population's.

  Of each set the mean of means, the logs of the mean variance and of the
  variance of means, and that of the number of images; within +-3.
  """
  center, log_spread = view.population
  size = center.shape[0]

  def scaled(moments):
    mean, noise, spread, count = jnp.split(moments, (size, 2 * size, 3 * size))
    mean = (mean - center) * jnp.exp(-0.5 * log_spread)
    spread = jnp.log(spread * jnp.exp(-log_spread) + 1e-3)
    return jnp.concatenate([mean, jnp.log(noise + 1e-3), spread, count])

  both = jnp.split(steps.distributions(view), 2)
  return 3 * jnp.tanh(jnp.concatenate([scaled(each) for each in both]) / 3)


def _answer(s, params, task, v, x):
  """Logits f32[n, N] of the task's network under v f32[F]."""
  task = {**task, 'weights': fast_weights.film(task['weights'], v)}
  return inner_loop.predict(s.udl, params, task, x)


def _found(s, params, task, view, x, y):
  """v f32[F] after steps on labelled images f32[n, H, W, C], i32[n]."""

  def loss(value, k):
    del k
    logits = _answer(s, params, task, value['film'], x)
    return losses.cross_entropy(logits, y)

  rates = fast_weights.rates(view.start, s.target_steps, s.target_rate)
  value, _ = gradient_descent.descend(
    loss, view.start, rates, norm='unit', first_order=True
  )
  return value['film']


def _unit(s, v):
  """The root mean square of v f32[F] whose steps had one direction.

  Points are diffused in this unit, so that their moments begin near the truth.
  """
  return s.target_rate * s.target_steps / jnp.sqrt(v.size)


def _hidden(episode):
  """The unlabelled images and their labels."""
  support = episode.support
  y = (episode.extra or {}).get('unlabelled_y', support.y[:0])
  return support.x[support.y.shape[0] - y.shape[0] :], y


def _loss(s, params, episode, key):
  task, view = _written(s, params, episode.support)
  (x, y), query = _hidden(episode), episode.query
  x, y = jnp.concatenate([query.x, x]), jnp.concatenate([query.y, y])
  v = _found(s, params, task, view, x, y)
  z = v / _unit(s, v)
  return latent_diffusion.loss(s.diffusion, params, z, _condition(view), key)


def _sampled(s, params, task, view, key):
  """The task with the films f32[M, F] of samples."""
  condition = _condition(view)

  def one(key):
    z = latent_diffusion.sample(s.diffusion, params, condition, key)
    return z * _unit(s, z)

  return {
    **task,
    'film': jax.vmap(one)(jax.random.split(key, s.diffusion.samples)),
  }


def _adapt(s, params, support, key):
  return _sampled(s, params, *_written(s, params, support), key)


def _predict(s, params, task, x):
  """Log of the mean probabilities of the samples: f32[n, N]."""
  task = dict(task)
  film = task.pop('film')
  answer = lambda v: _answer(s, params, task, v, x)
  return latent_diffusion.mean_of(jax.vmap(answer)(film))


def _evaluate(s, params, episode, key):
  x, y = episode.query.x, episode.query.y
  task, view = _written(s, params, episode.support)
  noise = augment.noise_images(jax.random.fold_in(key, 1), view.x.shape)
  score = lambda task: losses.accuracy(_predict(s, params, task, x), y)
  plain = losses.accuracy(inner_loop.predict(s.udl, params, task, x), y)
  found = losses.classification_metrics(
    _predict(s, params, _sampled(s, params, task, view, key), x), y
  )
  placebo = score(_sampled(s, params, task, view._replace(x=noise), key))
  shown, names = _hidden(episode)
  if names.size:
    v = _found(s, params, task, view, shown, names)
    told = _answer(s, params, task, v, x)
    found['accuracy_labelled'] = losses.accuracy(told, y)
  return {
    **found,
    'accuracy_unadapted': plain,
    'accuracy_placebo': placebo,
    'gain_step': found['accuracy'] - plain,
    'gain_data': found['accuracy'] - placebo,
  }
