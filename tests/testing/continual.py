"""A tiny learner of task sequences in several settings, compiled once each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl import learners
from hyperudl.learners import hypertransformer

WAY, TASKS = 2, 3
TINY = {
  'channels': 3,
  'depth': 2,
  'features': 3,
  'shared': '2-layer',
  'shared_dim': 3,
  'embedding': 4,
  'layers': 1,
}


def episode_of(tasks=TASKS, seed=0, shot=2):
  """Return an episode f32[tasks, rows, 10, 10, 1] of random images."""
  rng = np.random.default_rng(seed)
  draw = lambda rows: jnp.asarray(
    rng.uniform(size=(tasks, rows, 10, 10, 1)), jnp.float32
  )
  labels = lambda each: jnp.tile(jnp.repeat(jnp.arange(WAY), each), (tasks, 1))
  return core.Episode(
    core.Examples(draw(WAY * shot), labels(shot)),
    core.Examples(draw(2 * WAY), labels(2)),
  )


def make(tasks=TASKS, **settings):
  """Return the tiny learner with other settings."""
  settings = {**TINY, 'tasks': tasks, **settings}
  return learners.make('continual', WAY, settings)


def network(**settings):
  """The config of the HyperTransformer behind the learner."""
  return hypertransformer.Config(
    way=WAY,
    **{**TINY, 'norm': 'layer', 'head': 'prototypes', 'logits_scale': 0.1},
    **settings,
  )


@functools.cache
def built(**settings):
  """(random parameters, jitted (params, episode) -> results of the learner)."""
  learner = make(**settings)
  episode = episode_of()
  if settings.get('scenario') == 'batches':
    episode = single(episode)
  shapes = jax.eval_shape(learner.init, jax.random.key(0), episode)
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
    shapes,
  )
  params['log_scale'] = jnp.float32(-3.0)

  @jax.jit
  def run(params, episode):
    key = jax.random.key(1)
    task = learner.adapt(params, episode.support, key, train=False)
    logits = learner.predict(params, task, episode.query.x, None)
    value, metrics = learner.loss(params, episode, key, 0)
    return task, logits, value, metrics, learner.evaluate(params, episode, key)

  return params, run


def single(episode):
  """The support of a sequence as that of one task, class by class."""
  support = episode.support
  order = lambda leaf: jnp.concatenate(
    [leaf[:, c * 2 : c * 2 + 2].reshape(-1, *leaf.shape[2:]) for c in (0, 1)]
  )
  query = jax.tree.map(lambda leaf: leaf[0], episode.query)
  return core.Episode(core.Examples(order(support.x), order(support.y)), query)
