"""Reads, checks and counts the tasks of Meta-VQA.

A file of tasks is JSON,

  {question: {"support": [[image, answer], ...], "query": [[image, answer],
  ...], "answers": [answer, ...]}}

where the original release has "train" and "test" for "support" and "query". A
folder has meta_train.json, meta_test.json and optionally meta_valid.json.
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
import itertools
import json
import os
import random
import re
import reprlib
from typing import Any

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table

SEED = 2021  # of the shuffles of the original Meta-VQA
PARTS = ('support', 'query')
_ORIGINAL_PARTS = ('train', 'test')
_TEMPLATE = re.compile(r'[^{}]*\{\}[^{}]*')


Task = dict[str, Any]  # see the module's docstring
Tasks = dict[str, Task]  # by question


def read_tasks(path: str) -> Tasks:
  """Read a file of tasks, and name their parts "support" and "query".

  Raises:
    BadInput: with the file, the question and the fault.
  """
  return {
    question: _checked(record, f'{path}: {question!r}')
    for question, record in read_json(path).items()
  }


def read_splits(folder: str) -> dict[str, Tasks]:
  """Read the tasks of a folder.

  Returns:
    {'train': tasks, 'valid': tasks, 'test': tasks}. Without meta_valid.json a
    tenth of the training tasks becomes valid, see `hold_out`.

  Raises:
    BadInput: a faulty file, or a question in two files.
  """
  splits = _read_files(folder)
  if 'valid' not in splits:
    splits['train'], splits['valid'] = hold_out(splits['train'])
  return splits


def _read_files(folder):
  splits = {}
  for split in class_table.SPLITS:
    path = os.path.join(folder, f'meta_{split}.json')
    if split != 'valid' or os.path.exists(path):
      splits[split] = read_tasks(path)
  for one, other in itertools.combinations(splits, 2):
    shared = splits[one].keys() & splits[other].keys()
    if shared:
      raise BadInput(
        f'{folder}: {len(shared)} questions, first {min(shared)!r}, are in '
        f'meta_{one}.json and in meta_{other}.json; remove them from one'
      )
  return splits


def hold_out(tasks: Tasks, seed: int = SEED) -> tuple[Tasks, Tasks]:
  """Split tasks into (train, valid): a tenth, at least one, is valid.

  The choice depends on the set of questions, not on their order. A single task
  stays in train.
  """
  count = min(max(1, round(0.1 * len(tasks))), len(tasks) - 1)
  valid = set(shuffled(sorted(tasks), seed)[:count])
  train = {name: task for name, task in tasks.items() if name not in valid}
  return train, {name: tasks[name] for name in tasks if name in valid}


def shuffled(values: Iterable[Any], seed: int) -> list[Any]:
  """Return the values in the order of `random.Random(seed).shuffle`."""
  values = list(values)
  random.Random(seed).shuffle(values)
  return values


def image_names(tasks: Tasks) -> list[str]:
  """Return the images that tasks use, in the order of their first use."""
  return list(
    dict.fromkeys(
      image
      for task in tasks.values()
      for part in PARTS
      for image, _ in task[part]
    )
  )


def read_json(path: str) -> dict[str, Any]:
  """Read a JSON file that holds a non-empty object.

  Raises:
    BadInput: with the file and the fault.
  """
  try:
    with open(path, encoding='utf-8') as stream:
      content = json.load(stream)
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  except (ValueError, RecursionError) as error:
    reason = ' '.join(str(error).split())[:120]
    raise BadInput(f'{path}: not JSON ({reason}); copy it again') from None
  if not isinstance(content, dict) or not content:
    raise BadInput(
      f'{path}: {reprlib.repr(content)}; expected an object with an entry per '
      'question'
    )
  return content


def _checked(record, where):
  namings = (PARTS, _ORIGINAL_PARTS) if isinstance(record, dict) else ()
  for parts in namings:
    if {*parts, 'answers'} <= set(record):
      break
  else:
    raise BadInput(
      f'{where}: {reprlib.repr(record)}; expected an object with support, '
      'query (or train, test) and answers'
    )
  answers = record['answers']
  if not _are_strings(answers) or len(set(answers)) < max(2, len(answers)):
    raise BadInput(
      f'{where}: answers {reprlib.repr(answers)}; expected a list of two or '
      'more different strings'
    )
  for part in parts:
    _check_pairs(record[part], answers, f'{where}: {part}')
  support, query = (record[part] for part in parts)
  shared = {image for image, _ in support} & {image for image, _ in query}
  if shared:
    raise BadInput(
      f'{where}: image {min(shared)!r} is in {parts[0]} and in {parts[1]}; '
      'remove it from one of them'
    )
  return {'support': support, 'query': query, 'answers': answers}


def _are_strings(values):
  return isinstance(values, list) and all(isinstance(v, str) for v in values)


def _check_pairs(pairs, answers, where):
  if not isinstance(pairs, list) or not pairs:
    raise BadInput(
      f'{where} is {reprlib.repr(pairs)}; expected a list of one or more '
      'pairs [image, answer]'
    )
  for row, pair in enumerate(pairs):
    if not _are_strings(pair) or len(pair) != 2:
      raise BadInput(
        f'{where}[{row}] is {reprlib.repr(pair)}; expected [image, answer]'
      )
    if pair[1] not in answers:
      raise BadInput(
        f'{where}[{row}] has the answer {pair[1]!r}, which is not in answers; '
        'add it there or remove the pair'
      )


def check_templates(
  templates: dict[str, str], tasks: Collection[str], where: str
) -> None:
  """Check that each task has a template with exactly one {}.

  Args:
    templates: {question: str}.
    tasks: questions.
    where: name of the file in error messages.

  Raises:
    BadInput: with the question and its template.
  """
  has_one = templates.__contains__
  require(tasks, has_one, f'{where}: questions without a template')
  for question in tasks:
    template = templates[question]
    if not isinstance(template, str) or not _TEMPLATE.fullmatch(template):
      raise BadInput(
        f'{where}: {question!r} has {reprlib.repr(template)}; expected a '
        'sentence with one {} where the answer goes, and no other braces'
      )


def require(
  names: Collection[str], is_there: Callable[[str], bool], fault: str
) -> None:
  """Check that every name has what it needs.

  Args:
    names: names of images or questions.
    is_there: name -> whether the name has it.
    fault: beginning of the error message: the file and what is missing.

  Raises:
    BadInput: with the number of names that lack it, and the first of them.
  """
  missing = [name for name in names if not is_there(name)]
  if missing:
    raise BadInput(
      f'{fault}: {len(missing)} of {len(names)}, first {missing[0]!r}; add '
      'what is missing'
    )


def statistics(tasks: Tasks) -> dict[str, float]:
  """Count images, answers and pairs of tasks, and compute baselines.

  Returns:
    A dict of numbers. Integers: 'tasks'; 'images' and 'answers' (different
    ones); 'color' and 'how many' (questions with these words); 'one shot'
    (tasks whose rarest answer has one support image). For each of total, min,
    median, mean and max: 'support ...' and 'query ...' (pairs per task) and
    'ways ...' (answers per task). Accuracies: 'majority' and 'majority pooled'
    of always guessing the commonest answer of the support (the first in
    `answers` of several), as mean over tasks and over all query pairs; and
    'chance', the mean of 1 / ways.

  Raises:
    BadInput: no tasks.
  """
  if not tasks:
    raise BadInput('no tasks to count; give a file with some')
  records = tasks.values()
  counts: dict[str, float] = {'tasks': len(tasks)}
  for part, name in (*zip(PARTS, PARTS), ('answers', 'ways')):
    sizes = [len(record[part]) for record in records]
    counts |= {
      f'{name} total': sum(sizes),
      f'{name} min': min(sizes),
      f'{name} median': float(np.median(sizes)),
      f'{name} mean': float(np.mean(sizes)),
      f'{name} max': max(sizes),
    }
  rarest, hits = [], []
  for record in records:
    shots = Counter(answer for _, answer in record['support'])
    rarest.append(min(shots[answer] for answer in record['answers']))
    guess = max(record['answers'], key=shots.__getitem__)
    hits.append([answer == guess for _, answer in record['query']])
  pairs = [p for r in records for part in PARTS for p in r[part]]
  return counts | {
    'images': len({image for image, _ in pairs}),
    'answers': len({a for r in records for a in r['answers']}),
    'color': sum('color' in question for question in tasks),
    'how many': sum('How many' in question for question in tasks),
    'one shot': rarest.count(1),
    'majority': float(np.mean([np.mean(hit) for hit in hits])),
    'majority pooled': float(np.mean(np.concatenate(hits))),
    'chance': float(np.mean([1 / len(r['answers']) for r in records])),
  }


def report(folder: str) -> str:
  """Return `statistics` as a table, a line per number and a column per file.

  Each file is counted as it is: no training tasks become valid. The last column
  is for all files together.

  Raises:
    BadInput: as in `read_splits`.
  """
  splits = _read_files(folder)
  splits['all'] = {q: t for tasks in splits.values() for q, t in tasks.items()}
  columns = {split: statistics(tasks) for split, tasks in splits.items()}
  lines = [' ' * 15 + ''.join(f'{split:>9}' for split in columns)]
  for label in columns['all']:
    values = [column[label] for column in columns.values()]
    form = '9d' if isinstance(values[0], int) else '9.5g'
    lines.append(f'{label:<15}' + ''.join(f'{v:{form}}' for v in values))
  return '\n'.join(lines) + '\n'
