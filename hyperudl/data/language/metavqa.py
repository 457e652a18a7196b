"""Meta-VQA: few-shot tasks that are put in words, as arrays of features.

A task is a question with images that each have one of its answers. Images,
questions and answers come as features that a frozen encoder such as CLIP gave.
A folder holds

meta_train.json, meta_test.json and perhaps meta_valid.json
  the tasks, see `metavqa_tasks`; `metavqa_build` makes them from VQA v2
templates.json
  {question: sentence with one {} where the answer goes}
image_features, question_features, answer_features as .npz or .npy
  banks, see `read_features`, of one row per image, one row per question, and
  one row per answer under each question, in the order of its answers; of the
  sentence with the answer in it.
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


def read_features(path, width=None):
  """Reads a bank of features.

  Args:
    path: str. A .npz file has the arrays `names`, str[n], and `features`,
      float[n, e], in which a name may come several times. A .npy file has the
      pickled dict of the original, name -> float[K, e]; no pickle is run.
    width: int, what e has to be; None takes that of the first entry.

  Returns:
    {name: f32[e], or f32[K, e] where a name has K > 1 rows}.

  Raises:
    BadInput: naming the file, the entry and the fault.
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
  arrays, found = npy.read_npz(path, ('names', 'features'))
  if len(arrays) < 2:
    raise BadInput(
      f'{path}: has the arrays {", ".join(found) or "none"}; expected names '
      'and features'
    )
  names, features = arrays['names'], arrays['features']
  if (
    names.dtype.kind != 'U'
    or names.ndim != 1
    or features.ndim != 2
    or len(names) != len(features)
    or not len(names)
  ):
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
  # -> f32[K, e]
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
    place = np.unravel_index(np.argmin(np.isfinite(rows)), rows.shape)
    raise BadInput(
      f'{where}: element {[int(i) for i in place]} is {rows[place]}; features '
      'must be finite: encode it again'
    )
  return rows


def load(folder, split, ways=0):
  """Reads the tasks of a split with their features.

  Args:
    folder: str, see the top of this file.
    split: 'train', 'valid' or 'test'.
    ways: int, tasks with more answers are dropped, and how many is logged; 0
      keeps all.

  Returns:
    A `vqa.TaskSet`; its images are those of the tasks, in the order of their
    first use, and it has `ways` answers where that is not 0.

  Raises:
    BadInput: a fault in a file, no tasks left, or what is missing, with its
      number and the first of it.
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
  images, rows = _image_rows(folder, tasks)
  questions, answers = _text(folder, tasks, images.shape[1])
  every = [(s, name) for s in sorted(families) for name in families[s]]
  ids = {pair: i for i, pair in enumerate(every)}
  listed = []
  for name, task in tasks.items():
    number = {answer: i for i, answer in enumerate(task['answers'])}
    pairs = lambda part: [(rows[i], number[a]) for i, a in task[part]]
    listed.append(
      {
        'question': name,
        'answers': task['answers'],
        'id': ids[split, name],
        **{part: pairs(part) for part in metavqa_tasks.PARTS},
      }
    )
  encode = lambda task: (questions[task['question']], answers[task['question']])
  return task_set.make_task_set(images, listed, len(ids), encode, ways=ways)


def _narrow(tasks, ways, folder, split):
  kept = {
    question: task
    for question, task in tasks.items()
    if not ways or len(task['answers']) <= ways
  }
  if not kept:
    raise BadInput(
      f'{folder}: {len(tasks)} {split} tasks, none of which is left with '
      f'ways={ways}; add tasks or give more ways (0: any number)'
    )
  if ways:
    logging.info(
      'Meta-VQA: dropped %d of %d %s tasks with more than %d answers',
      len(tasks) - len(kept),
      len(tasks),
      split,
      ways,
    )
  return kept


def _bank(folder, name, width=None):
  # -> (path, bank)
  paths = [os.path.join(folder, f'{name}{end}') for end in ('.npz', '.npy')]
  there = [path for path in paths if os.path.exists(path)]
  if len(there) != 1:
    raise BadInput(
      f'{folder}: has {len(there)} of {name}.npz and {name}.npy; expected one'
    )
  return there[0], read_features(there[0], width)


def _image_rows(folder, tasks):
  # -> f32[n, E], {image: row}
  path, bank = _bank(folder, 'image_features')
  pairs = [
    pair
    for task in tasks.values()
    for part in metavqa_tasks.PARTS
    for pair in task[part]
  ]
  names = list(dict.fromkeys(image for image, _ in pairs))
  _require_one_row(names, bank, f'{path}: images')
  images = np.stack([bank[name] for name in names])
  return images, {name: row for row, name in enumerate(names)}


def _text(folder, tasks, width):
  # -> question: f32[E], question: f32[K, E]
  path, bank = _bank(folder, 'question_features', width)
  _require_one_row(tasks, bank, f'{path}: questions')
  questions = {name: bank[name] for name in tasks}
  path, bank = _bank(folder, 'answer_features', width)
  metavqa_tasks.require(
    tasks,
    lambda name: (
      name in bank and bank[name].shape == (len(tasks[name]['answers']), width)
    ),
    f'{path}: questions without exactly one row per answer',
  )
  return questions, bank


def _require_one_row(names, bank, what):
  metavqa_tasks.require(
    names,
    lambda name: name in bank and bank[name].ndim == 1,
    f'{what} without exactly one row',
  )
