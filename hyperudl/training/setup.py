"""Prepares a run: reads and checks its config, and builds its parts."""

from collections.abc import Callable
import os
import pathlib
from typing import NamedTuple

from absl import logging
import jax
import optax

from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.core import distributed
from hyperudl.core import episode_rules
from hyperudl.core.config import ConfigDict
from hyperudl.data import episodes
from hyperudl.data.language import task_set
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import encode_tasks
from hyperudl.training import episode_batching
from hyperudl.training import optimizers
from hyperudl.training import run_data
from hyperudl.training import train_step

# Fields, or prefixes of fields, that may change when a run is resumed.
RESUMABLE = (
  'log_steps',
  'checkpoint_steps',
  'steps_per_call',
  'chunk',
  'data.dir',
  'data.device_mb',
  'eval.',
  'run.',  # not of the run itself: see `run_data.attach`
)


class Components(NamedTuple):
  """What a training is made of, besides its state."""

  learner: core.Learner
  dataset: run_data.Dataset
  draw: Callable  # of `episodes.make_draw`
  optimizer: optax.GradientTransformation
  batching: episode_batching.Batching
  draw_ahead: bool  # whether a thread draws while the device computes
  record: dict  # of the data, for `run_data.write`


def prepare(config: ConfigDict) -> Components:
  """Build the components of a training; nothing is written.

  Raises:
    core.BadInput: for a config or data set that cannot run.
  """
  check(config)
  learner = make_learner(config)
  batching = episode_batching.choose(
    config.strategy, config.batch, config.chunk
  )
  dataset, record = run_data.load_training(config)
  optimizer = optimizers.make_optimizer(config.optimizer, config.steps)
  return Components(
    learner,
    dataset,
    episodes.make_draw(config, dataset, train=True, training_set=dataset),
    optimizer,
    batching,
    _draws_ahead(config, dataset),
    record,
  )


def encode_once(
  config: ConfigDict, components: Components, params: core.PyTree
) -> Components:
  """Encode the data of a learner with language once, by its frozen encoder.

  Components of other learners, and of the target 'convnet', which reads pixels,
  are returned unchanged. See `encode_tasks`.

  Args:
    config: of the run.
    components: from `prepare`.
    params: of the learner, with its upstreams.
  """
  encoder = params.get('frozen', {}).get('contrastive', {})
  if not {'image', 'text'} & encoder.keys():
    return components
  if config.learner.target == 'convnet':
    return components
  encode = train_step.at_precision(encode_tasks.encode, config.matmul_precision)
  tasks = encode(config.learner, encoder, components.dataset)
  return components._replace(
    dataset=tasks,
    draw=episodes.make_draw(config, tasks, train=True, training_set=tasks),
    draw_ahead=_draws_ahead(config, tasks),
  )


def _draws_ahead(config, dataset):
  """Return whether to draw in a thread: large data or several processes.

  Several processes join their parts of a batch on the host.
  """
  large = dataset.images.nbytes > config.data.device_mb << 20
  return large or not distributed.is_single_process()


def first_episode(
  config: ConfigDict, draw: Callable
) -> tuple[jax.Array, core.Episode]:
  """Return the key of the first training episode and the episode."""
  keys = episodes.train_keys(config.seed, 0, 1)
  return keys[0], jax.tree.map(lambda leaf: leaf[0], draw(keys))


def initial_state(
  config: ConfigDict, components: Components, graft: bool = True
) -> core.TrainState:
  """Return the state before the first update.

  Args:
    config: of the run.
    components: from `prepare`.
    graft: fill in the upstream networks of `config.init_from`.

  Raises:
    core.BadInput: if the learner cannot take such episodes, or an upstream
      does not fit.
  """
  _, episode = first_episode(config, components.draw)
  learner, optimizer = components.learner, components.optimizer
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  try:
    state = train_step.init_state(learner, optimizer, key, episode)
    jax.eval_shape(learner.loss, state.params, episode, key, state.step)
  except (TypeError, ValueError) as error:
    shape = tuple(episode.support.x.shape)
    raise core.BadInput(
      f'learner {config.learner.name!r} cannot run on support images of '
      f'shape {shape}: {error}'
    ) from error
  return state._replace(params=_graft(config, state.params)) if graft else state


