"""Defines the unsupervised losses of the inner loop of `udl`, as one table.

A loss is a function (parameters, `Inputs`) -> f32[] and an entry of `LOSSES`;
config choices, parameters, checks and the outer loop all use that table.
"""

from collections.abc import Callable
import functools
from typing import TYPE_CHECKING
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.udl import target_network
from hyperudl.nets import mlp
from hyperudl.ops import losses

if TYPE_CHECKING:
  from hyperudl.learners.udl.config import Config

BETA = 0.25  # KL weight of the ELBO on features
LATENT = 16  # latent size of the ELBO on features
PIXEL_VARIANCE = 0.1  # of the likelihood of that ELBO's decoder


class Images(NamedTuple):
  """The images of an episode that the inner loop adapts to."""

  x: jax.Array  # f32[n, H, W, C]
  mask: jax.Array  # f32[n], rows that count in the losses
  unlabelled: jax.Array  # f32[n], rows without a label
  is_clean: jax.Array  # f32[n], rows of the domain of labelled images
  support: core.Examples  # of the same episode
  are_support: bool  # whether the images are the rows of the support


class Inputs(NamedTuple):
  """Inputs of the losses; the first six are the same at every step."""

  images: Images
  targets: jax.Array  # f32[n, P], images at half size, flattened
  reference: jax.Array  # f32[n, L], posterior means of the frozen vae
  noise: jax.Array  # f32[n, LATENT], standard normal
  first_view: jax.Array  # f32[n, H, W, C], see `draw_view`
  second_view: jax.Array  # f32[n, H, W, C]
  # Of the network under v:
  features: jax.Array | None = None  # f32[n, D]
  logits: jax.Array | None = None  # f32[n, N]
  first_features: jax.Array | None = None  # f32[n, D], of the views
  second_features: jax.Array | None = None  # f32[n, D]
  elbo_terms: dict | None = None  # of `shift.elbo_terms` under v, with mask


class InnerLoss(NamedTuple):
  """An inner loss; its parameters are trained by the outer loop."""

  # (key, config, D, pixels P of a target) -> parameters; None without any.
  init: Callable[..., core.PyTree] | None
  value: Callable[[core.PyTree, Inputs], jax.Array]
  # Its inputs: 'features', 'views' (features of two views of each image),
  # 'predictions' or 'images' (ELBO terms of the shifted images).
  needs: str
  # Whether the outer loss also includes it, at v_0, so that its parameters are
  # trained on it.
  auxiliary: bool
  is_weighted: bool = True  # whether the inner loss multiplies it by a weight


def init_feature_elbo(
  key: jax.Array, config: 'Config', features: int, pixels: int, hidden: int = 64
) -> core.PyTree:
  """Return parameters of an encoder of features and a decoder of images."""
  del config
  keys = jax.random.split(key, 3)
  return {
    'posterior': mlp.init_dense(keys[0], features, 2 * LATENT, 0.1),
    'hidden': mlp.init_dense(keys[1], LATENT, hidden),
    'pixels': mlp.init_dense(keys[2], hidden, pixels, 0.1),
  }


def feature_elbo(params: core.PyTree, inputs: Inputs) -> jax.Array:
  """Compute the negative ELBO of half-size images from features, nats/pixel."""
  mean, log_variance = jnp.split(
    _dense(params['posterior'], inputs.features), 2, axis=-1
  )
  log_variance = jnp.clip(log_variance, -6.0, 6.0)
  latent = mean + jnp.exp(0.5 * log_variance) * inputs.noise
  hidden = jax.nn.silu(_dense(params['hidden'], latent))
  image = jax.nn.sigmoid(_dense(params['pixels'], hidden))
  error = jnp.sum(jnp.square(inputs.targets - image), -1) / (2 * PIXEL_VARIANCE)
  kl = losses.kl_standard_normal(mean, log_variance)
  nats = losses.masked_mean(error + BETA * kl, inputs.images.mask)
  return nats / inputs.targets.shape[1]


