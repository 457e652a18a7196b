"""Reproduces UDL as its authors built it, with their metric and a fair one.

UDL-MetaTrainingHyperNetwork (repository of that name): a frozen VAE turns an
image into a row [mu; log sigma^2]. One learned query q attends over many rows
C of a data set, unscaled: c = sum softmax(C q) C. For each layer of a target
perceptron, a hypernetwork (a perceptron) generates the weights from c. The
target classifies rows without labels: K gradient steps on all hypernetwork
parameters lower
  3 mean((cos(l_i, l_j) - cos(mu_i, mu_j))^2),  l the logits,
each on a new unlabelled batch and a new draw of C. The outer loss is the
cross-entropy on other images of the data set, after assigning the outputs of
the target to classes.

The metric of the original is kept as `accuracy_legacy`; it is too high, because
outputs are assigned to classes greedily on the very images that are scored.
`accuracy` assigns them on the support and scores the queries. Differences: the
images of an episode take the place of a data set, with classes drawn for each
episode (not fixed blocks of labels of two data sets); evaluation takes the K
steps of training and new queries (not 40 steps and the last batch of the inner
loop); the autoencoder is the `vae` learner (`init_from.vae`, architecture
'residual') without the SSIM term, whose weight was negligible.
"""

import dataclasses
from functools import partial
import itertools
from typing import Literal

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.learners import vae
from hyperudl.learners.udl import cluster_setting
from hyperudl.ops import cluster_metrics
from hyperudl.ops import gradient_descent
from hyperudl.ops import image
from hyperudl.ops import losses

NOISE = 0.5  # standard deviation of noise images before clipping to [0, 1]


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyperparameters of `udl_original`."""

  way: int = field(5, at_least=1)  # N, from episode.way; 4 in the original
  latent: int = field(128, at_least=1)  # of the upstream `vae`
  vae_width: int = field(32, at_least=4)  # `width` of the upstream `vae`
  rows: int = field(1024, at_least=1)  # rows of C, drawn with replacement
  head_hidden: int = field(256, at_least=1)  # width of each hypernetwork
  # Hidden widths of the target perceptron 2 L -> hidden -> N.
  hidden: tuple[int, ...] = field((400, 200), at_least=1)
  inner_steps: int = field(3, at_least=0)  # K
  inner_rate: float = field(5e-3, above=0)
  geometry_weight: float = 3.0  # factor of the inner loss
  inner_batch: int = field(16, at_least=1)  # images per inner step
  # 'noise': C comes from noise images ('pixel_noise' in the original).
  conditioning: Literal['true', 'noise'] = 'true'

  def __post_init__(self):
    hyperparameters.check(self)
    if not self.hidden:
      raise ValueError('hidden = (): the target needs at least one layer')


check_run = cluster_setting.refuse_transductive


def make(config: Config) -> core.Learner:
  """Make the `udl_original` learner; its task is the target's weights."""
  return learners.make_learner(
    partial(init, config),
    partial(_adapt, config),
    partial(_predict, config),
    partial(_loss, config),
    partial(_evaluate, config),
  )


def _vae(config):
  return vae.Config(
    way=config.way,
    latent=config.latent,
    architecture='residual',
    width=config.vae_width,
  )


def _layers(config):
  """Return ((fan_in, fan_out), ...), the layers of the target."""
  return tuple(
    itertools.pairwise((2 * config.latent, *config.hidden, config.way))
  )


def init(
  config: Config, key: jax.Array, episode: core.Episode
) -> dict[str, core.PyTree]:
  """Return 'frozen' (the vae) and 'theta' (query q and hypernetworks)."""
  keys = iter(jax.random.split(key, 2 + 2 * len(_layers(config))))
  frozen = {'vae': vae.init(_vae(config), next(keys), episode)}
  size = 2 * config.latent
  query = jax.random.normal(next(keys), (size,))
  heads = []
  for fan_in, fan_out in _layers(config):
    count = (fan_in + 1) * fan_out
    bound = size**-0.5  # PyTorch's default
    shape = (size, config.head_hidden)
    heads.append(
      {
        'first': jax.random.uniform(next(keys), shape, minval=-1) * bound,
        'first_bias': jnp.zeros((config.head_hidden,), jnp.float32),
        'last': 0.01 * jax.random.normal(next(keys), (shape[1], count)),
        'last_bias': jnp.zeros((count,), jnp.float32),
      }
    )
  return {'frozen': frozen, 'theta': {'query': query, 'heads': heads}}


def _encode(config, params, x):
  """Return the rows [mu; log sigma^2] f32[n, 2 L] of images."""
  rows = vae.encode(_vae(config), params['frozen']['vae'], x)
  return jax.lax.stop_gradient(jnp.concatenate(rows, axis=-1))


def _generate(config, theta, rows):
  """Generate the target's weights ((kernel, bias), ...) from rows C."""
  attention = jax.nn.softmax(rows @ theta['query'])
  context = attention @ rows
  weights = []
  for head, (fan_in, fan_out) in zip(theta['heads'], _layers(config)):
    hidden = jax.nn.relu(context @ head['first'] + head['first_bias'])
    flat = hidden @ head['last'] + head['last_bias']
    kernel = flat[: fan_in * fan_out].reshape(fan_out, fan_in)
    weights.append((kernel, flat[fan_in * fan_out :]))
  return tuple(weights)


