"""UDL as its authors built it, with their evaluation and an honest one.

UDL-MetaTrainingHyperNetwork (repository of that name): a frozen VAE turns an
image into a row [mu; log sigma^2]. One learned query q attends over many rows
C of a data set, unscaled: c = sum softmax(C q) C. A perceptron for each layer
of a target perceptron writes that layer from c. The target classifies rows
without labels: K gradient steps on all hypernetwork parameters lower
  3 mean((cos(l_i, l_j) - cos(mu_i, mu_j))^2)
over fresh unlabelled batches and fresh draws of C; the outer loss is the cross
entropy on other images of the data set after naming the outputs.

What misleads in the original is kept as `accuracy_legacy`: outputs are named
greedily on the very images that are scored. `accuracy` names them on the
support and scores queries. Differences: the images of an episode stand in for
a data set, its classes are drawn anew for each (not fixed blocks of labels of
two sets), evaluation takes the K steps of training and fresh queries (not 40
steps and the last batch that was stepped on); the autoencoder is the `vae`
learner (`init_from.vae`, architecture 'residual') without the SSIM term, whose
weight made it irrelevant.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import learners
from hyperudl.data.episodes import augment
from hyperudl.learners import vae as vae_learner
from hyperudl.learners.udl import cluster_setting
from hyperudl.nets import vae_residual
from hyperudl.ops import cluster_metrics
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

CONDITIONING = ('true', 'noise')
NOISE = 0.5  # standard deviation of noise images, clipped to [0, 1]


class _Settings(NamedTuple):
  """Static choices; see `make`."""

  way: int
  latent: int
  width: int
  rows: int
  head_hidden: int
  hidden: tuple
  steps: int
  rate: float
  weight: float
  batch: int
  conditioning: str


def make(
  way,
  *,
  latent=128,
  vae_width=32,
  rows=1024,
  head_hidden=256,
  hidden=(400, 200),
  inner_steps=3,
  inner_rate=5e-3,
  geometry_weight=3.0,
  inner_batch=16,
  conditioning='true',
):
  """The `udl_original` learner.

  Args:
    way: N, at most 7; 4 in the original.
    latent, vae_width: sizes of the upstream `vae`.
    rows: of C, drawn with replacement from the support.
    head_hidden: of the perceptron that writes a layer.
    hidden: of the target perceptron 2 L -> hidden -> N.
    inner_steps: K >= 0.
    inner_rate: of the inner steps.
    geometry_weight: factor of the inner loss.
    inner_batch: images of an inner step, drawn from the support.
    conditioning: 'true', or 'noise': C comes from noise images (the ablation
      'pixel_noise' of the original).

  Raises:
    ValueError: for an unknown choice or a number out of range.
  """
  cluster_metrics.permutations(way)
  if conditioning not in CONDITIONING:
    raise ValueError(
      f'conditioning must be one of {CONDITIONING}, not {conditioning!r}'
    )
  sizes = (latent, rows, head_hidden, inner_batch, *hidden)
  if min(sizes) < 1 or not hidden or inner_steps < 0 or inner_rate <= 0:
    raise ValueError(
      'latent, rows, head_hidden, inner_batch and hidden must be >= 1, '
      f'inner_steps >= 0 and inner_rate > 0, not {sizes}, {inner_steps} and '
      f'{inner_rate}'
    )
  s = _Settings(
    way,
    latent,
    vae_width,
    rows,
    head_hidden,
    tuple(hidden),
    inner_steps,
    inner_rate,
    geometry_weight,
    inner_batch,
    conditioning,
  )
  return learners.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _target(task, _encode(s, params, x)),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


def _layers(s):
  """((fan_in, fan_out), ...) of the target."""
  widths = (2 * s.latent, *s.hidden, s.way)
  return tuple(itertools.pairwise(widths))


def _init(s, key, episode):
  keys = iter(jax.random.split(key, 2 + 2 * len(_layers(s))))
  upstream = vae_learner.make(
    s.way, latent=s.latent, architecture='residual', width=s.width
  )
  frozen = {'vae': upstream.init(next(keys), episode)}
  size = 2 * s.latent
  query = jax.random.normal(next(keys), (size,))
  heads = []
  for fan_in, fan_out in _layers(s):
    count = (fan_in + 1) * fan_out
    bound = size**-0.5  # the default of torch
    uniform = lambda k, shape: jax.random.uniform(k, shape, minval=-1) * bound
    heads.append(
      {
        'first': uniform(next(keys), (size, s.head_hidden)),
        'first_bias': jnp.zeros((s.head_hidden,), jnp.float32),
        'last': 0.01 * jax.random.normal(next(keys), (s.head_hidden, count)),
        'last_bias': jnp.zeros((count,), jnp.float32),
      }
    )
  return {'frozen': frozen, 'theta': {'query': query, 'heads': heads}}


def _encode(s, params, x):
  """Rows [mu; log sigma^2] f32[n, 2 L] of images."""
  net = vae_residual.ResidualVAE(tuple(x.shape[1:]), s.latent, s.width)
  variables = {'params': params['frozen']['vae']['net']}
  rows = net.apply(variables, x, method='encode')
  return jax.lax.stop_gradient(jnp.concatenate(rows, axis=-1))


def _write(s, theta, rows):
  """The target's weights from C: ((kernel, bias), ...)."""
  shares = jax.nn.softmax(rows @ theta['query'])
  context = shares @ rows
  weights = []
  for head, (fan_in, fan_out) in zip(theta['heads'], _layers(s)):
    hidden = jax.nn.relu(context @ head['first'] + head['first_bias'])
    flat = hidden @ head['last'] + head['last_bias']
    kernel = flat[: fan_in * fan_out].reshape(fan_out, fan_in)
    weights.append((kernel, flat[fan_in * fan_out :]))
  return tuple(weights)


