"""Checks of a config before anything is loaded, compiled or written."""

import difflib
import json
import math

from ml_collections import config_dict

from hyperudl.core import BadInput

CHOICES = {
  'strategy': ('auto', 'scan', 'vmap', 'sharded'),
  # 'default' is the device's: bfloat16 or tensorfloat32 on most accelerators.
  'matmul_precision': ('float32', 'tensorfloat32', 'bfloat16', 'default'),
  'episode.proportions': ('balanced', 'dirichlet', 'dirichlet_0.7'),
  'episode.inner_data': ('true', 'noise', 'other', 'none'),
  'episode.cond_data': ('true', 'noise', 'other', 'none'),
  'episode.emit_from': ('own', 'mean', 'other'),
  'data.split_by': ('auto', 'alphabet', 'class', 'image'),
  'data.augment': ('none', 'rot90', 'images', 'episode', 'episode+images'),
  'data.support_query': ('disjoint', 'reference', 'joint'),
  'optimizer.name': ('sgd', 'adam', 'adamw'),
  'optimizer.schedule': ('constant', 'cosine', 'exponential'),
}

# Learners that read `episode.emit_from`.
WRITE_FROM = ('udl', 'hypertransformer')

# Learners for which a class may be missing in the support.
ANY_COUNTS = ('hypertransformer',)

# Fields with a smallest legal value.
MINIMUM = {
  'seed': 0,
  'steps': 1,
  'batch': 1,
  'chunk': 0,
  'steps_per_call': 1,
  'log_steps': 1,
  'checkpoint_steps': 1,
  'episode.way': 2,
  'episode.shot': 1,
  'episode.query': 1,
  'episode.unlabelled': 0,
  'episode.distractors': 0,
  'episode.tasks': 0,
  'data.shuffle_classes': 0,
  'data.device_mb': 0,
  'data.image_size': 0,
  'optimizer.warmup_steps': 0,
  'optimizer.end_factor': 0,
  'optimizer.decay_steps': 1,
  'optimizer.clip': 0,
  'optimizer.momentum': 0,
  'optimizer.weight_decay': 0,
  'eval.episodes': 1,
  'eval.batch': 1,
  'eval.keep_best': 0,
  'eval.select_after': 0,
}


