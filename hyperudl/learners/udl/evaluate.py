"""What an evaluation of `udl` measures of an episode."""

import jax
import jax.numpy as jnp
import optax

from hyperudl.data.episodes import augment
from hyperudl.learners.udl import cluster_setting
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_loop
from hyperudl.learners.udl import unsupervised
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

KMEANS = (0.5, 1.0, 2.0)  # scales of the unlearned soft k-means, in tau
KMEANS_STEPS = 3


def measure(s, params, episode, key):
  """Metrics of one episode: before and after, placebo, k-means, pictures.

  Args:
    s: `udl_settings.Settings`.
    params: of the learner.
    episode: one episode.
    key: PRNG key.
  """
  x, y = episode.query.x, episode.query.y
  support = inner_loop.visible(s, episode.support)
  score = lambda task: inner_loop.scores(s, params, task, episode)
  task = inner_loop.written(s, params, support)
  before = score(task)
  decoded = hypernetwork.reconstruct(s.writer, params['frozen']['vae'], x)[
    'image'
  ]
  visuals = {
    'image/filters': hypernetwork.filters(task['weights']),
    'image/reconstructed': jnp.stack([x, decoded]),
  }
  visuals.update(_baselines(s, params, episode, support, task))
  visuals.update(_extras(s, params, episode, key))
  if not inner_loop.moves(s):
    return {**before, **visuals}
  task_k, trace, steps = inner_loop.refined(s, params, support, task, key)
  metrics = score(task_k)
  # The placebo: the same steps on noise images.
  view = inner_loop.view_of(s, params, support, task)
  noise = augment.noise_images(jax.random.fold_in(key, 1), view.x.shape)
  blind = view._replace(x=noise)
  placebo = inner_loop.refined(s, params, support, task, key, blind)[0]
  placebo = losses.accuracy(inner_loop.answer(s, params, placebo, episode), y)
  for name, rate in params['inner'].get('rates', {}).items():
    flat = [leaf.ravel() for leaf in jax.tree.leaves(rate)]
    visuals[f'histogram/rates_{name}'] = jnp.concatenate(flat)
  for k, after in enumerate(steps, 1):
    logits = inner_loop.answer(s, params, after(), episode)
    metrics[f'accuracy_step_{k}'] = losses.accuracy(logits, y)
  if 'transform' in task_k:
    seen = fast_weights.see(task_k, x)
    visuals['image/canonicalised'] = jnp.stack([x, seen])
  own = {f'{k}_unadapted': v for k, v in before.items() if v.ndim == 0}
  return {
    **metrics,
    **trace,
    **visuals,
    **own,
    'accuracy_placebo': placebo,
    'gain_step': metrics['accuracy'] - before['accuracy'],
    'gain_data': metrics['accuracy'] - placebo,
  }


def _extras(s, params, episode, key):
  """Accuracies that are measured on request, see `udl_settings.Extras`."""
  support, extras = episode.support, s.extras
  given = (episode.extra or {}).get('unlabelled_y', support.y[:0])
  found = {}
  alone = given.size and 'inner' not in (support.context or {})
  if extras.single and alone and inner_loop.moves(s):
    found['accuracy_single'] = _single(s, params, episode, key)
  answers = {}
  if extras.ensemble:
    answers['ensemble'] = _ensemble(s, params, episode, key)
  if extras.finetune_steps:
    answers['finetuned'] = _finetuned(s, params, episode)
  for name, logits in answers.items():
    found[f'accuracy_{name}'] = losses.accuracy(logits, episode.query.y)
    found[f'nll_{name}'] = losses.cross_entropy(logits, episode.query.y)
  return found


