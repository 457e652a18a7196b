"""Declares the fields of every run, and checks a config before it runs."""

import dataclasses
import difflib
import json
import math
from typing import Any
from typing import Literal
from typing import TypeAlias

from ml_collections import config_dict

from hyperudl.core import config_form
from hyperudl.core import episode_rules
from hyperudl.core import hyperparameters
from hyperudl.core.errors import BadInput
from hyperudl.core.hyperparameters import field

ConfigDict: TypeAlias = config_dict.ConfigDict
_Schedule = Literal['constant', 'cosine', 'exponential', 'milestones']
_Source = Literal['true', 'noise', 'other', 'none']
Augment = Literal[
  'auto', 'none', 'rot90', 'scans', 'images', 'episode', 'episode+images'
]


@dataclasses.dataclass(frozen=True)
class EpisodeConfig:
  """What an episode is made of; counts are per class."""

  way: int = field(5, at_least=2)  # classes
  shot: int = field(1, at_least=1)  # labelled images
  # Smallest and largest number that training draws for each episode in place of
  # `way` and `shot`; (): none.
  way_range: tuple[int, ...] = field((), at_least=2)
  shot_range: tuple[int, ...] = field((), at_least=1)
  # What one draw of `shot_range` is for. 'class': each class has its own number
  # up to one that is drawn for the episode, as in real folders.
  shots_per: Literal['class', 'episode'] = 'class'
  query: int = field(5, at_least=1)  # images to classify
  unlabelled: int = field(0, at_least=0)  # support images without a label
  distractors: int = field(0, at_least=0)  # classes with unlabelled images only
  tasks: int = field(0, at_least=0)  # tasks of one episode; 0: no task axis
  # 'alphabet': all classes of an episode (of each task) are of one.
  group: Literal['none', 'alphabet'] = 'none'
  # How unlabelled images and queries are divided among the classes.
  proportions: Literal['balanced', 'dirichlet', 'dirichlet_0.7'] = 'balanced'
  unlabelled_classes: Literal['own', 'other'] = 'own'  # of unlabelled images
  transductive: bool = False  # the queries are the unlabelled images
  # Controls: what replaces the episode's own images. 'other': images of another
  # episode, with its shift; 'mean': the mean of the weights of 64 others.
  inner_data: _Source = 'true'  # unlabelled images of the inner loss
  cond_data: _Source = 'true'  # those of the hypernetwork's input
  phi_from: Literal['own', 'other'] = 'own'  # those of the shift
  emit_from: Literal['own', 'mean', 'other'] = 'own'  # support of the weights


@dataclasses.dataclass(frozen=True)
class EpisodeAugmentConfig:
  """Augmentation of whole episodes, with a probability for each transform."""

  rot90: bool = False
  rotate: float = field(0.0, at_least=0, at_most=1)
  angle: float = 180.0  # largest of `rotate`, degrees
  roll: float = field(0.0, at_least=0, at_most=1)
  resize: float = field(0.0, at_least=0, at_most=1)
  contrast: float = field(0.0, at_least=0, at_most=1)
  smooth: float = field(0.0, at_least=0, at_most=1)
  negate: float = field(0.0, at_least=0, at_most=1)
  noise: float = field(0.0, at_least=0, at_most=1)
  per_label: bool = False  # draw for each class, not once per episode


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which images, how they are divided and how they are augmented."""

  dataset: str = 'glyphs'
  dir: str = 'data_numpy_dir'
  classes: str = ''  # ranges '0-63/64-79/80-99', or a number of classes
  shuffle_classes: int = field(0, at_least=0)  # seed; 0: in order
  image_size: int = field(0, at_least=0, at_most=4096)  # 0: unchanged
  shift: str = 'none'  # see data/episodes/shifts.py
  split_by: Literal['auto', 'alphabet', 'class', 'image'] = 'auto'
  latents: str = ''  # workdir of a run with precomputed latents
  augment: Augment = 'auto'  # rot90 for images, none for features
  augment_individually: bool = False  # draw colours for each image
  augment_tests: bool = False  # augment episodes of evaluations too
  # 'reference': queries may repeat support images; 'joint': any class counts.
  support_query: Literal['disjoint', 'reference', 'joint'] = 'disjoint'
  device_mb: int = field(2048, at_least=0)  # larger sets stay on the host
  episode_augment: EpisodeAugmentConfig = dataclasses.field(
    default_factory=EpisodeAugmentConfig
  )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The outer optimizer and its learning rate."""

  name: Literal['sgd', 'adam', 'adamw'] = 'adam'
  learning_rate: float = field(1e-3, above=0)
  schedule: _Schedule = 'cosine'
  warmup_steps: int = field(0, at_least=0, below='steps')
  end_factor: float = field(0.05, at_least=0)  # of 'cosine'
  decay_steps: int = field(100_000, at_least=1)  # of 'exponential'
  decay_rate: float = field(0.95, above=0, at_most=1)  # or at each milestone
  milestones: tuple[float, ...] = (0.5, 0.75)  # as fractions of the steps
  clip: float = field(5.0, at_least=0)  # largest gradient; 0: any
  clip_by: Literal['norm', 'value'] = 'norm'  # of all, or each element alone
  momentum: float = field(0.0, at_least=0)
  weight_decay: float = field(0.0, at_least=0)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How checkpoints are evaluated and which of them are kept."""

  episodes: int = field(600, at_least=1)
  batch: int = field(50, at_least=1)
  keep_best: int = field(5, at_least=0)  # checkpoints of `best_ensemble`
  select_after: int = field(0, at_least=0, at_most='steps')  # first candidate


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """The fields of every run, apart from its learner's."""

  seed: int = field(0, at_least=0, below=2**32)  # keys take 32 bits
  steps: int = field(10_000, at_least=1)  # outer updates
  batch: int = field(16, at_least=1)  # episodes per update
  strategy: Literal['auto', 'scan', 'vmap', 'sharded'] = 'auto'
  chunk: int = field(0, at_least=0)  # episodes at once on a device; 0: all
  steps_per_call: int = field(1, at_least=1)
  # 'default' is the device's: bfloat16 or tensorfloat32 on most accelerators.
  matmul_precision: Literal[
    'float32', 'tensorfloat32', 'bfloat16', 'default'
  ] = 'float32'
  log_steps: int = field(100, at_least=1)
  checkpoint_steps: int = field(1_000, at_least=1)
  episode: EpisodeConfig = dataclasses.field(default_factory=EpisodeConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)


