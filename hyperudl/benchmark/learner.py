"""Builds benchmark rows of one configuration: from drawing to predictions."""

from collections.abc import Sequence
from functools import partial

import jax

from hyperudl.benchmark import flops
from hyperudl.benchmark import hypertransformer_parts
from hyperudl.benchmark import timing
from hyperudl.core.config import ConfigDict
from hyperudl.data import episodes
from hyperudl.training import episode_batching
from hyperudl.training import input_pipeline
from hyperudl.training import setup
from hyperudl.training import train_step


def rows(
  config: ConfigDict, batches: Sequence[int], calls: Sequence[int] = (1,)
) -> list[timing.Row]:
  """Return the rows of a configuration; with several devices only updates.

  Args:
    config: of a run.
    batches: numbers of episodes per update.
    calls: numbers of updates per dispatch.

  Raises:
    core.BadInput: for a config, or a batch size, that cannot run.
  """
  for batch in batches:
    episode_batching.choose(config.strategy, batch, config.chunk)
  prepared = setup.prepare(config)
  episode = prepared.draw(episodes.train_keys(config.seed, 0, 1))
  episode = jax.tree.map(lambda leaf: leaf[0], episode)
  params = train_step.init_state(
    prepared.learner, prepared.optimizer, jax.random.key(0), episode
  ).params
  training = setup.encode_once(config, prepared, params)
  is_single = jax.device_count() == 1
  measured = []
  for batch in batches:
    keys = episodes.train_keys(config.seed, 0, batch)
    if is_single:
      draw = partial(training.draw, keys)
      measured.append(timing.Row(f'draw {batch}', batch, draw))
    for count in calls:
      measured.append(_update(config, training, episode, batch, count))
  if is_single:
    measured += _evaluation(config, prepared, params, episode)
    if config.learner.name == 'hypertransformer':
      measured += hypertransformer_parts.rows(config, prepared.learner, episode)
  name, rules = config.learner.name, config.episode
  sizes = f'{rules.way}-way {rules.shot}-shot'
  about = {
    'config': f'{name} on {config.data.dataset}, {sizes}',
    'devices': jax.device_count(),
    'processes': jax.process_count(),
  }
  return [row._replace(about=about) for row in measured]


def _update(config, prepared, episode, batch, count):
  """Return the row of `count` updates in one dispatch, including drawing."""
  batching = episode_batching.choose(config.strategy, batch, config.chunk)
  mesh = batching.mesh
  step = train_step.make_train_step(
    prepared.learner,
    prepared.optimizer,
    batching,
    several=count > 1,
    precision=config.matmul_precision,
  )
  state = train_step.init_state(
    prepared.learner, prepared.optimizer, jax.random.key(0), episode
  )
  state = train_step.place(state, mesh)
  config = config.copy_and_resolve_references()
  lengths = ('steps', 'steps_per_call', 'log_steps', 'checkpoint_steps')
  with config.unlocked():
    config.update({'batch': batch, **dict.fromkeys(lengths, count)})

  def inputs():
    return next(input_pipeline.feed(config, prepared.draw, mesh, 0))[1:]

  def update():
    nonlocal state  # it is donated, so the next call needs the new one
    state, metrics = program(state, *inputs())
    return metrics

  work = flops.count(step, state, *inputs())
  program = step.lower(state, *inputs()).compile()
  memory = getattr(program.memory_analysis(), 'temp_size_in_bytes', 0)
  name = f'update {batch}' + (f' x {count}' if count > 1 else '')
  return timing.Row(name, batch * count, update, work, memory)


def _evaluation(config, prepared, params, episode):
  """Return rows of an evaluation batch and of predictions on one episode."""
  learner, draw, size = prepared.learner, prepared.draw, config.eval.batch
  precision = config.matmul_precision
  keys = episodes.eval_keys('test', 0, size)
  evaluate = train_step.make_eval_step(learner, precision=precision)

  def predict(params, episode, key):
    task = learner.adapt(params, episode.support, key, train=False)
    query = episode.query
    return learner.predict(params, task, query.x, query.context)

  predict = jax.jit(train_step.at_precision(predict, precision))
  return [
    timing.Row(
      f'evaluate {size}',
      size,
      lambda: evaluate(params, draw(keys), keys),
      flops.count(evaluate, params, draw(keys), keys),
    ),
    timing.Row(
      'answer 1',
      1,
      partial(predict, params, episode, keys[0]),
      flops.count(predict, params, episode, keys[0]),
    ),
  ]
