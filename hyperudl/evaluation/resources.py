"""Holds what evaluations in one process share: data and compiled programs."""

from collections.abc import Callable
from collections.abc import Hashable
import functools
import json
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import distributed
from hyperudl.core import episode_rules
from hyperudl.core.config import ConfigDict
from hyperudl.data import datasets
from hyperudl.data import episodes
from hyperudl.data.datasets import class_table
from hyperudl.data.language import task_set
from hyperudl.storage import checkpoints
from hyperudl.storage import selection
from hyperudl.storage.filesystem import StrPath
from hyperudl.training import episode_batching
from hyperudl.training import run_data
from hyperudl.training import setup
from hyperudl.training import train_step

# Fields of `config.data` that choose the images, not how they are drawn.
_IMAGES = (
  *('dataset', 'dir', 'image_size', 'classes', 'shuffle_classes', 'split_by'),
  'device_mb',
)


class Programs(NamedTuple):
  """A learner and its compiled functions, see `train_step.make_eval_step`."""

  learner: core.Learner
  init: Callable  # (key, episode) -> params
  step: Callable  # over all devices
  single_step: Callable  # on one device, any number of episodes
  visual_step: Callable  # likewise, the metrics that are drawn


class Resources:
  """Loads data, reads checkpoints and compiles programs once each.

  Evaluations of one checkpoint under several overrides differ in their data or
  in their learner. A program is compiled for a learner and for the shapes of
  its episodes: another shift or split of the data compiles nothing of it again.
  """

  def __init__(self) -> None:
    """Start with nothing: each thing is made when it is first needed."""
    several = jax.device_count() > 1
    self.mesh = episode_batching.make_mesh() if several else None
    self._made: dict[Hashable, Any] = {}

  def _once(self, make, *key):
    if key not in self._made:
      self._made[key] = make()
    return self._made[key]

  def programs(self, config: ConfigDict) -> Programs:
    """Return the learner of a config with its compiled functions."""
    precision = config.matmul_precision
    varies = episode_rules.varies(config.episode)
    way = episode_rules.label_slots(config.episode)
    key = _text(config, 'learner'), way, varies, precision
    return self._once(lambda: self._compile(config), 'programs', *key)

  def _compile(self, config):
    learner = setup.make_learner(config)
    make_step = functools.partial(
      train_step.make_eval_step, learner, precision=config.matmul_precision
    )
    return Programs(
      learner,
      jax.jit(learner.init),
      make_step(mesh=self.mesh),
      make_step(),
      make_step(visuals=True),
    )

  def dataset(self, config: ConfigDict, split: str) -> run_data.Dataset:
    """Return the data of one split of a config.

    Raises:
      core.BadInput: as in `setup.load_data`.
    """
    if 'language' in config:
      key = _text(config, 'data', 'language', 'episode')
    else:
      key = json.dumps([config.data[name] for name in _IMAGES])
    return self._once(lambda: _load(config, split), 'data', key, split)

  def has_features(self, config: ConfigDict, split: str) -> bool:
    """Return whether the data of a config are features, not images or tasks."""
    data = self.dataset(config, split)
    is_set = isinstance(data, datasets.Dataset)
    return is_set and class_table.is_features(data.images)

  def draw(self, config: ConfigDict, split: str) -> Callable:
    """Return the function that draws the episodes of a config.

    Args:
      config: with the `episode` and `data` sections of these episodes.
      split: 'train', 'valid', 'test' or 'all'.

    Raises:
      core.BadInput: if the data cannot fill the config's episodes.
    """
    data = self.dataset(config, split)
    episodes.check_fits(config, data, split)
    training_set = None
    if config.episode.emit_from != 'own':
      training_set = self.dataset(config, 'train')
    make = lambda: episodes.make_draw(
      config, data, train=False, training_set=training_set
    )
    key = _text(config, 'data', 'episode', 'language')
    return self._once(make, 'draw', key, split)

  def checkpoint(self, workdir: StrPath, step: str) -> checkpoints.Checkpoint:
    """Return a checkpoint of a run, restored as nested dicts.

    Args:
      workdir: of the run.
      step: 'latest', 'best' or a number; the same checkpoint every time, also
        if a later one has been written.

    Raises:
      core.Error: as in `selection.restore_step`.
    """
    restore = lambda: selection.restore_step(workdir, step)
    make = lambda: distributed.run_on_all(restore)
    return self._once(make, 'checkpoint', str(workdir), step)


def _text(config, *sections):
  """Return sections of a config as text by which they can be compared."""
  values = {name: config[name].to_dict() for name in sections if name in config}
  return json.dumps(values, sort_keys=True)


def _load(config, split):
  """Load data; images that fit are put on the device, once for all draws."""
  data = setup.load_data(config, split)
  if isinstance(data, task_set.TaskSet):
    # Shuffled, so that the first tasks are of all kinds.
    order = np.random.default_rng(2023).permutation(len(data.names))
    return task_set.reordered(data, order)
  if data.images.nbytes > config.data.device_mb << 20:
    return data
  return data._replace(images=jnp.asarray(data.images))
