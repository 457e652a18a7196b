"""Tasks with language: questions about images, and their answers as strings."""

import pathlib

from hyperudl import core
from hyperudl.core.config import ConfigDict
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import metavqa
from hyperudl.data.language import task_set


def load(config: ConfigDict, split: str) -> task_set.TaskSet:
  """Load one split of the tasks that a config names.

  Args:
    config: with `data.dataset` ('glyphvqa', or a folder in `data.dir` that
      `metavqa.load` reads), `data.dir`, `episode.way`, `language`, and
      `data.latents`, the workdir of a run whose `precompute` has made latents
      for the training tasks, or ''.
    split: 'train', 'valid', 'test' or 'all'.

  Raises:
    core.BadInput: an unknown set or a fault in its data.
  """
  name, path = config.data.dataset, config.data.dir
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
