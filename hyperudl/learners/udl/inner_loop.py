"""One episode of `udl` without its labels: written, seen, refined, answered."""

import jax
import jax.numpy as jnp

from hyperudl.learners.udl import cluster_setting
from hyperudl.learners.udl import fast_weights
from hyperudl.learners.udl import hypernetwork
from hyperudl.learners.udl import inner_losses
from hyperudl.learners.udl import steps as stepping
from hyperudl.nets import vae as vae_net
from hyperudl.ops import clustering
from hyperudl.ops import losses


def moves(s):
  """Whether anything happens without labels."""
  return bool(s.inner.steps or s.cluster or s.start != 'identity')


def base_of(params):
  """Parameters of `writing.init`, wherever the phase has them."""
  return params['frozen'].get('base', params)


def start_of(s, params, head):
  """v_0; `head` f32[N, D] gives shapes."""
  vae = params['frozen']['vae']['net']
  return fast_weights.identity(s.inner.adapt, base_of(params), vae, head)


def written(s, params, support):
  """The task before any inner step.

  'weights' and 'head' answer queries; 'seen' is what the weights make of the
  support, for all who need it (`replaced` drops it), and 'reference' are the
  images by which others are normalised. In place of the last two `settled` has
  'statistics', with norm='domain'.
  """
  weights, head, seen = hypernetwork.write(
    s.writer, base_of(params), params['frozen']['vae'], support
  )
  if s.setting == 'clusters':
    head = cluster_setting.start(seen.features, s.writer.way)
  task = {'weights': weights, 'head': head, 'seen': _own(seen, support)}
  return {**task, **_reference(s, support)}


def _own(seen, support):
  """`writing.Seen`, without statistics where others' normalise queries."""
  others = 'cond' in (support.context or {})
  return seen._replace(statistics=None) if others else seen


def replaced(task, **network):
  """The task with other 'weights'; what the old ones saw is gone."""
  task = {**task, **network}
  task.pop('seen', None)
  return task


def _reference(s, support):
  """What `predict` normalises queries by, if it is not they themselves."""
  if s.writer.cnn.norm != 'domain':
    return {}
  return {'reference': hypernetwork.reference_of(support)}


def _network(s, params, support, task, value):
  """(CNN weights, head) of the episode under v."""
  weights, head = task['weights'], task['head']
  if fast_weights.rewrites(s.inner.adapt):
    base = dict(base_of(params))
    base['generator'] = fast_weights.add(base['generator'], value.get('hyper'))
    weights, head, _ = hypernetwork.write(
      s.writer,
      base,
      _vae(params, value),
      fast_weights.see_unlabelled(value, support),
      value.get('tokens'),
    )
    # Clusters keep the names that they have, so their centres stay.
    head = task['head'] if s.setting == 'clusters' else head
  return fast_weights.network(value, weights, head)


def _vae(params, value):
  vae = params['frozen']['vae']
  net = dict(vae['net'])
  net['posterior'] = fast_weights.add(net['posterior'], value.get('encoder'))
  return {**vae, 'net': net}


def view_of(s, params, support, task):
  """What the inner loop sees: the -1 rows, or the images set in their place.

  Without any -1 row it works on the support images themselves.
  """
  context = support.context or {}
  without_label = (support.y < 0).astype(jnp.float32)
  x, unlabelled = support.x, without_label
  mask = jnp.where(unlabelled.any(), unlabelled, 1.0)
  # As `writing.write` has it, so that XLA merges what both make of it.
  labelled = own = (support.y >= 0).astype(jnp.float32)
  if 'inner' in context:
    x = context['inner']
    mask = unlabelled = jnp.ones(x.shape[0])
    own = jnp.zeros(x.shape[0])
  vae = params['frozen']['vae']
  moments = vae['moments']
  return inner_losses.View(
    start=start_of(s, params, task['head']),
    write=lambda value: _network(s, params, support, task, value),
    embed=lambda weights, x: hypernetwork.embed(s.writer, weights, x, own),
    embed_support=lambda weights: hypernetwork.embed(
      s.writer, weights, support.x, labelled
    ),
    classify=lambda features, head: hypernetwork.logits(
      base_of(params), features, head
    ),
    reconstruct=lambda value, x: hypernetwork.reconstruct(
      s.writer, _vae(params, value), x
    ),
    moments=vae_net.read_moments(moments),
    population=(moments['latent_mean'], moments['latent_log_variance']),
    support=support.x,
    labelled=labelled,
    x=x,
    mask=mask,
    unlabelled=unlabelled,
  )


def refined(s, params, support, task, key, view=None):
  """(task after K steps and clustering, metrics, tasks after each step).

  The last is a list of K functions () -> task, without clustering. `view` is
  what the loop sees, by default that of the support. Tasks are as from
  `written`; where the loop has seen other images they have no 'seen'.
  """
  view = view or view_of(s, params, support, task)
  if not moves(s) or not view.x.shape[0]:
    return task, {}, []
  inner = params['inner']
  kept = {k: task[k] for k in ('reference',) if k in task}
  opening = stepping.gates(s.inner, inner, view, *_first(view, support, task))
  value = stepping.opening_value(s.start, s.inner, inner, view, key)
  metrics, tasks = {'gate': opening[0]}, []
  if s.inner.steps:
    value, trace = stepping.refine(s.inner, inner, view, value, opening[0], key)
    at = lambda k: jax.tree.map(lambda leaf: leaf[k], trace.values)
    tasks = [
      lambda k=k: task_at(view, at(k), kept) for k in range(s.inner.steps)
    ]
    metrics.update(
      inner_loss_first=trace.loss[0],
      inner_loss_last=trace.loss[-1],
      inner_grad_norm=trace.grad_norm[0],
      inner_update_norm=trace.update_norm.sum(),
    )
  task = task_at(view, value, kept)
  if _as_is(view, support):
    seen = hypernetwork.look(
      s.writer, task['weights'], support.x, view.labelled
    )
    features, task['seen'] = seen.features, _own(seen, support)
  else:
    features = view.embed(task['weights'], fast_weights.see(task, view.x))
  if s.cluster:
    metrics['gate_cluster'], metrics['gate_scale'] = opening[1], opening[2]
    tau = jnp.exp(base_of(params)['log_scale'])
    task['head'] = clustered(
      s,
      view,
      task['head'],
      features,
      scale=tau * opening[2] * jnp.exp(inner['cluster']['log_scale']),
      mass=opening[1] * jnp.exp(inner['cluster']['log_mass']),
      iterations=s.cluster,
    )
  return task, metrics, tasks


