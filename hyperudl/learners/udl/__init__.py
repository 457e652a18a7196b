"""Generates a CNN that unsupervised gradient steps adapt: the learner UDL.

After UDL-MetaTrainingHyperNetwork, HyperFast (arXiv:2402.14335), MT3
(arXiv:2103.16201) and HyperTransformer (arXiv:2201.04182). With a transformer
T, the hypernetwork:
  theta = theta_0 + s * T(support, unlabelled, q(z | images))      generated
  w_c   = mean of f_theta(x_i) over class c + s * T_c              prototypes
  v    <- v - gate * alpha_k * g / (|g| + e),  g = d L_in / d v    K steps
  L_in  = a ELBO + b SSL + critic, on the unlabelled images
  w     = soft k-means of the unlabelled features around w, if `cluster`
  logits = tau cos(f_(theta + v)(x), w)
v is described in `fast_weights`; by default it is phi, the shift that the
unlabelled images share, and the ELBO that of the images as T_phi shows clean
ones (`shift`); the prototypes then move to where T_phi puts the support, and
noisy images are blended with what the VAE makes of them. `gate` is computed
from predictions and from ELBO statistics of a frozen `vae`; alpha, a and b are
learned and may be negative, so the outer loop decides how far to follow each
unsupervised loss.

Training phases: 'base' trains without adaptation (K = 0, no k-means). 'inner'
freezes the result of 'base' (`init_from.base`) and trains only the parameters
of the inner loop, on
  mean CE(v_K) / (stop(CE(v_0)) + .2)
so the unadapted model is exactly the K = 0 control. 'joint' trains everything
at once on w_0 CE(v_0) + (1 - w_0) CE(v_K), where CE(v_K) can at first be
replaced by the mean over all steps (multi-step loss, arXiv:1810.09502).
Expected results: docs/results/first.md and udl.md.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import vae
from hyperudl.learners.udl import cluster_setting
from hyperudl.learners.udl import evaluate
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import gates
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import shift
from hyperudl.learners.udl import target_network
from hyperudl.learners.udl.config import Config as Config
from hyperudl.ops import losses

SUPPORTS = frozenset({'emit_from', 'varies'})
RELATIVE = 0.2  # added to the denominator of the relative outer loss, nats


def check_run(config: core.PyTree) -> None:
  """Refuse a run whose clusters would get names from the scored queries."""
  if config.learner.setting == 'clusters':
    cluster_setting.refuse_transductive(config)


def make(config: Config) -> core.Learner:
  """Make the `udl` learner; its task is a `target_network.Network`."""
  if config.phase == 'base':
    config = dataclasses.replace(
      config,
      **{'inner_steps': 0, 'cluster': 0, 'start': 'identity'},
      **{'adapt': 'film', 'blend': False},
    )
  return learners.make_learner(
    partial(_init, config),
    partial(_adapt, config),
    partial(_predict, config),
    partial(_loss, config),
    partial(evaluate.evaluate, config),
  )


def _init(config, key, episode):
  """Return 'frozen', the base parameters of the phase, and 'inner'."""
  keys, support = jax.random.split(key, 3), episode.support
  upstream = vae.Config(
    way=config.way, latent=config.vae_latent, hidden=config.vae_hidden
  )
  params = {'frozen': {'vae': vae.init(upstream, keys[0], episode)}}
  base = hypernetwork.init(config, keys[1], support)
  if config.phase == 'inner':
    params['frozen']['base'] = base
  else:
    params.update(base)
  if inner_loop.has_unsupervised_adaptation(config):
    params['inner'] = _init_inner(config, keys[2], params, support.x)
  return params


def _init_inner(config, key, params, x):
  """Return the inner loop's parameters; `params` and `x` only give shapes."""
  names = ('elbo', 'critic', 'gate', *inner_losses.SSL)
  keys = dict(zip(names, jax.random.split(key, len(names))))
  scalar = lambda value: jnp.asarray(value, jnp.float32)
  features = target_network.architecture(config, x.shape[1:]).features
  pixels = inner_losses.small_images(x[:1]).shape[1]
  network = target_network.Network(
    hypernetwork.base_params(params)['cnn'],
    jnp.zeros((config.way, features)),
    jnp.zeros(()),
  )
  v = fast_weights.identity(config, params, network)
  active = inner_losses.active(config)
  inner = {
    name: each.init(keys[name], config, features, pixels)
    for name, each in active.items()
    if each.init is not None
  }
  if config.inner_steps and config.inner_norm == 'unit':
    inner['log_epsilon'] = jax.tree.map(
      lambda _: scalar(-3.0), fast_weights.without_sign(v)
    )
  if config.inner_steps and config.inner_rates == 'learned':
    inner['rates'] = fast_weights.rates(config, v)
    inner['weights'] = {
      name: scalar(config.inner_weight)
      for name, each in active.items()
      if each.is_weighted
    }
  if config.gate != 'none':
    inner['gate'] = gates.init(keys['gate'], config)
  if config.cluster:
    inner['cluster'] = {'log_scale': scalar(0.0), 'log_mass': scalar(0.0)}
  if config.start == 'learned':
    inner['start'] = v
  if 'shift' in v:
    inner['shift'] = shift.init(config)
  return inner


