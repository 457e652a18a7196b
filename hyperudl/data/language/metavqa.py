"""Reads Meta-VQA: few-shot tasks with questions, as arrays of features.

A task is a question with images that each have one of its answers. Images,
questions and answers are given as features of a frozen encoder such as CLIP.
A folder holds

meta_train.json, meta_test.json and optionally meta_valid.json
  the tasks, see `metavqa_tasks`; `metavqa_build` makes them from VQA v2
templates.json
  {question: sentence with one {} where the answer goes}
image_features, question_features, answer_features as .npz or .npy
  banks, i.e. dicts name -> features, see `read_features`: one row per image,
  one row per question, and under each question one row per answer, in the
  order of its answers, encoded from the sentence with the answer in it.
"""

import os
import reprlib

from absl import logging
import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.data.language import metavqa_tasks
from hyperudl.data.language import task_set


def read_features(path: str, width: int | None = None) -> dict[str, np.ndarray]:
  """Read a bank of features.

  Args:
    path: a .npz file has the arrays `names`, str[n], and `features`,
      float[n, e]; a name may come several times. A .npy file has the pickled
      dict of the original release, name -> float[K, e]; no pickled code is run.
    width: required e; None for that of the first entry.

  Returns:
    {name: f32[e], or f32[K, e] where a name has K > 1 rows}.

  Raises:
    BadInput: with the file, the entry and the fault.
  """
  entries = _read_npz(path) if path.endswith('.npz') else _read_npy(path)
  bank = {}
  for name, entry in entries.items():
    if not isinstance(name, str):
      raise BadInput(
        f'{path}: entry {reprlib.repr(name)} has a name of type '
        f'{type(name).__name__}; expected a string'
      )
    rows = _rows(entry, width, f'{path}[{reprlib.repr(name)}]')
    width = rows.shape[1]
    bank[name] = rows[0] if len(rows) == 1 else rows
  return bank


def _read_npz(path):
  arrays, present = npy.read_npz(path, ('names', 'features'))
  if len(arrays) < 2:
    raise BadInput(
      f'{path}: has the arrays {", ".join(present) or "none"}; expected names '
      'and features'
    )
  names, features = arrays['names'], arrays['features']
  ranks = names.ndim, features.ndim
  fits = ranks == (1, 2) and 0 < len(names) == len(features)
  if names.dtype.kind != 'U' or not fits:
    raise BadInput(
      f'{path}: names {names.dtype} of shape {names.shape} and features of '
      f'shape {features.shape}; expected str[n] and float[n, e], n > 0'
    )
  rows = {}
  for row, name in enumerate(names.tolist()):
    rows.setdefault(name, []).append(row)
  return {name: features[places] for name, places in rows.items()}


def _read_npy(path):
  array = npy.read_npy(path)
  content = array.item() if array.shape == () else None
  if not isinstance(content, dict) or not content:
    raise BadInput(
      f'{path}: {array.dtype} of shape {array.shape}; expected a dict name -> '
      'float[K, e] as numpy.save writes it, with entries'
    )
  return content


def _rows(entry, width, where):
  """Check an entry and return it as f32[K, e]."""
  if not isinstance(entry, np.ndarray) or entry.dtype.kind != 'f':
    kind = getattr(entry, 'dtype', type(entry).__name__)
    raise BadInput(f'{where}: {kind}; expected an array of floats')
  if entry.ndim != 2 or not entry.size:
    raise BadInput(f'{where}: shape {entry.shape}; expected [K, e]')
  if width not in (None, entry.shape[1]):
    raise BadInput(
      f'{where}: {entry.shape[1]} features; expected {width} as in '
      'the others: use one encoder for all'
    )
  with np.errstate(over='ignore'):
    rows = np.asarray(entry, np.float32)
  if not np.isfinite(rows).all():
    row, column = map(int, np.argwhere(~np.isfinite(rows))[0])
    raise BadInput(
      f'{where}: element {[row, column]} is {rows[row, column]}; features must '
      'be finite: encode it again'
    )
  return rows


def load(folder: str, split: str, ways: int = 0) -> task_set.TaskSet:
  """Read the tasks of a split with their features.

  Args:
    folder: see the module.
    split: 'train', 'valid' or 'test'.
    ways: tasks with more answers are dropped, and their number is logged; 0
      keeps all.

  Returns:
    Tasks with the images that they use, in the order of their first use;
    padded to `ways` answers unless that is 0.

  Raises:
    BadInput: a faulty file, no tasks left, or missing entries (the message has
      their number and the first of them).
  """
  if split not in class_table.SPLITS:
    raise BadInput(
      f'split={split!r}: expected one of {", ".join(class_table.SPLITS)}'
    )
  families = {
    name: _narrow(tasks, ways, folder, name)
    for name, tasks in metavqa_tasks.read_splits(folder).items()
  }
  tasks = families[split]
  path = os.path.join(folder, 'templates.json')
  metavqa_tasks.check_templates(metavqa_tasks.read_json(path), tasks, path)
  names = metavqa_tasks.image_names(tasks)
  rows = {name: row for row, name in enumerate(names)}
  bank = _bank(folder, 'image', dict.fromkeys(names, 1))
  images = np.stack([bank[name] for name in names])
  width = images.shape[1]
  questions = _bank(folder, 'question', dict.fromkeys(tasks, 1), width)
  counts = {name: len(task['answers']) for name, task in tasks.items()}
  answers = _bank(folder, 'answer', counts, width)
  family = [(s, name) for s in sorted(families) for name in families[s]]
  ids = {pair: i for i, pair in enumerate(family)}
  listed = []
  for name, task in tasks.items():
    label = {answer: i for i, answer in enumerate(task['answers'])}
    pairs = {
      part: [(rows[image], label[answer]) for image, answer in task[part]]
      for part in metavqa_tasks.PARTS
    }
    listed.append({**task, **pairs, 'question': name, 'id': ids[split, name]})
  encode = lambda task: (questions[task['question']], answers[task['question']])
  return task_set.make_task_set(images, listed, len(ids), encode, ways=ways)


def _narrow(tasks, ways, folder, split):
  narrow = {
    question: task
    for question, task in tasks.items()
    if not ways or len(task['answers']) <= ways
  }
  if not narrow:
    raise BadInput(
      f'{folder}: {len(tasks)} {split} tasks, none of which is left with '
      f'ways={ways}; add tasks or give more ways (0: any number)'
    )
  if ways:
    logging.info(
      'Meta-VQA: dropped %d of %d %s tasks with more than %d answers',
      len(tasks) - len(narrow),
      len(tasks),
      split,
      ways,
    )
  return narrow


def _bank(folder, kind, rows, width=None):
  """Read the bank of a kind and check that it has {name: number of rows}."""
  paths = [
    os.path.join(folder, f'{kind}_features{end}') for end in ('.npz', '.npy')
  ]
  present = [path for path in paths if os.path.exists(path)]
  if len(present) != 1:
    raise BadInput(
      f'{folder}: has {len(present)} of {kind}_features.npz and '
      f'{kind}_features.npy; expected one'
    )
  bank = read_features(present[0], width)
  names = 'images' if kind == 'image' else 'questions'
  each = ' per answer' if kind == 'answer' else ''
  metavqa_tasks.require(
    rows,
    lambda name: name in bank and len(np.atleast_2d(bank[name])) == rows[name],
    f'{present[0]}: {names} without exactly one row{each}',
  )
  return bank