def _graft(config, params):
  """Return `params` with the networks of `config.init_from` filled in."""
  random = dict(params.get('frozen', {}))
  for name, workdir in config.init_from.items():
    if not workdir:
      continue
    if name not in random and name not in params:
      raise core.BadInput(
        f'config.init_from.{name} = {workdir!r}, but this configuration of '
        f'{config.learner.name!r} has no network of that name'
      )
    params = selection.graft(params, name, workdir)
    _check_latents(config, name, workdir)
  for name, workdir in config.init_from.items():
    # An upstream may have brought its own upstreams with it.
    is_random = name in random and params['frozen'][name] is random[name]
    if is_random and not workdir:
      logging.warning(
        'config.init_from.%s is empty: the frozen %r keeps its random '
        'initial weights',
        *(name, name),
      )
  return params


def _check_latents(config, name, workdir):
  """Raise BadInput if latents and network are of different steps of a run."""
  folder = config.data.latents
  if not folder or not os.path.samefile(folder, workdir):
    return
  latents_step = task_set.latents_step(folder)
  step = selection.upstream_step(workdir)[1]
  if latents_step != step:
    raise core.BadInput(
      f'config.data.latents={folder}: its latents.npz is of step '
      f'{latents_step}, but config.init_from.{name} takes step {step} of the '
      'same run; run python -m hyperudl.training.precompute '
      f'--workdir={folder} again'
    )


def check(config: ConfigDict) -> None:
  """Raise core.BadInput for a config that its learner cannot run."""
  config_lib.validate(config)
  learners.check_run(config)


def make_learner(config: ConfigDict, varies: bool = False) -> core.Learner:
  """Make the config's learner.

  Args:
    config: of a run.
    varies: whether it must take episodes of any size, see `learners.make`; it
      does anyway if those of the config vary.

  Raises:
    core.BadInput: an illegal hyperparameter, or it takes none of any size.
  """
  settings = config_lib.learner_settings(config)
  way = episode_rules.label_slots(config.episode)
  varies = varies or episode_rules.varies(config.episode)
  return learners.make(config.learner.name, way, settings, varies)


def load_data(config: ConfigDict, split: str) -> run_data.Dataset:
  """Load the data of one split; see `run_data.load`."""
  return run_data.load(config, split)


def fit_params(
  checkpoint: checkpoints.Checkpoint, shapes: core.PyTree
) -> core.PyTree:
  """Return the parameters of a checkpoint in the structure of `shapes`.

  Args:
    checkpoint: restored as nested dicts with an entry `params`.
    shapes: of the learner's parameters, arrays or `jax.ShapeDtypeStruct`.

  Raises:
    core.BadInput: if the learner as now configured has other parameters.
  """
  leaves = serialization.name_leaves(checkpoint.state['params'])
  problem = serialization.mismatch(leaves, serialization.name_leaves(shapes))
  if problem:
    raise core.BadInput(
      f'step {checkpoint.step} does not fit the learner with these overrides: '
      f'{problem}; some learners cannot change way or image size'
    )
  return serialization.fill(shapes, leaves)


def read_config(
  workdir: StrPath, allow_new_classes: bool = False
) -> ConfigDict:
  """Read the config of the run in `workdir`, held to the classes of its data.

  Args:
    workdir: folder of the run.
    allow_new_classes: put classes that the run does not know into test.

  Raises:
    core.BadInput: there is no run, or its config is damaged.
  """
  path = pathlib.Path(workdir) / 'config.json'
  try:
    text = path.read_text(errors='replace')
  except OSError as error:
    raise core.BadInput(
      f'no run in {workdir}: {path} cannot be read ({error.strerror}); '
      '--workdir is the folder that the trainer was given'
    ) from error
  try:
    config = config_lib.from_json(text)
  except core.BadInput as error:
    raise core.BadInput(f'{path}: {error}; restore it or delete it') from error
  return run_data.attach(config, workdir, allow_new_classes)


def check_workdir(config: ConfigDict, workdir: StrPath) -> None:
  """Refuse a folder that holds something other than this run.

  Raises:
    core.BadInput: if the workdir is a file or holds a run of another config.
  """
  path = pathlib.Path(workdir)
  if path.exists() and not path.is_dir():
    raise core.BadInput(f'--workdir={workdir} is a file; name a folder')
  if not (path / 'config.json').exists():
    return
  changed = config_lib.differences(read_config(workdir), config)
  lines = [
    f'{field}: {stored!r} -> {new!r}'
    for field, (stored, new) in changed.items()
    if not field.startswith(RESUMABLE)
  ]
  if lines:
    raise core.BadInput(
      f'{workdir} holds a run of another config ({"; ".join(lines)}); use '
      'another --workdir or restore these fields'
    )
