"""HVAE: a variational autoencoder of the weights of adapted networks.

Nava et al. 2023, arXiv:2210.08942: for the weights w_i of training task i,
decoded by the frozen `hypernet` from its latent,
  [ |(w' - w) / s|^2 + beta KL(q(z | w) || N(0, 1)) ] / sqrt(D),
s a spread of all weights, fitted beside. Its latent is the `space='hvae'` of
`hyperclip` and `hyperldm`. As a classifier it fine-tunes z on the support in
the decoder's space, beginning from the unconditional network.
`accuracy_reconstructed` is that of the network which the hypernet adapts to
the support, after encoding and decoding.
"""

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import optax

from hyperudl import learners
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.learners._language import latent_space
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses


def make(
  way,
  *,
  hvae_latent=32,
  hvae_hidden=(128, 128),
  beta=1.0,
  hvae_steps=50,
  hvae_rate=0.03,
  **settings,
):
  """The `hvae` learner.

  Args:
    way: N.
    hvae_latent: L.
    hvae_hidden: widths of encoder and decoder.
    beta: weight of the KL.
    hvae_steps, hvae_rate: Adam steps on the support in the latent.
    **settings: of the frozen `hypernet`.

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  net = hypernet.settings_of(way, **settings)
  space = latent_space.Space('hvae', net, hvae_latent, tuple(hvae_hidden))
  latent_space.check(space)
  if beta < 0 or hvae_steps < 0 or hvae_rate <= 0:
    raise ValueError(
      'beta and hvae_steps must be >= 0 and hvae_rate > 0, not '
      f'{beta}, {hvae_steps} and {hvae_rate}'
    )

  def init(key, episode):
    frozen = latent_space.init_frozen(space, key, episode)
    return {**frozen.pop('hvae'), 'frozen': frozen}

  def adapt(params, support, key, *, train):
    del key, train
    whole = _whole(params)
    base = latent_space.net_params(whole)
    words = hypernetwork.words_of(net, base, support.context)
    features = hypernetwork.features_of(net, base, support.x)

    def loss(z, step):
      del step
      value = latent_space.value_of(space, whole, z)
      logits = hypernetwork.answer(net, base, value, words, support.x, features)
      return losses.cross_entropy(logits, support.y)

    z = latent_space.start(space, whole, support.context)
    z, _ = gradient_descent.optimise(loss, z, optax.adam(hvae_rate), hvae_steps)
    return {'value': latent_space.value_of(space, whole, z), 'words': words}

  def predict(params, task, x, context):
    del context
    return hypernetwork.predict(net, latent_space.net_params(params), task, x)

  def loss(params, episode, key, step):
    del step
    whole = _whole(params)
    value = _latent_value(space, whole, episode)
    target = ravel_pytree(
      hypernetwork.network(net, latent_space.net_params(whole), value)[0]
    )[0]
    target = jax.lax.stop_gradient(target)
    return _elbo(space, whole, target, beta, key)

  def evaluate(params, episode, key):
    whole, support, query = _whole(params), episode.support, episode.query
    task = adapt(params, support, key, train=False)
    base = latent_space.net_params(whole)
    first = hypernetwork.start(net, base, support.context)
    own = hypernetwork.adapted(net, base, support, first)
    z = latent_space.point_of(space, whole, own['value'])
    again = {**own, 'value': latent_space.value_of(space, whole, z)}
    accuracy = lambda task: losses.accuracy(
      hypernetwork.predict(net, base, task, query.x), query.y
    )
    return {
      **losses.classification_metrics(
        predict(params, task, query.x, None), query.y
      ),
      'accuracy_hypernet': accuracy(own),
      'accuracy_reconstructed': accuracy(again),
      'accuracy_start': accuracy({**own, 'value': first}),
    }

  return learners.make_learner(init, adapt, predict, loss, evaluate)


make.__signature__ = learners.spelled_out(make, hypernet.make)


def _whole(params):
  """The parameters as `spaces` takes them, the hvae among the frozen."""
  own = {k: v for k, v in params.items() if k != 'frozen'}
  return {'frozen': {**params['frozen'], 'hvae': own}}


def _latent_value(space, params, episode):
  """The hypernet's inner value of a training task."""
  plain = space._replace(kind='hnet')
  return {'z': latent_space.point_of_task(plain, params, episode)}


def _elbo(space, params, target, beta, key):
  """(loss, metrics) of the flat weights f32[D] of one task."""
  hvae = params['frozen']['hvae']
  base = params['frozen']['hypernet']['decoder']['base']
  _, unravel = ravel_pytree(base)
  mean, log_variance = latent_space.encode(params, unravel(target))
  noise = jax.random.normal(key, mean.shape)
  z = mean + jnp.exp(0.5 * log_variance) * noise
  weights = latent_space.weights_of(space, params, z)
  error = ravel_pytree(weights)[0] - target
  spread = jax.lax.stop_gradient(jnp.exp(hvae['log_spread']))
  squared = jnp.sum(jnp.square(error / spread))
  kl = losses.kl_standard_normal(mean, log_variance)
  value = (squared + beta * kl) / jnp.sqrt(target.size)
  # The spread of the weights about the decoder's base, for the encoder too.
  own = latent_space.deviation(params, unravel(target))
  log_spread = hvae['log_spread']
  fit = log_spread + 0.5 * jnp.mean(jnp.square(own * jnp.exp(-log_spread)))
  metrics = {
    'error': jnp.mean(jnp.square(error / spread)),
    'kl': kl,
  }
  return value + fit, metrics