def _target(weights, rows):
  """Logits f32[n, N] of rows f32[n, 2 L]."""
  for kernel, bias in weights[:-1]:
    rows = jax.nn.relu(rows @ kernel.T + bias)
  kernel, bias = weights[-1]
  return rows @ kernel.T + bias


def _pool(s, params, support, key):
  """The rows that C is drawn from."""
  x = support.x
  context = support.context or {}
  if 'emit_from' in context:
    raise core.BadInput(
      "udl_original has no episode.emit_from; use episode.cond_data='other'"
    )
  if 'cond' in context and context['cond'].shape[0]:
    x = context['cond']
  if s.conditioning == 'noise':
    x = jnp.clip(NOISE * jax.random.normal(key, x.shape), 0.0, 1.0)
  return _encode(s, params, x)


def _descend(s, theta, rows, pool, key):
  """K steps on all of theta; `rows` f32[n, 2 L] of unlabelled images."""
  if not s.steps or not rows.shape[0]:
    return theta

  def loss(theta, k):
    batch_key, draw_key = jax.random.split(jax.random.fold_in(key, k))
    batch = jax.random.permutation(batch_key, rows.shape[0])[: s.batch]
    some = rows[batch]
    weights = _write(s, theta, _draw(s, pool, draw_key))
    logits = _target(weights, some)
    means = some[:, : s.latent]
    return s.weight * losses.geometry(logits, means, jnp.ones(len(some)))

  rates = gradient_descent.make_rates(theta, s.steps, s.rate, 'step')
  return gradient_descent.descend(loss, theta, rates)[0]


def _draw(s, pool, key):
  return pool[jax.random.randint(key, (s.rows,), 0, pool.shape[0])]


def _tasks(s, params, support, key, x=None):
  """(unadapted weights, adapted weights); steps on images x or the support."""
  pool_key, inner_key, draw_key = jax.random.split(key, 3)
  pool = _pool(s, params, support, pool_key)
  if x is None:
    x = (support.context or {}).get('inner', support.x)
  rows = _encode(s, params, x)
  theta = params['theta']
  adapted = _descend(s, theta, rows, pool, inner_key)
  drawn = _draw(s, pool, draw_key)
  return _write(s, theta, drawn), _write(s, adapted, drawn)


def _adapt(s, params, support, key):
  return _tasks(s, params, support, key)[1]


def greedy(answers, y, way):
  """The original's naming of outputs: i32[N], the output of each class.

  Each class asks for its most frequent output, classes in the order of these
  counts; taken outputs are refused, and what is left goes to who is left.

  Args:
    answers: i32[n], outputs.
    y: i32[n], classes.
    way: N.
  """
  table = cluster_metrics.contingency(y, answers, way)
  favourite, count = jnp.argmax(table, axis=1), jnp.max(table, axis=1)
  order = jnp.argsort(-count, stable=True)
  named, taken = jnp.full((way,), -1), jnp.zeros((way,), bool)
  for place in range(way):
    c = order[place]
    free = ~taken[favourite[c]]
    named = named.at[c].set(jnp.where(free, favourite[c], -1))
    taken = taken.at[favourite[c]].set(True)
  for c in range(way):
    rest = jnp.argmin(taken)  # the first output that nobody has
    missing = named[c] < 0
    named = named.at[c].set(jnp.where(missing, rest, named[c]))
    taken = taken.at[rest].set(taken[rest] | missing)
  return named


def _named(logits, y, way):
  """Logits with the greedy names of the images themselves."""
  order = greedy(jnp.argmax(logits, axis=-1), y, way)
  return cluster_metrics.named(logits, order)


def _loss(s, params, episode, key):
  x, y = episode.query.x, episode.query.y
  weights = _adapt(s, params, episode.support, key)
  logits = _named(_target(weights, _encode(s, params, x)), y, s.way)
  legacy = {'accuracy_legacy': losses.accuracy(logits, y)}
  return losses.cross_entropy(logits, y), legacy


def _evaluate(s, params, episode, key):
  y = episode.query.y
  rows = _encode(s, params, episode.query.x)
  support = _encode(s, params, episode.support.x)
  found = {}
  tasks = _tasks(s, params, episode.support, key)
  for end, weights in zip(('_unadapted', ''), tasks):
    seen, logits = _target(weights, support), _target(weights, rows)
    result = cluster_setting.scores(seen, logits, episode, s.way)
    legacy = losses.accuracy(_named(logits, y, s.way), y)
    found.update({f'{name}{end}': value for name, value in result.items()})
    found[f'accuracy_legacy{end}'] = legacy
  encode = {'posterior': lambda x: _encode(s, params, x)[:, : s.latent]}
  noise = augment.noise_images(
    jax.random.fold_in(key, 1), episode.support.x.shape
  )
  blind = _tasks(s, params, episode.support, key, noise)[1]
  blind = cluster_setting.name(
    _target(blind, support), _target(blind, rows), episode, s.way
  )
  placebo = losses.accuracy(blind, y)
  found.pop('probabilities_unadapted')
  return {
    **found,
    **cluster_setting.baselines(episode, s.way, encode),
    'accuracy_placebo': placebo,
    'gain_step': found['accuracy'] - found['accuracy_unadapted'],
    'gain_data': found['accuracy'] - placebo,
  }
