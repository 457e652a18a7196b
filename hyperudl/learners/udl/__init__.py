"""UDL: a hypernetwork writes a CNN, and label-free gradient steps refine it.

After UDL-MetaTrainingHyperNetwork, HyperFast (arXiv:2402.14335), MT3
(arXiv:2103.16201) and HyperTransformer (arXiv:2201.04182); here:
  theta = theta_0 + s * T(support, unlabelled, q(z | images))      emission
  w_c   = mean of f_theta(x_i) over class c + s * T_c              head
  v    <- v - gate * alpha_k * g / (|g| + e),  g = d L_in / d v    K steps
  L_in  = a ELBO + b SSL + critic, on the unlabelled images
  w     = soft k-means of the unlabelled features around w, if `cluster`
  logits = tau cos(f_(theta + v)(x), w)
v: see `variables.py`; by default the scale and bias of each norm. `gate` reads
predictions and ELBO statistics of a frozen `vae`; alpha, a and b are signed and
learned, so the outer loop decides how much of each label-free step is good.

phase 'base': K = 0. 'inner': everything of 'base' is frozen
(`init_from.base`), and only what the inner loop owns is trained on
  mean CE(v_K) / (stop(CE(v_0)) + .2)
so the unadapted model is the K = 0 control by construction. 'joint' trains
all at once on w_0 CE(v_0) + (1 - w_0) CE(v_K), where CE(v_K) may at first be
the mean over all steps (multi-step loss, arXiv:1810.09502).
Expected: see docs/results/first.md and udl.md.
"""

import jax
import jax.numpy as jnp

from hyperudl import learners
from hyperudl.learners import vae as vae_learner
from hyperudl.learners.udl import config
from hyperudl.learners.udl import evaluate
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps as stepping
from hyperudl.ops import losses

RELATIVE = 0.2  # floor of the relative outer loss, nats


def make(
  way,
  *,
  phase='joint',
  setting='classes',
  adapt='film',
  inner_steps=3,
  elbo='features',
  ssl='geometry',
  critic='predictions',
  gate='predictions+elbo',
  cluster=3,
  inner_rate=0.3,
  inner_rates='learned',
  inner_weight=0.1,
  inner_norm='unit',
  meta_grad='full',
  direction='learned',
  start='identity',
  multi_step=0,
  unadapted_weight=0.25,
  auxiliary_weight=0.1,
  single=False,
  ensemble=0,
  finetune_steps=0,
  finetune_rate=1e-3,
  **network,
):
  """The `udl` learner.

  Args:
    way: N.
    phase: 'base', 'inner' or 'joint' (see the module's docstring).
    setting: 'classes', or 'clusters': without any label, see `anonymous.py`.
    adapt: v, one or several of `variables.PARTS` joined by +.
    inner_steps: K >= 0.
    elbo: 'features' (mounted on the CNN's features), 'images' (of the frozen
      vae, through 'transform' or 'encoder') or 'none'.
    ssl: 'none', or one or several of `label_free.SSL` joined by +.
    critic: 'predictions', 'predictions+elbo' or 'none'.
    gate: 'elbo', 'predictions', 'predictions+elbo' or 'none'.
    cluster: iterations of a soft k-means of the unlabelled features around
      the prototypes, after the steps; its scale, its weight of unlabelled
      images and its gate are learned.
    inner_rate: initial alpha, for 'transform' in units of `canonical.RATES`.
    inner_rates: 'learned' (with their signs), 'positive' or 'fixed'.
    inner_weight: initial weight of ELBO and SSL in the inner loss; learned
      unless inner_rates='fixed'.
    inner_norm: of inner gradients, 'unit', 'clip' or 'none'.
    meta_grad: 'full', 'first_order' (stop the outer gradient at the inner
      gradients: the critic and the weights of the losses then get no outer
      gradient) or 'none' (joint training; steps at test time alone).
    direction: of the steps: 'learned', or as placebos in an evaluation of what
      was trained with it 'flipped' or 'random' (as long as the true ones).
    start: of v: 'identity'; 'learned', the same for every episode (with
      inner_steps=0 the control that looks at no image); 'amortised', where a
      network sends it that reads the posterior moments of labelled and
      unlabelled images (with inner_steps=0 a feed-forward adaptation); or
      'chosen' by the inner loss among `stepping.POINTS` learned ones.
    multi_step: outer steps over which the weight of the steps before the last
      falls from uniform to nothing; 0 for the last step alone.
    unadapted_weight: w_0 of phase 'joint', in [0, 1].
    auxiliary_weight: weight of ELBO and SSL at v_0 in the outer loss.
    single: measure in evaluations also `accuracy_single`, where each query is
      answered after adapting to itself alone: moved, noisy copies of it take
      the place of all unlabelled images, which must not be none (after MT3).
      As slow as it sounds.
    ensemble: measure in evaluations also `accuracy_ensemble`, the mean of the
      probabilities of this many networks, each written for and adapted with a
      bootstrapped, moved copy of the support (HyperFast); 0 for none.
    finetune_steps, finetune_rate: measure also `accuracy_finetuned`: the
      unadapted network after so many Adam steps of all its weights on the
      labelled images (HyperFast); 0 steps for none.
    **network: how the CNN is written, see `writing.make_writer`.

  Raises:
    ValueError: for an unknown choice, a number out of range, or a loss and a
      variable between which there is no gradient.
  """
  options = inner_losses.Options(
    adapt,
    inner_steps,
    elbo,
    ssl,
    critic,
    gate,
    inner_rate,
    inner_rates,
    inner_weight,
    inner_norm,
    meta_grad,
    direction,
  )
  writer = hypernetwork.make_writer(way, **network)
  config.check_writer(writer, adapt)
  s = config.Settings(
    phase,
    setting,
    writer,
    options,
    cluster,
    start,
    multi_step,
    unadapted_weight,
    auxiliary_weight,
    config.Extras(single, ensemble, finetune_steps, finetune_rate),
  )
  config.check(s)
  if phase == 'base':
    s = s._replace(inner=options._replace(steps=0), cluster=0, start='identity')
  return learners.make_learner(
    lambda key, episode: _init(s, key, episode),
    lambda params, support, key, *, train: _adapt(s, params, support, key),
    lambda params, task, x, context: inner_loop.predict(s, params, task, x),
    lambda params, episode, key, step: _loss(s, params, episode, key, step),
    lambda params, episode, key: evaluate.measure(s, params, episode, key),
  )


