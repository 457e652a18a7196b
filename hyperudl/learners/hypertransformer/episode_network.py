"""A CNN written layer by layer for one task: parameters and pure functions.

Of `learners/hypertransformer.py` and `learners/continual.py`; `s` are the
`writer_settings.Settings` that `hypertransformer.settings_of` has checked.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.learners.hypertransformer import generator_losses
from hyperudl.learners.hypertransformer import weight_generator
from hyperudl.ops import losses


def init(s, key, episode):
  """Parameters of the learner."""
  keys = jax.random.split(key, 4)
  x, y = pixels(episode.support.x), episode.support.y
  cnn = weight_generator.make_net(s).init(keys[0], x)['params']
  learned, _ = weight_generator.split(s, cnn)
  params = init_shared(s, keys[1], x)
  support_norms = weight_generator.norms(learned) if s.separate_norm else None
  variables = weight_generator.Writer(s).init(
    keys[2],
    learned,
    x,
    y,
    shared_features(s, params, x),
    train=False,
    support_norms=support_norms,
  )
  params['writer'] = variables.get('params', {})
  if learned:
    params['net'] = learned
  if s.separate_norm:
    params['support_norms'] = support_norms
  if s.head == 'prototypes' and s.logits_scale:
    params['log_scale'] = jnp.log(jnp.float32(s.logits_scale))
  if s.warmup_steps:
    heads = jax.random.split(keys[3], s.depth - 1)
    params['heads'] = [
      generator_losses.init_dense(k, s.channels, s.way) for k in heads
    ]
  return params


def init_shared(s, key, x):
  """{'shared': features and, where it is trained, head}, or {}."""
  if s.shared == 'none':
    return {}
  keys = jax.random.split(key)
  features = weight_generator.shared_features(s).init(keys[0], x)['params']
  params = {'features': features}
  if s.shared_head_weight or s.stage == 'shared':
    width = s.shared_dim
    params['head'] = generator_losses.init_dense(
      keys[1], width, s.shared_head_classes
    )
  return {'shared': params}


def shared_features(s, params, x):
  """Image features f32[n, Fs]; without any, Fs = 0."""
  if s.shared == 'none':
    return jnp.zeros((x.shape[0], 0))
  own = {'params': params['shared']['features']}
  return weight_generator.shared_features(s).apply(own, x)


def write(
  s, params, support, key, train, previous=None, removed=None, mix=None
):
  """Parameters of the CNN for one support.

  Args:
    s: `Settings`.
    params: of the learner.
    support: `core.Examples`.
    key: PRNG key of dropout and removal.
    train: whether these act.
    previous: CNN of an earlier task, or None.
    removed: f32[S], rows that attention does not see, or None.
    mix: f32[2], factors of `previous` and of what is written in their sum, or
      None for what is written.
  """
  x = pixels(support.x)
  return weight_generator.Writer(s).apply(
    {'params': params['writer']},
    params.get('net', {}),
    x,
    support.y,
    shared_features(s, params, x),
    train=train,
    support_norms=params.get('support_norms'),
    previous=previous,
    removed=removed,
    mix=mix,
    rngs={'dropout': key},
  )


def embed(s, cnn, x):
  """What the CNN returns of images f32[n, H, W, C]: logits or features."""
  return weight_generator.make_net(s).apply({'params': cnn}, pixels(x))


def task_of(s, params, support, key, train):
  """The CNN of one task, with prototypes where it has no logits.

  Where the context of the support holds 'emit_from' (Examples with a leading
  axis), the mean of the CNNs written for those supports, with the own
  prototypes: the control of whether what is written matters to the task.
  """
  others = (support.context or {}).get('emit_from')
  if others is None:
    cnn = write(s, params, support, key, train)
  elif s.head == 'written':
    raise core.BadInput(
      'episode.emit_from: logits written for other classes say nothing of '
      "these; it needs learner.head='prototypes'"
    )
  else:
    every = jax.lax.map(lambda one: write(s, params, one, key, train), others)
    cnn = jax.tree.map(lambda leaf: leaf.mean(axis=0), every)
  if s.head == 'written':
    return cnn
  features = embed(s, cnn, support.x)
  prototypes = losses.class_means(features, support.y, s.way)
  scale = jnp.exp(params['log_scale']) if s.logits_scale else 1.0
  return {'cnn': cnn, 'prototypes': prototypes, 'scale': scale}


def pixels(x):
  """Images in [0, 1] as the networks take them, in [-1, 1]."""
  return 2.0 * x - 1.0
