"""Loads trained networks, and tasks that they were adapted to."""

import dataclasses
import json
import pathlib
from typing import Any

from absl import logging
from flax import errors
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data.datasets import image_inputs
from hyperudl.models import bundle
from hyperudl.models import programs
from hyperudl.models.model import Model
from hyperudl.models.task import Task
from hyperudl.storage import checkpoints
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.storage import serialization
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import run_data
from hyperudl.training import setup

_MAX_WAY = 10_000  # classes that a file may claim
# Of a result, told with the model.
_METRICS = ('accuracy', 'accuracy_ci95', 'accuracy_unadapted', 'episodes')


def shipped() -> tuple[str, ...]:
  """Return the names of the models that come with the library."""
  paths = pathlib.Path(__file__).parent.glob('*.npz')
  return tuple(sorted(path.stem for path in paths))


def load(name: StrPath, step: str = 'best') -> Model:
  """Load a trained network.

  Args:
    name: of a model that comes with the library, or the path of a run folder
      or of a file of `Model.save`.
    step: of a run folder: 'best' (the latest if none was evaluated), 'latest'
      or a number.

  Raises:
    core.BadInput: there is no such model, the file is damaged, or its learner
      cannot classify single images.
    core.Unreadable: no checkpoint of the run can be read.
  """
  path = pathlib.Path(name).expanduser()
  if path.is_dir():
    return _load_run(path, step)
  if not path.exists() and str(name) in shipped():
    path = pathlib.Path(__file__).with_name(f'{name}.npz')
  if not path.is_file():
    known = ', '.join(shipped()) or 'none come with this version'
    raise core.BadInput(
      f'there is no model {str(name)!r}: give a run folder, a file of '
      f'Model.save, or one of the models by name ({known})'
    )
  arrays, meta = bundle.read(path, bundle.MODEL)
  return _from_parts(meta, arrays, str(path))


def load_task(path: StrPath) -> Task:
  """Load a file that `Task.save` wrote.

  Raises:
    core.BadInput: it is damaged, or something else.
  """
  arrays, meta = bundle.read(path, bundle.TASK)
  model = _from_parts(meta, arrays, str(path))
  try:
    support = core.Examples(arrays.pop('support/x'), arrays.pop('support/y'))
    classes, seed = np.array(meta['classes']), int(meta['seed'])
    temperature = float(meta['temperature'])
    shape = support.x.shape
    if shape != (len(support.y), *model.inputs.shape):
      raise ValueError(f'a support of shape {shape}')
    if not 2 <= len(classes) <= model.way or classes.ndim != 1:
      raise ValueError(f'{len(classes)} classes')
    target = jax.eval_shape(
      model.programs.adapt, model.params, support, jax.random.key(0)
    )
  except (KeyError, TypeError, ValueError, errors.FlaxError) as error:
    raise core.BadInput(
      f'{path}: a damaged task ({" ".join(str(error).split())[:200]}); copy it '
      'again'
    ) from error
  named = {k: v for k, v in arrays.items() if k.startswith('adapted/')}
  expected = serialization.name_leaves({'adapted': target})
  if problem := serialization.mismatch(named, expected):
    raise core.BadInput(f'{path}: a damaged task ({problem}); copy it again')
  adapted = serialization.fill({'adapted': target}, named)['adapted']
  adapted = jax.tree.map(jnp.asarray, adapted)
  return Task(model, adapted, classes, support, seed, temperature)


def _load_run(workdir, step):
  config = setup.read_config(workdir)
  programs.refuse(config)
  inputs = run_data.read_inputs(workdir)
  if step == 'best' and not selection.best_steps(workdir):
    logging.info('%s: no best checkpoint; taking the latest', workdir)
    step = 'latest'
  if step not in ('best', 'latest') and not str(step).isdecimal():
    raise core.BadInput(f'step={step!r} is neither best, latest nor a number')
  checkpoint = selection.restore_step(workdir, step)
  rows = metrics.read_jsonl(workdir / 'eval' / 'test.jsonl')
  measured = [row for row in rows if row.get('step') == checkpoint.step]
  about = {
    'data': config.data.dataset,
    'licence': '',
    'metrics': {k: measured[-1][k] for k in _METRICS if k in measured[-1]}
    if measured
    else {},
    'card': '',
  }
  return _make(config, checkpoint, inputs, about)


def _from_parts(
  meta: dict[str, Any], arrays: dict[str, np.ndarray], where: str
) -> Model:
  """Return the model of a description and of the arrays 'params/...'."""
  try:
    config = config_lib.from_json(json.dumps(meta['config']))
    inputs = image_inputs.from_dict(meta['inputs'])
    step, about = int(meta['step']), dict(meta['about'])
    if not 2 <= int(meta['way']) == config.episode.way <= _MAX_WAY:
      raise ValueError(f'way {meta["way"]}')
  except (KeyError, TypeError, ValueError) as error:
    raise core.BadInput(
      f'{where}: a damaged description ({error}); copy it again'
    ) from error
  named = {k: v for k, v in arrays.items() if k.startswith('params/')}
  tree = serialization.fill(None, named).get('params', {})
  checkpoint = checkpoints.Checkpoint({'params': tree}, step, {})
  try:
    return _make(config, checkpoint, inputs, about)
  except core.BadInput as error:
    raise core.BadInput(f'{where}: {error}') from error


def _make(config, checkpoint, inputs, about):
  model = Model(config, None, inputs, checkpoint.step, about)
  shapes = programs.param_shapes(config, model.programs.learner, inputs.shape)
  params = setup.fit_params(checkpoint, shapes)
  params = jax.tree.map(jnp.asarray, params)
  loaded = dataclasses.replace(model, params=params)
  vars(loaded)['programs'] = model.programs
  return loaded
