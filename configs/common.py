"""Defines what all configs share: defaults, data sets and the variant parser.

A config file starts from `base('LEARNER')` and ends with
`apply_variant(config, arg)`, where `arg` is for instance
`omniglot,way=20,shot=1`: a data set of DATASETS (or any file in `data.dir`)
followed by key=value pairs of VARIANT, or domains=P, by which each episode
looks different (`set_domains`). All other fields can be overridden on the
command line: `--config.optimizer.learning_rate=0.01`.
"""

import difflib

from hyperudl import learners
from hyperudl.core import config as config_lib

# Fields of `data` or `episode` that a data set changes; sizes and channels are
# read from the files. Any other file in `data.dir` is used with the defaults of
# `base`.
DATASETS = {
  'glyphs': {'augment': 'rot90'},
  'glyph_attributes': {'augment': 'none', 'group': 'alphabet'},
  'omniglot': {'augment': 'rot90'},
  'omniglot_background': {'augment': 'rot90'},
  'miniimagenet': {'augment': 'images'},
  'tieredimagenet': {'augment': 'images'},
  'cifar_fs': {'augment': 'images'},
  'cifar10': {'augment': 'none', 'split_by': 'image'},
  'cub': {'augment': 'images'},
  'grocery': {'augment': 'images'},
  'emnist': {'augment': 'none'},
  'mnist': {'augment': 'none', 'split_by': 'image'},
}

# Sets of photographs, for which published settings differ from those for
# characters.
NATURAL = tuple(
  name for name, fields in DATASETS.items() if fields['augment'] == 'images'
)

# Variant keys and the config fields that they set.
VARIANT = {
  'way': ('episode', 'way', int),
  'shot': ('episode', 'shot', int),
  'query': ('episode', 'query', int),
  'unlabelled': ('episode', 'unlabelled', int),
  'distractors': ('episode', 'distractors', int),
  'tasks': ('episode', 'tasks', int),
  'group': ('episode', 'group', str),
  'shift': ('data', 'shift', str),
  'size': ('data', 'image_size', int),
  'classes': ('data', 'classes', str),
  'batch': (None, 'batch', int),
  'steps': (None, 'steps', int),
}


def base(learner=None):
  """Return the default config of a run: `RunConfig` and the learner's defaults.

  Args:
    learner: name of a learner, whose hyperparameters fill `config.learner`.

  Returns:
    An unlocked ConfigDict. The config file sets what differs and then calls
    `apply_variant`, which locks it.
  """
  config = config_lib.base()
  if learner:
    config.learner = {'name': learner, **learners.hyperparameters(learner)}
  return config


def of_steps(config, part, whole):
  """Return `steps * part // whole` as a reference.

  A field that is set to it follows `config.steps`, also where the command line
  changes the latter, until the field itself is set to a number.

  Args:
    config: from `base`.
    part: whole number, the share of the steps in units of 1 / `whole`.
    whole: whole number.
  """
  return config.get_ref('steps') * part // whole


def set_domains(config, probability):
  """Give episodes, of tests too, their own polarity, blur, contrast and noise.

  Args:
    config: unlocked.
    probability: of each of the four changes in an episode.
  """
  config.data.augment, config.data.augment_tests = 'episode', True
  changes = ('negate', 'smooth', 'contrast', 'noise')
  config.data.episode_augment.update(dict.fromkeys(changes, probability))


def apply_variant(config, arg):
  """Set the data set and the fields that the variant `arg` names.

  Args:
    config: from `base`, with the changes of the config file.
    arg: `[<dataset>][,key=value...]` or None.

  Raises:
    ValueError: for a malformed or unknown variant.
  """
  parts = [part.strip() for part in (arg or '').split(',') if part.strip()]
  if parts and '=' not in parts[0]:
    config.data.dataset = parts.pop(0)
  for field, value in DATASETS.get(config.data.dataset, {}).items():
    (config.data if field in config.data else config.episode)[field] = value
  for part in parts:
    key, _, value = part.partition('=')
    if key not in (*VARIANT, 'domains'):
      near = difflib.get_close_matches(key, VARIANT, 1)
      hint = f' (did you mean {near[0]!r}?)' if near else ''
      raise ValueError(
        f'unknown variant key {key!r}{hint}; known: {", ".join(VARIANT)}, '
        'domains'
      )
    section, field, kind = VARIANT.get(key, (None, None, float))
    try:
      if key == 'domains':
        set_domains(config, kind(value))
      else:
        target = config if section is None else config[section]
        target[field] = kind(value)
    except ValueError:
      raise ValueError(
        f'variant {part!r}: {key} takes a {kind.__name__}, not {value!r}'
      ) from None
  return config.lock()
