"""A variational autoencoder of images; upstream of `udl`.

Kingma and Welling 2014, arXiv:1312.6114:
  loss = E_q(z|x)[-log p(x|z)] + beta KL(q(z|x) || N(0, 1)), nats an image,
averaged over all images of the episode and divided by the pixel count. beta
rises linearly over `beta_steps`, as in the source document of UDL (.25 to 1).

Ours: the mean and spread of error and KL over clean images, and the moments
of the posterior means, are parameters fitted by a regression term; so they
travel with the checkpoint, and `udl` can say how unusual an image is.
As a classifier it answers by the nearest class mean of posterior means.
Expected on 28x28 glyphs: squared error about 11 (Omniglot: 11.1 train, 14.0
test, prototype of ours), all 24 latents active.
"""

import math

import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.nets import vae as vae_net
from hyperudl.nets import vae_residual
from hyperudl.ops import losses

ARCHITECTURES = ('perceptron', 'residual')


def _moment_loss(stored, terms):
  """Squared distance of the stored moments from those of this batch."""
  seen = {
    'error_mean': jnp.mean(terms['error']),
    'error_std': jnp.std(terms['error']),
    'kl_mean': jnp.mean(terms['kl']),
    'kl_std': jnp.std(terms['kl']),
  }
  mean = jnp.mean(terms['mean'], axis=0)
  log_variance = jnp.log(jnp.var(terms['mean'], axis=0) + 1e-6)
  mean, log_variance, seen = jax.lax.stop_gradient((mean, log_variance, seen))
  total = jnp.mean(jnp.square(stored['latent_mean'] - mean))
  gap = (stored['latent_log_variance'] - log_variance) / vae_net.MOMENT_SPEED
  total += jnp.mean(jnp.square(gap))
  for name in vae_net.MOMENTS:
    target = jnp.log(seen[name] + 1e-6) / vae_net.MOMENT_SPEED
    total += jnp.square(stored[name] - target)
  return total


def make(
  way,
  *,
  latent=24,
  hidden=(256, 128),
  architecture='perceptron',
  width=32,
  beta_start=0.25,
  beta_end=1.0,
  beta_steps=2000,
):
  """The `vae` learner.

  Args:
    way: N.
    latent: L, latent dimensions.
    hidden: widths of the encoder; the decoder mirrors them.
    architecture: 'perceptron', or 'residual' (convolutions, as in the original
      of UDL; `width` in place of `hidden`).
    width: filters of the first residual block.
    beta_start, beta_end: KL weight at first and after `beta_steps` steps.
    beta_steps: outer steps of the warm-up.

  Raises:
    ValueError: for sizes below 1 or a negative KL weight.
  """
  if latent < 1 or not hidden or min(hidden) < 1 or width < 4 or width % 4:
    raise ValueError(
      'sizes must be >= 1 and width a multiple of 4: '
      f'latent={latent}, hidden={hidden}, width={width}'
    )
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f'architecture must be one of {ARCHITECTURES}, not {architecture!r}'
    )
  if beta_start < 0 or beta_end < 0 or beta_steps < 0:
    raise ValueError(
      f'beta_start, beta_end and beta_steps must be >= 0, not '
      f'{(beta_start, beta_end, beta_steps)}'
    )

  def network(x):
    if architecture == 'residual':
      return vae_residual.ResidualVAE(tuple(x.shape[1:]), latent, width)
    return vae_net.VAE(tuple(x.shape[1:]), latent, tuple(hidden))

  def init(key, episode):
    x = episode.support.x[:1]
    noise = jnp.zeros((1, latent), jnp.float32)
    moments = {name: jnp.zeros((), jnp.float32) for name in vae_net.MOMENTS}
    moments['latent_mean'] = jnp.zeros((latent,), jnp.float32)
    moments['latent_log_variance'] = jnp.zeros((latent,), jnp.float32)
    return {
      'net': network(x).init(key, x, noise)['params'],
      'moments': moments,
    }

  def encode(params, x):
    net = network(x)
    return net.apply({'params': params['net']}, x, method='encode')[0]

  def adapt(params, support, key, *, train):
    del key, train
    return losses.class_means(encode(params, support.x), support.y, way)

  def predict(params, task, x, context):
    del context
    return -losses.squared_distances(encode(params, x), task)

  def terms_of(params, episode, key):
    x = jnp.concatenate([episode.support.x, episode.query.x])
    noise = vae_net.latent_noise(key, x.shape[0], latent)
    return network(x).apply({'params': params['net']}, x, noise), x

  def loss(params, episode, key, step):
    terms, x = terms_of(params, episode, key)
    weight = vae_net.beta(step, beta_start, beta_end, beta_steps)
    value = jnp.mean(terms['nll'] + weight * terms['kl'])
    value = value / math.prod(x.shape[1:])
    value += _moment_loss(params['moments'], terms)
    metrics = {
      'error': jnp.mean(terms['error']),
      'kl': jnp.mean(terms['kl']),
      'negative_elbo': jnp.mean(terms['nll'] + terms['kl']),
      'beta': weight,
    }
    return value, metrics

  def evaluate(params, episode, key):
    task = adapt(params, episode.support, key, train=False)
    logits = predict(params, task, episode.query.x, None)
    terms, _ = terms_of(params, episode, key)
    variance = jnp.var(terms['mean'], axis=0)
    return {
      **losses.classification_metrics(logits, episode.query.y),
      'error': jnp.mean(terms['error']),
      'kl': jnp.mean(terms['kl']),
      'negative_elbo': jnp.mean(terms['nll'] + terms['kl']),
      'active_latents': jnp.sum(variance > 0.01).astype(jnp.float32),
    }

  return learners.make_learner(init, adapt, predict, loss, evaluate)