def flatten(config, prefix=''):
  """Leaves of a config as {'a.b': value}."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict | dict):
      flat.update(flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def validate(config):
  """Refuses a config that cannot run.

  Args:
    config: ConfigDict with the fields of `configs/common.py`.

  Raises:
    BadInput: naming the field, its value and what is legal.
  """
  flat = flatten(config)
  missing = sorted({*CHOICES, *MINIMUM} - set(flat))
  if missing:
    raise BadInput(
      f'the config lacks {", ".join(missing)}: start from common.base() of '
      'configs/common.py; a run of another version needs its own workdir'
    )
  for field, value in flat.items():
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
      if isinstance(number, float) and not math.isfinite(number):
        raise BadInput(f'config.{field} = {value} is not a finite number')
  for field, choices in CHOICES.items():
    if flat[field] not in choices:
      raise BadInput(
        f'config.{field} = {flat[field]!r} is none of {", ".join(choices)}'
      )
  for field, smallest in MINIMUM.items():
    if flat[field] < smallest:
      raise BadInput(
        f'config.{field} = {flat[field]} is below its minimum {smallest}'
      )
  if flat['optimizer.learning_rate'] <= 0:
    raise BadInput(
      f'config.optimizer.learning_rate = {flat["optimizer.learning_rate"]} '
      'must be above 0'
    )
  if not 0 < flat['optimizer.decay_rate'] <= 1:
    raise BadInput(
      f'config.optimizer.decay_rate = {flat["optimizer.decay_rate"]} must '
      'be in (0, 1]'
    )
  if flat['data.latents'] and 'language' not in config:
    raise BadInput(
      f'config.data.latents = {flat["data.latents"]!r}: only learners with '
      'language read precomputed latents; leave it empty'
    )
  shuffled = flat.get('data.shuffle_classes')
  if shuffled and not set(str(flat['data.classes'])) & set('-,/'):
    raise BadInput(
      f'config.data.shuffle_classes = {shuffled} numbers the classes that '
      f'ranges in config.data.classes choose, and that is '
      f'{flat["data.classes"]!r}'
    )
  _validate_episode(config)


def _validate_episode(config):
  episode = config.episode
  if episode.transductive and episode.unlabelled:
    raise BadInput(
      f'config.episode.transductive copies the queries as unlabelled rows; '
      f'set config.episode.unlabelled = 0 (it is {episode.unlabelled})'
    )
  learner = config.learner.to_dict()
  named = learner.get('setting') == 'clusters' or learner.get('name') == (
    'udl_original'
  )
  if episode.transductive and named:
    raise BadInput(
      'config.episode.transductive would name clusters by the labels of the '
      'queries that are scored: set it to False and episode.unlabelled >= 1'
    )
  deaf = (
    learner.get('name') not in WRITE_FROM or learner.get('stage') == 'shared'
  )
  if episode.emit_from != 'own' and deaf:
    raise BadInput(
      f'config.episode.emit_from = {episode.emit_from!r} replaces what weights '
      f'are written from, and {learner.get("name")!r} does not read it; '
      f'{" and ".join(WRITE_FROM)} do, where they write any'
    )
  tasks = max(learner.get('tasks', 1), 1)  # the learner refuses less
  if learner.get('scenario') == 'batches' and (
    episode.shot % tasks or episode.unlabelled % tasks
  ):
    raise BadInput(
      f'config.episode.shot = {episode.shot} and unlabelled = '
      f'{episode.unlabelled}: config.learner.scenario = batches deals them to '
      f'config.learner.tasks = {tasks} parts; make both multiples of it'
    )
  joint = config.data.support_query == 'joint'
  if joint and learner.get('name') not in ANY_COUNTS:
    raise BadInput(
      "config.data.support_query = 'joint' may leave a class without support, "
      f'which is for {" and ".join(ANY_COUNTS)} alone, not for '
      f"{learner.get('name')!r}: set it to 'disjoint'"
    )
  has_unlabelled = episode.transductive or episode.unlabelled
  if episode.proportions != 'balanced' and not has_unlabelled:
    # Class counts of the queries alone are legal, and random as well.
    return
  for field in ('inner_data', 'cond_data'):
    if episode[field] in ('noise', 'other') and not has_unlabelled:
      raise BadInput(
        f'config.episode.{field} = {episode[field]!r} stands in for '
        'unlabelled images, but there are none: set '
        'config.episode.unlabelled >= 1'
      )


def set_field(config, field, text):
  """Sets one field of an unlocked config from its text on a command line.

  Args:
    config: ConfigDict.
    field: 'episode.shot', for instance.
    text: the value; tuples as '4,5' or '(4, 5)'.

  Raises:
    BadInput: for an unknown field or a value of another type.
  """
  flat = flatten(config)
  if field not in flat:
    near = difflib.get_close_matches(field, flat, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    raise BadInput(f'the config has no field {field!r}{hint}')
  old = flat[field]
  words = {'true': True, 'false': False}
  try:
    if isinstance(old, bool):
      value = words[text.lower()]
    elif isinstance(old, tuple):
      items = [item for item in text.strip('() ').split(',') if item.strip()]
      value = tuple(type(old[0])(item) if old else int(item) for item in items)
    else:
      value = type(old)(text)
  except (KeyError, ValueError) as error:
    raise BadInput(
      f'config.{field}={text}: expected a {type(old).__name__} like {old!r}'
    ) from error
  section = config
  *path, last = field.split('.')
  for name in path:
    section = section[name]
  section[last] = value


def learner_settings(config):
  """Hyperparameters of the learner as a plain dict, without its name."""
  settings = config.learner.to_dict()
  settings.pop('name')
  return settings


def to_json(config):
  """`config` as JSON text, keys sorted."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text):
  """The locked config that `to_json` wrote; lists become tuples again.

  Raises:
    BadInput: if `text` is not a JSON object.
  """
  try:
    values = json.loads(text)
  except json.JSONDecodeError as error:
    raise BadInput(f'not a config: {error}') from error
  if not isinstance(values, dict):
    raise BadInput(f'not a config: expected an object, got {type(values)}')

  def convert(value):
    if isinstance(value, dict):
      return {k: convert(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value

  return config_dict.ConfigDict(convert(values)).lock()


def differences(a, b):
  """Fields in which two configs differ: {'field': (in a, in b)}."""
  first, second = flatten(a), flatten(b)
  missing = '(absent)'
  return {
    key: (first.get(key, missing), second.get(key, missing))
    for key in sorted({*first, *second})
    if first.get(key, missing) != second.get(key, missing)
  }
