"""What the mains share about a run: its config, data and learner."""

import pathlib

from hyperudl import core
from hyperudl import learners
from hyperudl.core import config as config_lib
from hyperudl.data import datasets
from hyperudl.data.datasets import splits
from hyperudl.data.language import resolve

# Fields that may change between the start and a resume of a run.
FREE = (
  'log_steps',
  'checkpoint_steps',
  'steps_per_call',
  'chunk',
  'data.dir',
  'data.device_mb',
  'eval.',
)


# Fields that older runs lack, with what they did (but on a GPU, where products
# had the precision of the device).
SINCE = {
  'chunk': 0,
  'steps_per_call': 1,
  'matmul_precision': 'float32',
  'data.device_mb': 2048,
  'data.augment_individually': False,
  'data.augment_tests': False,
  'language.asked': 0,
  'language.captions': False,
}


def load_data(config, split):
  """The images, or the tasks with language, of one split of the config's set.

  Raises:
    core.BadInput: an unknown set, a fault in its data or an impossible split.
  """
  if 'language' in config:
    return resolve.load(config, split)
  ranges = not splits.is_count(config.data.classes)
  return datasets.load(
    config.data.dataset,
    split,
    config.data.dir,
    image_size=config.data.image_size,
    # A number of classes is a limit on what can be learned from.
    classes=config.data.classes if split == 'train' or ranges else 0,
    shuffle=config.data.shuffle_classes,
    split_by=config.data.split_by,
  )


def make_learner(config):
  """The config's learner; core.BadInput if a hyperparameter is refused."""
  defaults = learners.hyperparameters(config.learner.name)
  for name, value in config_lib.learner_settings(config).items():
    default = defaults.get(name)
    if not isinstance(value, tuple) or not isinstance(default, tuple):
      continue
    if default and any(type(item) is not type(default[0]) for item in value):
      raise core.BadInput(
        f'config.learner.{name} = {value}: expected a tuple of '
        f'{type(default[0]).__name__} like {default}'
      )
  return learners.make(
    config.learner.name,
    config.episode.way,
    config_lib.learner_settings(config),
  )


def _fill_settings(before, config):
  """Gives an older run the new settings of its learner, at their defaults."""
  if before.learner.get('name') != config.learner.name:
    return
  defaults = learners.hyperparameters(config.learner.name)
  with before.unlocked():
    for name in set(config.init_from) - set(before.init_from):
      before.init_from[name] = ''
    for field in set(config.learner) - set(before.learner):
      if field in defaults:
        before.learner[field] = defaults[field]


def read_config(workdir):
  """The config of the run in `workdir`; core.BadInput if there is none."""
  path = pathlib.Path(workdir) / 'config.json'
  try:
    text = path.read_text()
  except OSError as error:
    raise core.BadInput(
      f'no run in {workdir}: {path} cannot be read ({error.strerror}); '
      '--workdir is the folder that the trainer was given'
    ) from error
  return _parse(path, text)


def _parse(path, text):
  try:
    config = config_lib.from_json(text)
    with config.unlocked():
      for field, value in SINCE.items():
        *parents, name = field.split('.')
        node = config
        for parent in parents:
          node = node.get(parent, {})
        node[name] = node.get(name, value)
    return config
  except core.BadInput as error:
    raise core.BadInput(f'{path}: {error}; restore it or delete it') from error


def check_workdir(config, workdir):
  """Refuses a folder that holds something else than this run.

  Raises:
    core.BadInput: if the workdir is a file or holds a run of another config.
  """
  path = pathlib.Path(workdir)
  if path.exists() and not path.is_dir():
    raise core.BadInput(f'--workdir={workdir} is a file; name a folder')
  stored = path / 'config.json'
  if not stored.exists():
    return
  before = _parse(stored, stored.read_text())
  _fill_settings(before, config)
  changed = {
    field: pair
    for field, pair in config_lib.differences(before, config).items()
    if not field.startswith(FREE)
  }
  if changed:
    lines = [f'{k}: {a!r} -> {b!r}' for k, (a, b) in changed.items()]
    raise core.BadInput(
      f'{workdir} holds a run of another config ({"; ".join(lines)}); use '
      'another --workdir or restore these fields'
    )
