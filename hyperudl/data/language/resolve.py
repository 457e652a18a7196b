"""Loads tasks with language by the name of their set."""

import pathlib

from hyperudl.core import BadInput
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import metavqa
from hyperudl.data.language import task_set


def load(config, split):
  """One split as a `vqa.TaskSet`.

  Args:
    config: with `data.dataset` ('glyphvqa', or a folder in `data.dir` that
      `metavqa.load` reads), `data.dir`, `episode.way`, `language`, and
      `data.latents`, the workdir of a run whose `precompute` has made latents
      for the training tasks, or ''.
    split: 'train', 'valid', 'test' or 'all'.

  Raises:
    BadInput: an unknown set or a fault in its data.
  """
  tasks = _load(config, split)
  latents = config.data.latents
  if latents and split == 'train':
    tasks = task_set.with_latents(
      tasks, pathlib.Path(latents) / task_set.LATENTS
    )
  return tasks


def _load(config, split):
  name, dir = config.data.dataset, config.data.dir
  settings = config.language.to_dict()
  del settings['asked'], settings['captions']  # of the draws
  if name == 'glyphvqa':
    return glyphvqa.load(split, dir, **settings)
  path = pathlib.Path(dir) / name
  if not path.is_dir():
    raise BadInput(
      f'no tasks with language {name!r}: expected glyphvqa, or a folder '
      f'{path} with the files of Meta-VQA (data/metavqa.py says which)'
    )
  return metavqa.load(str(path), split, ways=config.episode.way)
