"""Loads tasks with language: questions about images, answered by strings."""

import os
import pathlib

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import metavqa
from hyperudl.data.language import task_set


def load(config: ConfigDict, split: str) -> task_set.TaskSet:
  """Load one split of the tasks that a config names.

  Args:
    config: has `data.dataset` ('glyphvqa', or a folder in `data.dir` that
      `metavqa.load` reads), `data.dir`, `episode.way`, `language`, and
      `data.latents`: '' or the workdir of a run for which
      `training.precompute` has saved latents of the training tasks.
    split: 'train', 'valid', 'test' or, for 'glyphvqa', 'all'.

  Raises:
    core.BadInput: unknown set or faulty data.
  """
  name = config.data.dataset
  path = os.path.expanduser(config.data.dir)
  language = task_set.LanguageConfig(**config.language)
  folder = pathlib.Path(path) / name
  if name == 'glyphvqa':
    tasks = glyphvqa.load(split, path, language)
  elif folder.is_dir():
    tasks = metavqa.load(str(folder), split, ways=config.episode.way)
  else:
    raise core.BadInput(
      f'no tasks with language {name!r}: expected glyphvqa, or a folder '
      f'{folder} with the files of Meta-VQA (data/language/metavqa.py lists '
      'them)'
    )
  if config.data.latents and split == 'train':
    latents = pathlib.Path(config.data.latents) / task_set.LATENTS
    tasks = task_set.with_latents(tasks, latents)
  return tasks