def _single(s, params, episode, key):
  """Accuracy where copies of each query are all that it adapts to."""
  support, query = episode.support, episode.query
  unlabelled = (support.y < 0)[:, None, None, None]

  def answer(inputs):
    x, key = inputs
    keys = jax.random.split(key, support.y.shape[0])
    copy = lambda key: unsupervised.views(key, x[None])[0][0]
    copies = jnp.where(unlabelled, jax.vmap(copy)(keys), support.x)
    alone = support._replace(x=copies)
    task = inner_loop.written(s, params, alone)
    task = inner_loop.refined(s, params, alone, task, key)[0]
    return inner_loop.predict(s, params, task, x[None])[0]

  keys = jax.random.split(key, query.y.shape[0])
  return losses.accuracy(jax.lax.map(answer, (query.x, keys)), query.y)


def bootstrapped(support, key):
  """Labelled rows drawn anew within their class, each moved by some pixels.

  Args:
    support: Examples; rows with y = -1 stay as they are.
    key: PRNG key.
  """
  x, y = support.x, support.y
  row_key, move_key = jax.random.split(key)
  same = (y[:, None] == y[None, :]).astype(x.dtype)
  rows = jax.random.categorical(row_key, jnp.log(same))
  copy = lambda key, row: unsupervised.views(key, row[None])[0][0]
  moved = jax.vmap(copy)(jax.random.split(move_key, y.shape[0]), x[rows])
  return support._replace(x=jnp.where((y < 0)[:, None, None, None], x, moved))


def _ensemble(s, params, episode, key):
  """Log of the mean probabilities f32[m, N] over bootstrapped supports."""

  def answer(key):
    support = bootstrapped(episode.support, key)
    task = inner_loop.written(s, params, support)
    task = inner_loop.refined(s, params, support, task, key)[0]
    logits = inner_loop.predict(s, params, task, episode.query.x)
    return jax.nn.log_softmax(logits)

  members = jax.lax.map(answer, jax.random.split(key, s.extras.ensemble))
  return jax.nn.logsumexp(members, axis=0) - jnp.log(s.extras.ensemble)


def _finetuned(s, params, episode):
  """Logits f32[m, N] after Adam steps of the network on the labelled rows."""
  support = episode.support
  task = inner_loop.written(s, params, support)
  labelled = (support.y >= 0).astype(jnp.float32)
  base, extras = inner_loop.base_of(params), s.extras

  def loss(network, step):
    del step
    features = hypernetwork.embed(
      s.writer, network['weights'], support.x, labelled
    )
    logits = hypernetwork.logits(base, features, network['head'])
    return losses.cross_entropy(logits, support.y)

  network = {name: task[name] for name in ('weights', 'head')}
  optimizer = optax.adam(extras.finetune_rate)
  network, _ = gradient_descent.optimise(
    loss, network, optimizer, extras.finetune_steps
  )
  task = inner_loop.replaced(task, **network)
  return inner_loop.predict(s, params, task, episode.query.x)


def _baselines(s, params, episode, support, task):
  """The lines to beat: k-means that needs no learning beyond the network."""
  if s.setting == 'classes':
    x, y = episode.query.x, episode.query.y
    return _kmeans(s, params, support, task, x, y)
  vae = params['frozen']['vae']
  features = lambda x: inner_loop.features_of(s, task, x)
  encoders = {
    'posterior': lambda x: hypernetwork.encode(s.writer, vae, x)[0],
    'features': lambda x: losses.unit(features(x)),
  }
  return cluster_setting.baselines(episode, s.writer.way, encoders)


def _kmeans(s, params, support, task, x, y):
  """Accuracies of soft k-means on the unadapted network, nothing learned."""
  view = inner_loop.view_of(s, params, support, task)
  if not view.x.shape[0]:
    return {}
  tau = jnp.exp(inner_loop.base_of(params)['log_scale'])
  features = view.embed(task['weights'], view.x)
  found = {}
  for scale in KMEANS:
    head = inner_loop.clustered(
      s,
      view,
      task['head'],
      features,
      scale=scale * tau,
      mass=1.0,
      iterations=KMEANS_STEPS,
    )
    logits = inner_loop.predict(s, params, {**task, 'head': head}, x)
    found[f'accuracy_kmeans_{scale:g}'] = losses.accuracy(logits, y)
  return found