def shift_elbo(params: None, inputs: Inputs) -> jax.Array:
  """Compute the negative ELBO F of `shift`, in nats per pixel."""
  terms = inputs.elbo_terms
  nats = losses.masked_mean(terms['nll'] + terms['kl'], terms['mask'])
  return nats / terms['image'][0].size


def geometry(params: None, inputs: Inputs) -> jax.Array:
  """Compute how pairwise cosines of features and of vae latents differ."""
  return losses.geometry(inputs.features, inputs.reference, inputs.images.mask)


def init_byol(
  key: jax.Array, config: 'Config', features: int, pixels: int, hidden: int = 64
) -> core.PyTree:
  """Return the projector and predictor of BYOL (arXiv:2006.07733)."""
  del config, pixels
  sizes = (features, hidden, hidden, hidden)
  keys = jax.random.split(key, 4)
  layers = [mlp.init_dense(k, n, hidden) for k, n in zip(keys, sizes)]
  return {'project': tuple(layers[:2]), 'predict': tuple(layers[2:])}


def byol(params: core.PyTree, inputs: Inputs) -> jax.Array:
  """Compute the symmetric BYOL loss of the features of two views."""

  def perceptron(layers, x):
    return _dense(layers[1], jax.nn.relu(_dense(layers[0], x)))

  pair = (inputs.first_features, inputs.second_features)
  first, second = (perceptron(params['project'], x) for x in pair)
  predict = functools.partial(perceptron, params['predict'])
  mask = inputs.images.mask
  loss = losses.byol(predict(first), second, mask)
  return 0.5 * (loss + losses.byol(predict(second), first, mask))


def certainty(params: None, inputs: Inputs) -> jax.Array:
  """Compute the mean entropy of predictions (TENT, arXiv:2006.10726, eq. 1)."""
  del params
  entropies = losses.entropy(jax.nn.log_softmax(inputs.logits))
  return losses.masked_mean(entropies, inputs.images.mask)


def mixture(params: None, inputs: Inputs) -> jax.Array:
  """Compute the negative log evidence of a mixture of the classes, nats."""
  return losses.mixture_nll(inputs.logits, inputs.images.mask)


def init_critic(
  key: jax.Array, config: 'Config', features: int, pixels: int, hidden: int = 32
) -> core.PyTree:
  """Return a perceptron that maps `critic_inputs` to one number."""
  del features, pixels
  first, second = jax.random.split(key)
  return {
    'first': mlp.init_dense(first, config.way + 2, hidden),
    'last': jax.random.normal(second, (hidden,)) / hidden,
  }


def critic_inputs(logits: jax.Array, mask: jax.Array) -> jax.Array:
  """Return critic inputs f32[n, N + 2], invariant to the order of classes.

  Sorted probabilities, entropy, and the entropy of the mean prediction.

  Args:
    logits: f32[n, N].
    mask: f32[n], rows that count in the mean prediction.
  """
  log_p = jax.nn.log_softmax(logits)
  p = jnp.exp(log_p)
  overall = jnp.broadcast_to(losses.marginal_entropy(p, mask), (p.shape[0], 1))
  entropies = losses.entropy(log_p)[:, None]
  ordered = jnp.sort(p, axis=-1)[:, ::-1]
  return jnp.concatenate([ordered, entropies, overall], axis=-1)


def critic(params: core.PyTree, inputs: Inputs) -> jax.Array:
  """Compute a loss that the outer loop learns (SCA, arXiv:1905.10295).

  It is the mean over rows of a tanh perceptron applied to `critic_inputs`.
  """
  mask = inputs.images.mask
  first, x = params['first'], critic_inputs(inputs.logits, mask)
  hidden = x @ first['kernel'] + first['bias']
  return losses.masked_mean(jnp.tanh(hidden) @ params['last'], mask)


