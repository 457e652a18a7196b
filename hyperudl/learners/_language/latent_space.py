"""Latent spaces of networks that guidance works in.

'hnet': the z of a frozen `hypernet`. 'hvae': the latent of a frozen `hvae` on
the weights that the hypernet decodes. A point decodes to an inner value of
`hypernet`, {'z'} or {'weights'}, which answers questions.
"""

from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp

from hyperudl.learners._language import hypernetwork
from hyperudl.nets import mlp

SPACES = ('hnet', 'hvae')


class Space(NamedTuple):
  """Static sizes."""

  kind: str
  net: hypernetwork.Settings
  latent: int  # of the hvae
  hidden: tuple  # of the hvae


def check(space):
  """Raises ValueError for an unknown kind or sizes below 1."""
  if space.kind not in SPACES:
    raise ValueError(f'space must be one of {SPACES}, not {space.kind!r}')
  if min(space.latent, *space.hidden) < 1:
    raise ValueError(
      f'the hvae must have sizes >= 1, not {space.latent}, {space.hidden}'
    )
  hypernetwork.check_latents(space.net)


def width(space):
  """Dimensions of a point."""
  return space.net.latent if space.kind == 'hnet' else space.latent


def init_hvae(space, key, weights):
  """Parameters of the VAE over weights: 'encoder', 'decoder', 'log_spread'."""
  keys = jax.random.split(key)
  size = ravel_pytree(weights)[0].size
  sizes = (size, *space.hidden, 2 * space.latent)
  return {
    'encoder': mlp.init_perceptron(keys[0], sizes),
    'decoder': mlp.init_perceptron(
      keys[1], (space.latent, *space.hidden, size), 0.1
    ),
    'log_spread': jnp.zeros((), jnp.float32),
  }


def deviation(params, weights):
  """Flat weights f32[D] minus the base of the frozen hypernet."""
  base = params['frozen']['hypernet']['decoder']['base']
  return ravel_pytree(weights)[0] - ravel_pytree(base)[0]


def encode(params, weights):
  """Posterior of a weight pytree: mean and log-variance f32[L] each.

  The log-variance is shifted by -1, so that sampling starts out mild.
  """
  hvae = params['frozen']['hvae']
  flat = deviation(params, weights) / jnp.exp(hvae['log_spread'])
  mean, log_variance = jnp.split(mlp.perceptron(hvae['encoder'], flat), 2)
  return mean, log_variance - 1.0


def init_frozen(space, key, episode):
  """The frozen upstreams of a learner on this space."""
  keys = jax.random.split(key)
  params = hypernetwork.init(space.net, keys[0], episode)
  frozen = dict(params.pop('frozen'))
  frozen['hypernet'] = params
  if space.kind == 'hvae':
    frozen['hvae'] = init_hvae(space, keys[1], params['decoder']['base'])
  return frozen


def net_params(params):
  """Parameters of the frozen hypernet as `hypernet` takes them."""
  frozen = params['frozen']
  return {
    **frozen['hypernet'],
    'frozen': {'contrastive': frozen['contrastive']},
  }


def value_of(space, params, z):
  """The inner value of `hypernet` at a point f32[L]."""
  if space.kind == 'hnet':
    return {'z': z}
  decoder = {
    'base': params['frozen']['hypernet']['decoder']['base'],
    'layers': params['frozen']['hvae']['decoder'],
  }
  return {'weights': mlp.decode(decoder, z)}


def weights_of(space, params, z):
  """The weight pytree at a point."""
  value = value_of(space, params, z)
  return hypernetwork.network(space.net, net_params(params), value)[0]


def point_of(space, params, value):
  """The point of an inner value {'z'} of the hypernet."""
  if space.kind == 'hnet':
    return value['z']
  weights = hypernetwork.network(space.net, net_params(params), value)[0]
  return encode(params, weights)[0]


def start(space, params, context):
  """The point that stands for no task in particular."""
  value = hypernetwork.start(space.net, net_params(params), context)
  return point_of(space, params, value)


def point_of_task(space, params, episode):
  """The point of a training task: stored, learned or adapted here.

  `extra['latent']` where `data.latents` gave one; else the code of an
  autodecoder; else inner steps on all images of the episode.
  """
  net = net_params(params)
  extra = episode.extra or {}
  if 'latent' in extra:
    value = {'z': extra['latent']}
  elif space.net.kind == 'autodecoder':
    value = {'z': hypernetwork.code(net, episode)}
  else:
    value = hypernetwork.adapted_on_all(space.net, net, episode)
  return jax.lax.stop_gradient(point_of(space, params, value))