make.__signature__ = learners.spelled_out(make, hypernetwork.make_writer)


def _init(s, key, episode):
  keys = jax.random.split(key, 3)
  support, w = episode.support, s.writer
  upstream = vae_learner.make(w.way, latent=w.latent, hidden=w.hidden)
  params = {'frozen': {'vae': upstream.init(keys[0], episode)}}
  base = hypernetwork.init(w, keys[1], support)
  if s.phase == 'inner':
    params['frozen']['base'] = base
  else:
    params.update(base)
  if inner_loop.moves(s):
    features = hypernetwork.width(w, base['cnn'], support.x)
    start = inner_loop.start_of(s, params, jnp.zeros((w.way, features)))
    inner = inner_losses.init(
      s.inner, keys[2], start, w.way, features, support.x
    )
    if s.cluster:
      zero = lambda: jnp.zeros((), jnp.float32)
      inner['cluster'] = {'log_scale': zero(), 'log_mass': zero()}
    if s.start != 'identity':
      inner['start'] = stepping.init_opening(
        s.start, keys[2], start, w.latent, s.inner.rate
      )
    params['inner'] = inner
  return params


def _adapt(s, params, support, key):
  support = inner_loop.visible(s, support)
  task = inner_loop.written(s, params, support)
  task, *_ = inner_loop.refined(s, params, support, task, key)
  return inner_loop.settled(s, task)


def _loss(s, params, episode, key, step):
  y, support = episode.query.y, inner_loop.visible(s, episode.support)
  task = inner_loop.written(s, params, support)
  logits = inner_loop.answer(s, params, task, episode)
  unadapted = losses.cross_entropy(logits, y)
  metrics = {'accuracy_unadapted': losses.accuracy(logits, y)}
  if not inner_loop.moves(s):
    return unadapted, {'accuracy': metrics['accuracy_unadapted']}
  task_k, trace, steps = inner_loop.refined(s, params, support, task, key)
  logits = inner_loop.answer(s, params, task_k, episode)
  adapted = inner_loop.outer_loss(s, params, logits, steps, episode, step)
  metrics = {**metrics, **trace, 'accuracy': losses.accuracy(logits, y)}
  metrics['gain_step'] = metrics['accuracy'] - metrics['accuracy_unadapted']
  for name, weight in params['inner'].get('weights', {}).items():
    metrics[f'weight_{name}'] = weight
  if s.phase == 'inner':
    value = adapted / (jax.lax.stop_gradient(unadapted) + RELATIVE)
  elif s.inner.meta_grad == 'none':
    value = unadapted
  else:
    value = s.unadapted_weight * unadapted
    value += (1 - s.unadapted_weight) * adapted
  if s.auxiliary_weight and s.inner.steps:
    extra = inner_loop.auxiliary(s, params, support, task, key)
    metrics['auxiliary'] = extra
    value += s.auxiliary_weight * extra
  return value, metrics
