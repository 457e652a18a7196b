"""Networks with language whose weights come from a latent vector.

The parts of the learner `hypernet`, which the learners that guide its latent
share. An inner value is {'z': f32[Z]}, {'weights': pytree} or, for the kind
'film', {'film': f32[2, H], 'weights': pytree}; a task is {'value', 'words'}.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperudl.learners._language import dual_encoder
from hyperudl.nets import mlp
from hyperudl.nets import target_nets
from hyperudl.ops import gradient_descent
from hyperudl.ops import losses

KINDS = (
  'autodecoder',
  'maml',
  'multitask',
  'conditional',
  'weights',
  'film',
)
OPTIMIZERS = ('sgd', 'adam')
META_GRADS = ('full', 'first_order')


class Settings(NamedTuple):
  """See `make`."""

  kind: str
  towers: dual_encoder.Towers
  target: target_nets.Target
  latent: int
  decoder: tuple
  steps: int
  rate: float
  optimizer: str
  meta_grad: str
  penalty: float


def check(s):
  """Raises ValueError for an unknown choice or a number out of range."""
  dual_encoder.check(s.towers)
  target_nets.check(s.target)
  for name, value, choices in (
    ('kind', s.kind, KINDS),
    ('inner_optimizer', s.optimizer, OPTIMIZERS),
    ('meta_grad', s.meta_grad, META_GRADS),
  ):
    if value not in choices:
      raise ValueError(f'{name} must be one of {choices}, not {value!r}')
  if min(s.latent, *s.decoder) < 1 or s.steps < 0 or s.rate <= 0:
    raise ValueError(
      'latent and decoder must be >= 1, inner_steps >= 0 and inner_rate > 0, '
      f'not {s.latent}, {s.decoder}, {s.steps} and {s.rate}'
    )
  if s.kind == 'film' and s.target.kind != 'adapter':
    raise ValueError(
      f"kind='film' scales the adapter's hidden layer: target='adapter', not "
      f'{s.target.kind!r}'
    )


def check_latents(s):
  """Raises ValueError where tasks do not differ in their latents."""
  if s.kind in ('weights', 'film', 'multitask'):
    raise ValueError(
      f'kind={s.kind!r} has no latent for each task: use '
      "'autodecoder', 'maml' or 'conditional'"
    )
  if s.kind == 'maml' and not s.steps:
    raise ValueError("kind='maml' with inner_steps=0 adapts to no task")


def init(s, key, episode):
  """Parameters; `codes` f32[tasks, Z] for the kind 'autodecoder'."""
  keys = jax.random.split(key, 5)
  support = episode.support
  frozen = {'contrastive': dual_encoder.init(s.towers, keys[0], support)}
  weights = target_nets.init(s.target, keys[1], support.x)
  params = {'frozen': frozen}
  if s.kind in ('weights', 'film'):
    params['weights'] = weights
  else:
    params['decoder'] = mlp.init(keys[2], weights, s.latent, s.decoder)
    params['start'] = 0.1 * jax.random.normal(keys[3], (s.latent,))
  if s.kind == 'autodecoder':
    shape = (episode.extra['task'].shape[0], s.latent)
    params['codes'] = 0.1 * jax.random.normal(keys[4], shape)
  if s.kind in ('conditional', 'film'):
    out = s.latent if s.kind == 'conditional' else 2 * s.target.hidden
    width = words_of(s, params, support.context).question.shape[0]
    params['from_question'] = mlp.init_perceptron(
      keys[4], (width, 128, out), 0.1
    )
  return params


def words_of(s, params, context):
  """`language.Words` of a task by the frozen encoder."""
  return dual_encoder.words(s.towers, params['frozen']['contrastive'], context)


def features_of(s, params, x):
  """Features f32[n, E] of images by the frozen encoder."""
  return dual_encoder.images(s.towers, params['frozen']['contrastive'], x)


def start(s, params, context):
  """The value that inner steps begin from: {'z'} or {'weights'}, {'film'}."""
  if s.kind in ('conditional', 'film'):
    question = words_of(s, params, context).question
    said = mlp.perceptron(params['from_question'], question)
  if s.kind == 'film':
    return {
      'film': said.reshape(2, s.target.hidden),
      'weights': params['weights'],
    }
  if s.kind == 'weights':
    return {'weights': params['weights']}
  if s.kind == 'conditional':
    return {'z': params['start'] + said}
  return {'z': params['start']}


def network(s, params, value):
  """(weights, film or None) of an inner value."""
  if 'z' in value:
    return mlp.decode(params['decoder'], value['z']), None
  return value['weights'], value.get('film')


def answer(s, params, value, words, x, features=None):
  """Logits f32[n, N] of images by the network of an inner value."""
  if features is None:
    features = features_of(s, params, x)
  weights, film = network(s, params, value)
  return target_nets.logits(s.target, weights, x, features, words, film)


def adapted(s, params, support, value, steps=None):
  """The task after inner steps on the support: {'value', 'words'}.

  Args:
    s: `Settings`.
    params: of the learner.
    support: Examples with the context of a task with language.
    value: from `start`, or {'z': f32[Z]}.
    steps: K, by default as in the settings.
  """
  words = words_of(s, params, support.context)
  steps = s.steps if steps is None else steps
  idle = s.kind in ('multitask', 'film')
  if steps and not idle:
    x = support.x
    features = features_of(s, params, x)

    def objective(value, step):
      del step
      logits = answer(s, params, value, words, x, features)
      return losses.cross_entropy(logits, support.y)

    value, _ = gradient_descent.optimise(
      objective,
      value,
      # The root: the derivative of sqrt at 0 is infinite.
      optax.sgd(s.rate)
      if s.optimizer == 'sgd'
      else optax.adam(s.rate, eps_root=1e-12),
      steps,
      first_order=s.meta_grad == 'first_order',
    )
  return {'value': value, 'words': words}


def adapted_on_all(s, params, episode):
  """The inner value after steps on support and queries of a training task."""
  support, query = episode.support, episode.query
  every = support._replace(
    x=jnp.concatenate([support.x, query.x]),
    y=jnp.concatenate([support.y, query.y]),
  )
  first = start(s, params, support.context)
  return adapted(s, params, every, first)['value']


def predict(s, params, task, x):
  """Logits f32[n, N] of images."""
  return answer(s, params, task['value'], task['words'], x)


def code(params, episode):
  """The code f32[Z] of a training task."""
  return episode.extra['task'] @ params['codes']
