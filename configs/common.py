"""Fields shared by all configs, the data set table and the variant parser.

A config file starts from `base()` and ends with `apply_variant(config, arg)`,
where `arg` is for instance `omniglot,way=20,shot=1`: a data set of DATASETS
(or any file in `data.dir`) followed by key=value pairs of VARIANT. Everything
else is overridden on the command line:
`--config.optimizer.learning_rate=0.01`.
"""

import difflib

from ml_collections import config_dict

# What a data set changes in `data`; sizes and channels are read from the files.
# Any other file in `data.dir` is used with the defaults of `base`.
DATASETS = {
  'glyphs': {'augment': 'rot90'},
  'omniglot': {'augment': 'rot90'},
  'omniglot_background': {'augment': 'rot90'},
  'miniimagenet': {'augment': 'images'},
  'tieredimagenet': {'augment': 'images'},
  'cifar_fs': {'augment': 'images'},
  'cifar10': {'augment': 'none', 'split_by': 'image'},
  'cub': {'augment': 'images'},
  'emnist': {'augment': 'none'},
  'mnist': {'augment': 'none', 'split_by': 'image'},
}

# Photographs, for which published settings differ from those of characters.
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
  'shift': ('data', 'shift', str),
  'size': ('data', 'image_size', int),
  'classes': ('data', 'classes', str),
  'batch': (None, 'batch', int),
  'steps': (None, 'steps', int),
}


def base():
  """The fields that every config has, with the library defaults.

  Returns:
    An unlocked ConfigDict; the config file adds its learner and then calls
    `apply_variant`, which locks it.
  """
  config = config_dict.ConfigDict()
  config.seed = 0
  config.steps = 10_000
  config.batch = 16
  config.strategy = 'auto'
  config.chunk = 0
  config.steps_per_call = 1
  config.matmul_precision = 'float32'
  config.log_steps = 100
  config.checkpoint_steps = 1_000
  config.episode = config_dict.create(
    way=5,
    shot=1,
    query=5,
    unlabelled=0,
    distractors=0,
    tasks=0,
    proportions='balanced',
    transductive=False,
    inner_data='true',
    cond_data='true',
    emit_from='own',
  )
  config.data = config_dict.create(
    dataset='glyphs',
    dir='data_numpy_dir',
    classes='',
    shuffle_classes=0,
    image_size=0,
    shift='none',
    split_by='auto',
    latents='',
    augment='rot90',
    augment_individually=False,
    augment_tests=False,
    support_query='disjoint',
    device_mb=2048,
    episode_augment=config_dict.create(
      rot90=False,
      rotate=0.0,
      angle=180.0,
      roll=0.0,
      resize=0.0,
      contrast=0.0,
      smooth=0.0,
      negate=0.0,
      per_label=False,
    ),
  )
  config.optimizer = config_dict.create(
    name='adam',
    learning_rate=1e-3,
    schedule='cosine',
    warmup_steps=0,
    end_factor=0.05,
    decay_steps=100_000,
    decay_rate=0.95,
    clip=5.0,
    momentum=0.0,
    weight_decay=0.0,
  )
  config.eval = config_dict.create(
    episodes=600, batch=50, keep_best=1, select_after=0
  )
  config.learner = config_dict.ConfigDict()
  config.init_from = config_dict.ConfigDict()
  return config


def apply_variant(config, arg):
  """Sets the data set and the fields that the variant `arg` names.

  Args:
    config: what `base` returned, after the config file's own defaults.
    arg: `[<dataset>][,key=value...]` or None.

  Raises:
    ValueError: for a malformed or unknown variant.
  """
  parts = [part.strip() for part in (arg or '').split(',') if part.strip()]
  if parts and '=' not in parts[0]:
    config.data.dataset = parts.pop(0)
  for field, value in DATASETS.get(config.data.dataset, {}).items():
    config.data[field] = value
  for part in parts:
    key, _, value = part.partition('=')
    if key not in VARIANT:
      near = difflib.get_close_matches(key, VARIANT, 1)
      hint = f' (did you mean {near[0]!r}?)' if near else ''
      raise ValueError(
        f'unknown variant key {key!r}{hint}; known: {", ".join(VARIANT)}'
      )
    section, field, kind = VARIANT[key]
    try:
      target = config if section is None else config[section]
      target[field] = kind(value)
    except ValueError:
      raise ValueError(
        f'variant {part!r}: {key} takes a {kind.__name__}, not {value!r}'
      ) from None
  return config.lock()
