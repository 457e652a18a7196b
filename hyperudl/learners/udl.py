"""UDL: a hypernetwork writes a CNN, and label-free gradient steps refine it.

After UDL-MetaTrainingHyperNetwork, HyperFast (arXiv:2402.14335), MT3
(arXiv:2103.16201) and HyperTransformer (arXiv:2201.04182); here:
  theta = theta_0 + s * T(support, unlabelled, q(z | images))      emission
  w_c   = mean of f_theta(x_i) over class c + s * T_c              head
  v    <- v - gate * alpha_k * g / (|g| + e),  g = d L_in / d v    K steps
  L_in  = a ELBO + b SSL + critic, on the unlabelled images
  logits = tau cos(f_(theta + v)(x), w)
v is the pair of scale and bias of each norm ('film'), the 11 numbers of an
input canonicaliser ('transform'), or both; queries and unlabelled images
pass through it, the support and its prototypes do not. `gate` reads ELBO
statistics of a frozen `vae`; alpha, a and b are signed and learned, so the
outer loop decides how much of each label-free step is good for accuracy.

phase 'base': K = 0. 'inner': everything of 'base' is frozen
(`init_from.base`), and only what the inner loop owns is trained on
  mean CE(v_K) / (stop(CE(v_0)) + .2)
so the unadapted model is the K = 0 control by construction. 'joint' trains
all at once on w_0 CE(v_0) + (1 - w_0) CE(v_K).
Expected: see docs/results/first.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl import label_free
from hyperudl import writing
from hyperudl.data import augment
from hyperudl.learners import vae as vae_learner
from hyperudl.nets import canonical
from hyperudl.nets import conv

PHASES = ('base', 'inner', 'joint')
RELATIVE = 0.2  # floor of the relative outer loss, nats


class _Settings(NamedTuple):
  """Static choices; see `make`."""

  phase: str
  writer: writing.Writer
  inner: label_free.Options
  unadapted_weight: float
  auxiliary_weight: float


def make(
  way,
  *,
  phase='joint',
  channels=(32, 32, 64),
  width=64,
  layers=2,
  heads=4,
  trunk=(16, 32, 32),
  share_trunk=False,
  allocation='output',
  strength=0.1,
  adapt='film',
  inner_steps=3,
  elbo='features',
  ssl='geometry',
  critic='predictions',
  gate='elbo',
  inner_rate=0.3,
  first_order=False,
  unadapted_weight=0.25,
  auxiliary_weight=0.1,
  vae_latent=24,
  vae_hidden=(256, 128),
):
  """The `udl` learner.

  Args:
    way: N.
    phase: 'base', 'inner' or 'joint' (see the module's docstring).
    channels: filters of the emitted CNN's stride-2 3x3 convolutions.
    width, layers, heads: of the transformer.
    trunk: channels of the feature extractor of the image tokens; () = none.
    share_trunk: image tokens read the layer of the frozen vae's encoder that
      its posterior reads, in place of a `trunk` of their own.
    allocation: 'output' or 'spatial' (see `emit`).
    strength: initial size s of the emission.
    adapt: v: 'film', 'transform' or 'film+transform'.
    inner_steps: K >= 0.
    elbo: 'features' (mounted on the CNN's features), 'images' (of the frozen
      vae, through 'transform') or 'none'.
    ssl: 'geometry' (UDL), 'byol' or 'none'.
    critic: 'predictions', 'predictions+elbo' or 'none'.
    gate: 'elbo' or 'none'.
    inner_rate: initial alpha of 'film', and in units of `canonical.RATES`
      that of 'transform'.
    first_order: stop the outer gradient at the inner gradients.
    unadapted_weight: w_0 of phase 'joint', in [0, 1].
    auxiliary_weight: weight of ELBO and SSL at v_0 in the outer loss.
    vae_latent, vae_hidden: sizes of the upstream `vae`.

  Raises:
    ValueError: for an unknown choice, a number out of range, or a loss and a
      variable between which there is no gradient.
  """
  if phase not in PHASES:
    raise ValueError(f'phase must be one of {PHASES}, not {phase!r}')
  if not 0 <= unadapted_weight <= 1 or auxiliary_weight < 0:
    raise ValueError(
      'unadapted_weight must be in [0, 1] and auxiliary_weight >= 0, not '
      f'{unadapted_weight} and {auxiliary_weight}'
    )
  if not channels or min(channels) < 1 or width < 1 or width % heads:
    raise ValueError(
      'channels and width must be >= 1 and width a multiple of heads, not '
      f'channels={channels}, width={width}, heads={heads}'
    )
  steps = 0 if phase == 'base' else inner_steps
  options = label_free.Options(
    adapt, steps, elbo, ssl, critic, gate, inner_rate, first_order
  )
  label_free.check(options._replace(steps=inner_steps))
  cnn = conv.ConvNet(
    channels=tuple(channels), stride=2, pool=False, norm='layer', head=None
  )
  settings = {
    'width': width,
    'layers': layers,
    'heads': heads,
    'trunk': tuple(trunk),
    'allocation': allocation,
    'strength': strength,
  }
  writer = writing.Writer(
    way, cnn, settings, share_trunk, vae_latent, tuple(vae_hidden)
  )
  s = _Settings(phase, writer, options, unadapted_weight, auxiliary_weight)
  return core.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: _predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key),
    lambda params, episode, key: _evaluate(s, params, episode, key),
  )


def _init(s, key, episode):
  keys = jax.random.split(key, 3)
  support, w = episode.support, s.writer
  upstream = vae_learner.make(w.way, latent=w.latent, hidden=w.hidden)
  params = {'frozen': {'vae': upstream.init(keys[0], episode)}}
  base = writing.init(w, keys[1], support)
  if s.phase == 'inner':
    params['frozen']['base'] = base
  else:
    params.update(base)
  if s.inner.steps:
    features = writing.width(w, base['cnn'], support.x)
    params['inner'] = label_free.init(
      s.inner, keys[2], base['cnn'], w.way, features, support.x
    )
  return params


def _base(params):
  return params['frozen'].get('base', params)


def _view(s, params, support, weights, head):
  """What the inner loop sees: the -1 rows, or the images set in their place.

  Without any -1 row it works on the support images themselves.
  """
  context = support.context or {}
  unlabelled = (support.y < 0).astype(jnp.float32)
  x, mask = support.x, jnp.where(unlabelled.any(), unlabelled, 1.0)
  if 'inner' in context:
    x, mask = context['inner'], jnp.ones(context['inner'].shape[0])
  vae = params['frozen']['vae']
  moments = vae['moments']
  terms = writing.reconstruct(s.writer, vae, support.x)
  return label_free.View(
    weights=weights,
    embed=lambda weights, x: writing.embed(s.writer, weights, x),
    classify=lambda features: writing.logits(_base(params), features, head),
    reconstruct=lambda x: writing.reconstruct(s.writer, vae, x),
    moments=vae_learner.read_moments(vae),
    population=(moments['latent_mean'], moments['latent_log_variance']),
    support={**terms, 'mask': 1.0 - unlabelled},
    x=x,
    mask=mask,
  )


def _written(s, params, support):
  """The task before any inner step."""
  weights, head = writing.write(
    s.writer, _base(params), params['frozen']['vae'], support
  )
  value = label_free.identity(s.inner, weights)
  return {'weights': weights, 'head': head, 'value': value}


def _refined(s, params, support, task, key):
  """(task after K steps, metrics); unchanged if there is nothing to see."""
  view = _view(s, params, support, task['weights'], task['head'])
  if not s.inner.steps or not view.x.shape[0]:
    return task, {}
  value, gate, trace = label_free.refine(s.inner, params['inner'], view, key)
  metrics = {
    'gate': gate,
    'inner_loss_first': trace.loss[0],
    'inner_loss_last': trace.loss[-1],
    'inner_grad_norm': trace.grad_norm[0],
    'inner_update_norm': trace.update_norm.sum(),
  }
  return {**task, 'value': value}, metrics


def _adapt(s, params, support, key):
  task = _written(s, params, support)
  return _refined(s, params, support, task, key)[0]


def _predict(s, params, task, x):
  embed = lambda weights, x: writing.embed(s.writer, weights, x)
  features, _ = label_free.through(embed, task['weights'], task['value'], x)
  return writing.logits(_base(params), features, task['head'])


def _auxiliary(s, params, support, task, key):
  """ELBO and SSL at v_0: what gives their networks a meaning."""
  view = _view(s, params, support, task['weights'], task['head'])
  terms = label_free.make_losses(s.inner, params['inner'], view, key)
  values = terms(task['value'])
  return values.get('elbo', 0.0) + values.get('ssl', 0.0)


def _loss(s, params, episode, key):
  x, y = episode.query.x, episode.query.y
  task = _written(s, params, episode.support)
  logits = _predict(s, params, task, x)
  unadapted = core.cross_entropy(logits, y)
  metrics = {'accuracy_unadapted': core.accuracy(logits, y)}
  if not s.inner.steps:
    return unadapted, {'accuracy': metrics['accuracy_unadapted']}
  task_k, trace = _refined(s, params, episode.support, task, key)
  logits = _predict(s, params, task_k, x)
  adapted = core.cross_entropy(logits, y)
  metrics = {**metrics, **trace, 'accuracy': core.accuracy(logits, y)}
  metrics['gain_step'] = metrics['accuracy'] - metrics['accuracy_unadapted']
  for name, weight in params['inner']['weights'].items():
    metrics[f'weight_{name}'] = weight
  if s.phase == 'inner':
    value = adapted / (jax.lax.stop_gradient(unadapted) + RELATIVE)
  else:
    value = s.unadapted_weight * unadapted
    value += (1 - s.unadapted_weight) * adapted
  if s.auxiliary_weight:
    extra = _auxiliary(s, params, episode.support, task, key)
    metrics['auxiliary'] = extra
    value += s.auxiliary_weight * extra
  return value, metrics


def _evaluate(s, params, episode, key):
  x, y = episode.query.x, episode.query.y
  support = episode.support
  task = _written(s, params, support)
  before = core.classification_metrics(_predict(s, params, task, x), y)
  visuals = {'image/filters': writing.filters(task['weights'])}
  if not s.inner.steps:
    return {**before, **visuals}
  task_k, trace = _refined(s, params, support, task, key)
  metrics = core.classification_metrics(_predict(s, params, task_k, x), y)
  # The placebo of systems/udl.md (d.6): the same steps on noise images.
  rows = _view(s, params, support, task['weights'], task['head']).x
  noise = augment.noise_images(jax.random.fold_in(key, 1), rows.shape)
  blind = support._replace(context={**(support.context or {}), 'inner': noise})
  placebo = _refined(s, params, blind, task, key)[0]
  placebo = core.accuracy(_predict(s, params, placebo, x), y)
  for name, rate in params['inner']['rates'].items():
    flat = [leaf.ravel() for leaf in jax.tree.leaves(rate)]
    visuals[f'histogram/rates_{name}'] = jnp.concatenate(flat)
  if 'transform' in task_k['value']:
    seen = canonical.apply(task_k['value']['transform'], x)
    visuals['image/canonicalised'] = jnp.stack([x, seen])
  return {
    **metrics,
    **trace,
    **visuals,
    'accuracy_unadapted': before['accuracy'],
    'nll_unadapted': before['nll'],
    'accuracy_placebo': placebo,
    'gain_step': metrics['accuracy'] - before['accuracy'],
    'gain_data': metrics['accuracy'] - placebo,
  }