def base() -> ConfigDict:
  """Return an unlocked config with the defaults of `RunConfig`."""
  config = ConfigDict(hyperparameters.defaults(RunConfig))
  config.episode.way = EpisodeConfig().way
  config.learner = ConfigDict()
  config.init_from = ConfigDict()
  return config


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  """Return the leaves of a config as {'a.b': value}."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict | dict):
      flat.update(flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def validate(config: ConfigDict) -> None:
  """Refuse a config that no learner can run; see also `learners.check_run`.

  Args:
    config: with the fields of `RunConfig`, `learner` and `init_from`.

  Raises:
    BadInput: naming the field, its value and what is legal.
  """
  config_form.check(config, base())
  flat = flatten(config)
  for name, value in flat.items():
    for number in value if isinstance(value, tuple) else (value,):
      if isinstance(number, float) and not math.isfinite(number):
        raise BadInput(f'config.{name} = {value} is not a finite number')
  hyperparameters.check(_from_dict(RunConfig, config), 'config.')
  hyperparameters.check_steps(RunConfig, config, config.steps, 'config.')
  if flat['data.latents'] and 'language' not in config:
    raise BadInput(
      f'config.data.latents = {flat["data.latents"]!r}: only learners with '
      'language read precomputed latents; leave it empty'
    )
  ranges = set(str(flat['data.classes'])) & set('-,/')
  if flat['data.shuffle_classes'] and not ranges:
    raise BadInput(
      f'config.data.shuffle_classes = {flat["data.shuffle_classes"]} has an '
      'effect only where config.data.classes holds ranges of classes, and it '
      f'is {flat["data.classes"]!r}'
    )
  episode_rules.check(config.episode)


def _from_dict(config_class, values):
  """Return a `config_class` with the values of its fields, nested."""
  hints = hyperparameters.type_hints(config_class)
  return config_class(
    **{
      name: _from_dict(hint, values[name])
      if dataclasses.is_dataclass(hint)
      else values[name]
      for name, hint in hints.items()
    }
  )


def set_field(config: ConfigDict, name: str, text: str) -> None:
  """Set one field of an unlocked config from its text on a command line.

  Args:
    config: ConfigDict.
    name: 'episode.shot', for instance.
    text: the value; tuples as '4,5' or '(4, 5)'.

  Raises:
    BadInput: for an unknown field or a value of another type.
  """
  flat = flatten(config)
  if name not in flat:
    near = difflib.get_close_matches(name, flat, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    raise BadInput(f'the config has no field {name!r}{hint}')
  old = flat[name]
  words = {'true': True, 'false': False}
  value: Any
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
      f'config.{name}={text}: expected a {type(old).__name__} like {old!r}'
    ) from error
  config.update_from_flattened_dict({name: value})


def learner_settings(config: ConfigDict) -> dict[str, Any]:
  """Return the hyperparameters of the learner, without its name."""
  settings = config.learner.to_dict()
  settings.pop('name')
  return settings


def to_json(config: ConfigDict) -> str:
  """Return `config` as JSON text, keys sorted."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ConfigDict:
  """Return the locked config that `to_json` wrote, with tuples for lists.

  Raises:
    BadInput: if `text` is not the JSON object of a config.
  """

  def convert(value):
    if isinstance(value, dict):
      return {k: convert(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value

  try:
    values = json.loads(text)
    if not isinstance(values, dict):
      raise ValueError(f'expected an object, got {type(values)}')
    config = ConfigDict(convert(values)).lock()
  except (ValueError, RecursionError) as error:
    raise BadInput(f'not a config: {error}') from error
  config_form.check(config, base())
  return config


def differences(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
  """Return where two configs differ: {'field': (in a, in b)}."""
  first, second = flatten(a), flatten(b)
  missing = '(absent)'
  return {
    key: (first.get(key, missing), second.get(key, missing))
    for key in sorted({*first, *second})
    if first.get(key, missing) != second.get(key, missing)
  }
