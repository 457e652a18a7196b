"""Tasks of the smallest built-in set with language, loaded once each."""

import functools

from configs import hypernet as hypernet_config
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import glyphvqa_world
from hyperudl.data.language import task_set

DIR = 'data_numpy_dir'
LEVELS = ('wording', 'semantic')


@functools.cache
def load(split, level='wording', answers='bare', seed=0):
  """Return the tasks of a split."""
  config = task_set.LanguageConfig('tiny', level, answers, seed)
  return glyphvqa.load(split, DIR, config)


@functools.cache
def world():
  """Return the scenes and pairs from which the tasks are made."""
  return glyphvqa_world.World(DIR, 'tiny', 0)


def config_of(**changes):
  """Return the config of `hypernet` with other `config.episode` fields."""
  config = hypernet_config.get_config('set=tiny').unlock()
  config.episode.update(changes)
  return config