def _adapt(config, params, support, key, *, train):
  del train
  support = hypernetwork.visible_support(config, support)
  network = hypernetwork.generate(config, params, support)
  network, _ = inner_loop.adapt(config, params, network, support, key)
  return network._replace(features=None)


def _predict(config, params, network, x, context):
  del params, context
  return target_network.classify(config, network, x)


def _loss(config, params, episode, key, step):
  y = episode.query.y
  support = hypernetwork.visible_support(config, episode.support)
  network = hypernetwork.generate(config, params, support)
  logits = target_network.query_logits(config, network, episode)
  unadapted = losses.cross_entropy(logits, y)
  before = losses.accuracy(logits, y)
  if not inner_loop.has_unsupervised_adaptation(config):
    return unadapted, {'accuracy': before}
  adapted_network, trace = inner_loop.adapt(
    config, params, network, support, key
  )
  logits = target_network.query_logits(config, adapted_network, episode)
  adapted = losses.cross_entropy(logits, y)
  accuracy = losses.accuracy(logits, y)
  if config.multi_step:
    networks = [
      inner_loop.network_after(config, params, network, support, v)
      for v in _unstacked(trace.v, config.inner_steps)
    ]
    adapted = _multi_step(config, networks, adapted, episode, step)
  metrics = {
    **trace.metrics,
    'accuracy_unadapted': before,
    'accuracy': accuracy,
    'gain_step': accuracy - before,
  }
  for name, weight in params['inner'].get('weights', {}).items():
    metrics[f'weight_{name}'] = weight
  value = _combine(config, unadapted, adapted)
  if config.auxiliary_weight and config.inner_steps:
    metrics['auxiliary'] = trace.auxiliary
    value += config.auxiliary_weight * trace.auxiliary
  return value, metrics


def _unstacked(tree, count):
  """Return the pytrees of leaves [count, ...] in a list."""
  return [jax.tree.map(lambda leaf: leaf[k], tree) for k in range(count)]


def _combine(config, unadapted, adapted):
  """Combine two cross-entropies into the outer loss before auxiliary terms."""
  if config.phase == 'inner':
    return adapted / (jax.lax.stop_gradient(unadapted) + RELATIVE)
  if config.meta_grad == 'none':
    return unadapted
  weight = config.unadapted_weight
  return weight * unadapted + (1 - weight) * adapted


def _multi_step(config, networks, last, episode, step):
  """Return the loss `last` of v_K, at first averaged with earlier steps'."""
  if not networks[:-1]:
    return last
  earlier = [
    losses.cross_entropy(
      target_network.query_logits(config, network, episode),
      episode.query.y,
    )
    for network in networks[:-1]
  ]
  mean = (sum(earlier) + last) / len(networks)
  fraction = jnp.maximum(0.0, 1 - step / config.multi_step)
  return fraction * mean + (1 - fraction) * last