def _classify(weights, rows):
  """Return the target's logits f32[n, N] of rows f32[n, 2 L]."""
  for kernel, bias in weights[:-1]:
    rows = jax.nn.relu(rows @ kernel.T + bias)
  kernel, bias = weights[-1]
  return rows @ kernel.T + bias


def _predict(config, params, weights, x, context):
  del context
  return _classify(weights, _encode(config, params, x))


def _pool(config, params, support, key):
  """Return the rows that C is drawn from."""
  x, context = support.x, support.context or {}
  if 'cond' in context and context['cond'].shape[0]:
    x = context['cond']
  if config.conditioning == 'noise':
    x = jnp.clip(NOISE * jax.random.normal(key, x.shape), 0.0, 1.0)
  return _encode(config, params, x)


def _draw(config, pool, key):
  return pool[jax.random.randint(key, (config.rows,), 0, pool.shape[0])]


def _descend(config, theta, rows, pool, key):
  """Return theta after K steps on rows f32[n, 2 L] of unlabelled images."""
  if not config.inner_steps or not rows.shape[0]:
    return theta

  def loss(theta, k):
    batch_key, draw_key = jax.random.split(jax.random.fold_in(key, k))
    order = jax.random.permutation(batch_key, rows.shape[0])
    batch = rows[order[: config.inner_batch]]
    weights = _generate(config, theta, _draw(config, pool, draw_key))
    logits, means = _classify(weights, batch), batch[:, : config.latent]
    value = losses.geometry(logits, means, jnp.ones(len(batch)))
    return config.geometry_weight * value

  rates = gradient_descent.make_rates(
    theta, config.inner_steps, config.inner_rate, 'step'
  )
  return gradient_descent.descend(loss, theta, rates)[0]


def _unadapted_and_adapted(config, params, support, key, x=None):
  """Return two targets; the inner loop uses images x, or else the support."""
  pool_key, inner_key, draw_key = jax.random.split(key, 3)
  pool = _pool(config, params, support, pool_key)
  if x is None:
    x = (support.context or {}).get('inner', support.x)
  theta, rows = params['theta'], _encode(config, params, x)
  adapted = _descend(config, theta, rows, pool, inner_key)
  drawn = _draw(config, pool, draw_key)
  return _generate(config, theta, drawn), _generate(config, adapted, drawn)


def _adapt(config, params, support, key, *, train=False):
  del train
  return _unadapted_and_adapted(config, params, support, key)[1]


def greedy(outputs: jax.Array, y: jax.Array, way: int) -> jax.Array:
  """Assign an output to each class as the original does: i32[N].

  Each class takes its most frequent output if that is still free; classes for
  which that output has a larger count come first. The remaining classes then
  get the remaining outputs.

  Args:
    outputs: i32[n], the predicted output of each image.
    y: i32[n], the class of each image.
    way: N.
  """
  table = cluster_metrics.contingency(y, outputs, way)
  favourite, count = jnp.argmax(table, axis=1), jnp.max(table, axis=1)
  order = jnp.argsort(-count, stable=True)
  named, taken = jnp.full((way,), -1), jnp.zeros((way,), bool)
  for place in range(way):
    c = order[place]
    free = ~taken[favourite[c]]
    named = named.at[c].set(jnp.where(free, favourite[c], -1))
    taken = taken.at[favourite[c]].set(True)
  for c in range(way):
    rest = jnp.argmin(taken)  # the first output without a class
    missing = named[c] < 0
    named = named.at[c].set(jnp.where(missing, rest, named[c]))
    taken = taken.at[rest].set(taken[rest] | missing)
  return named


def _name_greedily(config, logits, y):
  """Return logits by class, with outputs assigned greedily on these images."""
  return logits[:, greedy(jnp.argmax(logits, axis=-1), y, config.way)]


def _loss(config, params, episode, key, step):
  del step
  y = episode.query.y
  weights = _adapt(config, params, episode.support, key)
  logits = _classify(weights, _encode(config, params, episode.query.x))
  logits = _name_greedily(config, logits, y)
  return losses.cross_entropy(logits, y), {
    'accuracy_legacy': losses.accuracy(logits, y)
  }


def _evaluate(config, params, episode, key):
  y, support = episode.query.y, episode.support
  rows = [_encode(config, params, x) for x in (support.x, episode.query.x)]
  noise = image.noise_images(jax.random.fold_in(key, 1), support.x.shape)
  unadapted, adapted = _unadapted_and_adapted(config, params, support, key)
  _, on_noise = _unadapted_and_adapted(config, params, support, key, noise)
  metrics = {}
  for suffix, weights in (('_unadapted', unadapted), ('', adapted)):
    logits = [_classify(weights, each) for each in rows]
    values = cluster_setting.metrics(*logits, episode, config.way)
    legacy = _name_greedily(config, logits[1], y)
    values['accuracy_legacy'] = losses.accuracy(legacy, y)
    metrics |= {f'{name}{suffix}': value for name, value in values.items()}
  del metrics['probabilities_unadapted']
  logits = [_classify(on_noise, each) for each in rows]
  by_class = cluster_setting.order_by_class(*logits, episode, config.way)
  noise_accuracy = losses.accuracy(by_class, y)
  points = {'posterior': [each[:, : config.latent] for each in rows]}
  return {
    **metrics,
    **cluster_setting.baselines(episode, config.way, points),
    'accuracy_placebo': noise_accuracy,
    'gain_step': metrics['accuracy'] - metrics['accuracy_unadapted'],
    'gain_data': metrics['accuracy'] - noise_accuracy,
  }
