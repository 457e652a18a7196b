"""Everything that a training needs and that can fail before a run exists."""

from collections.abc import Callable
import os
from typing import NamedTuple

from absl import logging
import jax
import optax

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.data import datasets
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.learners._language import dual_encoder
from hyperudl.storage import selection
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import runs
from hyperudl.training import train_step


class Prepared(NamedTuple):
  """What `prepare` has made of a config."""

  learner: core.Learner
  dataset: datasets.Dataset | task_set.TaskSet
  draw: Callable  # of `episodes.make_draw`
  optimizer: optax.GradientTransformation
  strategy: str
  mesh: jax.sharding.Mesh | None
  ahead: bool  # whether a thread should draw, beside the updates


def prepare(config):
  """Everything that can fail before a run exists.

  Args:
    config: a ConfigDict.

  Raises:
    core.BadInput: for a config or data set that cannot run.
  """
  config_lib.validate(config)
  learner = runs.make_learner(config)
  strategy, mesh = strategy_of(config, config.batch)
  dataset = runs.load_data(config, 'train')
  episodes.check_fits(config, dataset, 'train')
  draw = episodes.make_draw(config, dataset, train=True, others=dataset)
  optimizer = optimizers.make_optimizer(config.optimizer, config.steps)
  ahead = _ahead(config, dataset)
  return Prepared(learner, dataset, draw, optimizer, strategy, mesh, ahead)


def encoded(config, prepared, params):
  """`prepared` with episodes that a frozen encoder has been through already.

  A learner with language sees images and strings through its frozen encoder
  alone (but for the target 'convnet'), the same in every update: so this is
  done once. Where there is nothing to do, `prepared` itself is returned.

  Args:
    config: a ConfigDict.
    prepared: of `prepare`.
    params: of the learner, with its upstreams.
  """
  towers = params.get('frozen', {}).get('contrastive', {})
  settings = config.learner
  if not {'image', 'text'} & towers.keys() or settings.target == 'convnet':
    return prepared
  sizes = dual_encoder.Towers(
    settings.vocabulary,
    settings.width,
    tuple(settings.hidden),
    settings.grid,
    settings.inner_width,
  )
  encode = train_step.at_precision(
    dual_encoder.encoded, config.matmul_precision
  )
  tasks = encode(sizes, towers, prepared.dataset)
  draw = episodes.make_draw(config, tasks, train=True, others=tasks)
  ahead = _ahead(config, tasks)
  return prepared._replace(dataset=tasks, draw=draw, ahead=ahead)


def _ahead(config, dataset):
  """Whether a thread should draw: for large sets, and for several processes.

  Shares of a batch are put together on the host.
  """
  large = dataset.images.nbytes > config.data.device_mb << 20
  return large or not distributed.alone()


def strategy_of(config, batch):
  """(name, mesh) as `strategies.resolve_strategy`, for so many episodes.

  Raises:
    core.BadInput: if `config.strategy` or `config.chunk` does not suit them.
  """
  try:
    strategy, mesh = episode_batching.resolve_strategy(config.strategy, batch)
  except ValueError as error:
    raise core.BadInput(f'config: {error}') from error
  share = batch // (mesh.size if mesh else 1)
  if config.chunk and share % config.chunk:
    raise core.BadInput(
      f'config.chunk = {config.chunk} does not divide the {share} episodes of '
      f'a device (config.batch = {batch}): choose a divisor or 0'
    )
  return strategy, mesh


def initial_state(config, prepared, graft=True):
  """A new state, with upstream networks grafted in if `graft`.

  Raises:
    core.BadInput: if the learner cannot take such episodes, or an upstream
      does not fit.
  """
  keys = episodes.train_keys(config.seed, 0, 1)
  episode = jax.tree.map(lambda leaf: leaf[0], prepared.draw(keys))
  learner = prepared.learner
  init_key = jax.random.fold_in(jax.random.key(config.seed), 1)
  try:
    state = train_step.init_state(
      learner, prepared.optimizer, init_key, episode
    )
    jax.eval_shape(learner.loss, state.params, episode, init_key, state.step)
  except (TypeError, ValueError) as error:
    shape = tuple(episode.support.x.shape)
    raise core.BadInput(
      f'learner {config.learner.name!r} cannot run on support images of '
      f'shape {shape}: {error}'
    ) from error
  params = _grafted(config, state.params) if graft else state.params
  return state._replace(params=params)


def _grafted(config, params):
  random = dict(params.get('frozen', {}))
  for name, workdir in config.init_from.items():
    frozen = name in params.get('frozen', {})
    if workdir and not frozen and name not in params:
      raise core.BadInput(
        f'config.init_from.{name} = {workdir!r}, but this configuration of '
        f'{config.learner.name!r} has no network of that name'
      )
    if workdir:
      params = selection.graft(params, name, workdir)
      _check_latents(config, name, workdir)
  for name, workdir in config.init_from.items():
    # An upstream may have brought its own upstreams with it.
    if (
      not workdir and name in random and params['frozen'][name] is random[name]
    ):
      logging.warning(
        'config.init_from.%s is empty: the frozen %r keeps its random '
        'initial weights',
        name,
        name,
      )
  return params


def _check_latents(config, name, workdir):
  """Raises BadInput if latents and network come from other steps of a run."""
  folder = config.data.latents
  if not folder or not os.path.samefile(folder, workdir):
    return
  made, step = (
    task_set.latents_step(folder),
    selection.upstream_step(workdir)[1],
  )
  if made != step:
    raise core.BadInput(
      f'config.data.latents={folder}: its latents.npz is of step {made}, but '
      f'config.init_from.{name} takes step {step} of the same run; run python '
      f'-m hyperudl.training.precompute --workdir={folder} again'
    )