# All inner losses. A config chooses 'elbo_NAME' by elbo='NAME', 'critic_NAME'
# by critic='NAME', and any number of the others by ssl='NAME+NAME'.
LOSSES = {
  'elbo_features': InnerLoss(
    init_feature_elbo, feature_elbo, 'features', auxiliary=True
  ),
  # Its step sizes are learned for each number of phi.
  'elbo_shift': InnerLoss(None, shift_elbo, 'images', False, is_weighted=False),
  'geometry': InnerLoss(None, geometry, 'features', auxiliary=True),
  'byol': InnerLoss(init_byol, byol, 'views', auxiliary=True),
  'mixture': InnerLoss(None, mixture, 'predictions', auxiliary=False),
  'certainty': InnerLoss(None, certainty, 'predictions', auxiliary=False),
  'critic_predictions': InnerLoss(
    init_critic, critic, 'predictions', auxiliary=False, is_weighted=False
  ),
}


def _choices(prefix):
  return tuple(n.removeprefix(prefix) for n in LOSSES if n.startswith(prefix))


# Types of the fields `elbo` and `critic` of configs, and the names of `ssl`.
Elbo = Literal[('none', *_choices('elbo_'))]  # type: ignore[valid-type]
Critic = Literal[('none', *_choices('critic_'))]  # type: ignore[valid-type]
SSL = tuple(name for name in LOSSES if '_' not in name)


@functools.cache
def active(config: 'Config') -> dict[str, InnerLoss]:
  """Return the losses of a config by the names of their parameters and weights.

  Raises:
    ValueError: for an unknown or repeated name in `ssl`.
  """
  chosen = [] if config.ssl == 'none' else config.ssl.split('+')
  if set(chosen) - set(SSL) or len(set(chosen)) < len(chosen):
    raise ValueError(
      f"ssl must be 'none', one of {SSL} or several joined by +, not "
      f'{config.ssl!r}'
    )
  keys = {name: name for name in chosen}
  keys |= {f'elbo_{config.elbo}': 'elbo', f'critic_{config.critic}': 'critic'}
  return {keys[name]: loss for name, loss in LOSSES.items() if name in keys}


def draw(images: Images, reference: jax.Array, key: jax.Array) -> Inputs:
  """Draw the inputs of the losses that are the same at every step."""
  noise_key, views_key = jax.random.split(key)
  first_key, second_key = jax.random.split(views_key)
  # Targets are untransformed, or blanking all images would lower the loss.
  return Inputs(
    images,
    small_images(images.x),
    reference,
    jax.random.normal(noise_key, (images.x.shape[0], LATENT)),
    draw_view(first_key, images.x),
    draw_view(second_key, images.x),
  )


@target_network.trace_once
def evaluate(
  config: 'Config', params: core.PyTree, inputs: Inputs
) -> dict[str, jax.Array]:
  """Compute the active losses, unweighted: {name: f32[]}."""
  return {
    name: loss.value(params.get(name), inputs)
    for name, loss in active(config).items()
  }


def total(
  config: 'Config', params: core.PyTree, values: dict[str, jax.Array]
) -> jax.Array:
  """Return the weighted sum f32[] of the values of `evaluate`."""
  initial = dict.fromkeys(values, config.inner_weight)
  weights = params.get('weights', initial)
  return sum(
    values[name] * (weights[name] if loss.is_weighted else 1.0)
    for name, loss in active(config).items()
  )


def auxiliary(config: 'Config', values: dict[str, jax.Array]) -> jax.Array:
  """Return the sum f32[] of the values that are auxiliary outer losses."""
  active_losses = active(config).items()
  return sum(values[name] for name, loss in active_losses if loss.auxiliary)


def small_images(x: jax.Array) -> jax.Array:
  """Average images f32[n, H, W, C] over 2x2 pixels and flatten them."""
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.mean(axis=(2, 4)).reshape(n, -1)


def draw_view(key: jax.Array, x: jax.Array) -> jax.Array:
  """Draw a view f32[n, H, W, C]: all images moved by 0-2 pixels, faint noise.

  No shift family contains such changes, so agreement of two views does not
  teach invariance to the shifts that the inner loop should notice.
  """
  move_key, noise_key = jax.random.split(key)
  offset = jax.random.randint(move_key, (2,), -2, 3)
  moved = jnp.roll(x, offset, axis=(1, 2))
  return moved + 0.05 * jax.random.normal(noise_key, x.shape)


def _dense(layer, x):
  return x @ layer['kernel'] + layer['bias']