def task_at(view, value, kept):
  """What `predict` needs, under v.

  Args:
    view: `label_free.View` of the episode.
    value: v.
    kept: entries of the task that v does not change.
  """
  weights, head = view.write(value)
  task = {**kept, 'weights': weights, 'head': head}
  if 'transform' in value:
    task['transform'] = value['transform']
  return task


def _as_is(view, support):
  """Whether the loop looks at the rows of the support, and as they are.

  What several parts need of them is then passed on, not computed by each: XLA
  merges equal passes, but not their gradients.
  """
  own = 'inner' not in (support.context or {}) and view.x is support.x
  return own and 'transform' not in view.start


def _first(view, support, task):
  """What is seen under v_0: (`label_free.Look`, features of the support)."""
  if not _as_is(view, support) or 'seen' not in task:
    look = inner_losses.look(view, view.start)
    return look, view.embed_support(look.weights)
  features = task['seen'].features
  look = inner_losses.Look(task['weights'], task['head'], view.x, features)
  return look, features


def clustered(s, view, head, features, *, scale, mass, iterations):
  """The head f32[N, D] after soft k-means on the images of the inner loop.

  Args:
    s: `Settings`.
    view: `label_free.View`.
    head: f32[N, D], prototypes.
    features: f32[n, D], of the images of `view`.
    scale, mass, iterations: see `clustering.refine_prototypes`.
  """
  return clustering.refine_prototypes(
    head,
    features,
    view.unlabelled,
    prior=jnp.maximum(jnp.sum(view.labelled) / s.writer.way, 1.0),
    mass=mass,
    scale=scale,
    iterations=iterations,
  )


def predict(s, params, task, x):
  """Logits f32[n, N] of images by the network of the episode."""
  return hypernetwork.logits(
    base_of(params), features_of(s, task, x), task['head']
  )


def features_of(s, task, x):
  """Features f32[n, D] of images that are in no support."""
  known = settled(s, task).get('statistics')
  return hypernetwork.embed(
    s.writer, task['weights'], fast_weights.see(task, x), known=known
  )


def settled(s, task):
  """The task with statistics in place of the images that they are from.

  For a task whose weights stay as they are: queries are then answered without
  a pass of those images.
  """
  task = dict(task)
  seen, reference = task.pop('seen', None), task.pop('reference', None)
  if seen is not None and seen.statistics is not None:
    task['statistics'] = seen.statistics
  elif reference is not None:
    moved = fast_weights.see(task, reference.x)
    labelled = reference.labelled[:, None, None, None]
    x = jnp.where(labelled > 0, reference.x, moved)
    task['statistics'] = hypernetwork.statistics(
      s.writer, task['weights'], reference._replace(x=x)
    )
  return task


def visible(s, support):
  """The support with the labels that the setting allows."""
  return (
    cluster_setting.unnamed(support) if s.setting == 'clusters' else support
  )


def answer(s, params, task, episode):
  """Query logits f32[m, N]; clusters are named by the support's classes."""
  logits = predict(s, params, task, episode.query.x)
  if s.setting == 'clusters':
    seen = predict(s, params, task, episode.support.x)
    logits = cluster_setting.name(seen, logits, episode, s.writer.way)
  return logits


def scores(s, params, task, episode):
  """Metrics f32[] of the query predictions, as the setting counts them."""
  logits = predict(s, params, task, episode.query.x)
  if s.setting == 'classes':
    return losses.classification_metrics(logits, episode.query.y)
  seen = predict(s, params, task, episode.support.x)
  return cluster_setting.scores(seen, logits, episode, s.writer.way)


def auxiliary(s, params, support, task, key):
  """ELBO and SSL at v_0: what gives networks of their own a meaning."""
  view = view_of(s, params, support, task)
  terms = inner_losses.make_losses(s.inner, params['inner'], view, key)
  values = terms(view.start, _first(view, support, task)[0])
  without = ('critic', 'entropy', 'certainty')
  return sum(v for name, v in values.items() if name not in without)


def outer_loss(s, params, logits, steps, episode, step):
  """CE at v_K; in the beginning with that after the other steps.

  Args:
    s: `Settings`.
    params: of the learner.
    logits: f32[m, N] at v_K.
    steps: from `refined`.
    episode: whose queries are asked.
    step: i32[], outer step.
  """
  y = episode.query.y
  last = losses.cross_entropy(logits, y)
  if not s.multi_step or not steps[:-1]:
    return last
  share = jnp.maximum(0.0, 1 - step / s.multi_step)
  earlier = [
    losses.cross_entropy(answer(s, params, after(), episode), y)
    for after in steps[:-1]
  ]
  mean = (sum(earlier) + last) / len(steps)
  return share * mean + (1 - share) * last
