"""Learners above `hypernet`, trained on latents of tasks that are far apart."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import learners
from hyperudl.data import episodes
from hyperudl.learners import hypernet
from hyperudl.learners._language import hypernetwork
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import train_step
from tests.testing import by_hand
from tests.testing import example
from tests.testing import tiny_sizes

WAY, TASKS = 3, 8
SIZES = {
  **tiny_sizes.HVAE,
  'latent': 6,
  'hvae_latent': 5,
  # Questions must be far apart where nothing has trained their encoder.
  'width': 36,
  'inner_width': 32,
}
SETTINGS = {
  'hyperldm': {
    'denoiser': (64, 64),
    'timesteps': 40,
    'sampler_steps': 40,
    'ema': 0.98,
  },
  'hyperclip': {'encoder': (32,), 'noise': 0.1},
  'hvae': {'hvae_hidden': (64,)},
}
NET = hypernet.Config(
  WAY, **{name: SIZES[name] for name in tiny_sizes.HYPERNET}
)


def make(name, **changes):
  """The learner `name` of the sizes that `trained` has."""
  return learners.make(name, WAY, {**SIZES, **SETTINGS[name], **changes})


def config_of(name):
  config = importlib.import_module(f'configs.{name}').get_config().unlock()
  config.episode.update({'way': WAY, 'shot': 2, 'query': 2, 'tasks': 0})
  return config


def batch_of(name, count=TASKS, train=True):
  """An episode of each task, `count` in all."""
  draw = episodes.make_draw(
    config_of(name), example.example_tasks(0), train=train
  )
  return draw(episodes.train_keys(0, 0, count), np.arange(count))


def first(batch):
  return jax.tree.map(lambda leaf: leaf[0], batch)


@functools.cache
def trained(name, steps=700, space='hnet'):
  """(learner, parameters, last metrics)."""
  learner = make(name, **({} if name == 'hvae' else {'space': space}))
  config = config_of(name)
  if name == 'hyperclip':  # one episode of all tasks
    batch = jax.tree.map(lambda leaf: leaf[None], batch_of(name))
  else:
    batch = batch_of(name, 8 * TASKS)
  config.optimizer.learning_rate = 0.01
  optimizer = optimizers.make_optimizer(config.optimizer, steps)
  state = train_step.init_state(
    learner, optimizer, jax.random.key(0), first(batch)
  )
  codes = 0.5 * jax.random.normal(jax.random.key(5), (TASKS, SIZES['latent']))
  frozen = dict(state.params['frozen'])
  frozen['hypernet'] = {**frozen['hypernet'], 'codes': codes}
  if space == 'hvae':
    upstream = trained('hvae')[1]
    frozen['hvae'] = {k: v for k, v in upstream.items() if k != 'frozen'}
    frozen |= upstream['frozen']
  state = state._replace(params={**state.params, 'frozen': frozen})
  step = train_step.make_train_step(
    learner, optimizer, episode_batching.Batching('vmap')
  )
  for t in range(steps):
    keys = episodes.train_keys(1, t, len(batch.support.y))
    state, metrics = step(state, batch, keys)
  return learner, state.params, jax.device_get(metrics)


def random_params(learner, episode, seed=0):
  """Random values in the shapes that `init` makes: nothing is zero or equal."""
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


def hypernet_of(params, **changes):
  """The frozen hypernet as a learner of its own, and its parameters."""
  learner = hypernet.make(dataclasses.replace(NET, **changes))
  frozen = params['frozen']
  encoder = {'contrastive': frozen['contrastive']}
  return learner, {**frozen['hypernet'], 'frozen': encoder}


def adapt_all(learner, params, supports):
  """The tasks of supports with a leading axis."""
  adapt = lambda support: learner.adapt(
    params, support, jax.random.key(0), train=False
  )
  return jax.jit(jax.vmap(adapt))(supports)


def logits_of(learner, params, tasks, x):
  """The logits of tasks and images with a leading axis, without context."""
  predict = lambda task, x: learner.predict(params, task, x, None)
  return np.asarray(jax.jit(jax.vmap(predict))(tasks, x))


def deviations_by_hand(params, latents):
  """f64[n, D], what the hypernet adds to its base weights."""
  layers = params['frozen']['hypernet']['decoder']['layers']
  return by_hand.silu_perceptron(layers, latents)


def supports():
  """The support of each task in an evaluation."""
  return batch_of('hyperldm', train=False).support


def codes_of(params):
  """f32[TASKS, Z], the latents of the tasks."""
  return params['frozen']['hypernet']['codes']


def flatten(weights):
  return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights)])


def weights_of(params, codes):
  """f32[n, D], the flat weights that the hypernet decodes."""
  net = hypernetwork.unfreeze(NET, params)
  decode = lambda code: flatten(net.weights_of(hypernetwork.FastWeights(code)))
  return jax.vmap(decode)(codes)


def nearest(points, candidates):
  """i32[n], the candidate f32[m, D] nearest to each point f32[n, D]."""
  distances = jnp.linalg.norm(points[:, None] - candidates[None], axis=-1)
  return distances.argmin(axis=1)
