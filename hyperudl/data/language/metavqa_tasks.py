"""The tasks of Meta-VQA as files: reading, checking and counting them.

A file of tasks is JSON,

  {question: {"support": [[image, answer], ...], "query": [[image, answer],
  ...], "answers": [answer, ...]}}

and the original release says "train" and "test" for "support" and "query". A
folder has meta_train.json, meta_test.json and perhaps meta_valid.json.
"""

from collections import Counter
import itertools
import json
import os
import random
import re
import reprlib

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table

SEED = 2021  # of the shuffles of the original
PARTS = ('support', 'query')
_ORIGINAL_PARTS = ('train', 'test')
_TEMPLATE = re.compile(r'[^{}]*\{\}[^{}]*')


def read_tasks(path):
  """Reads a file of tasks, with our names of the parts or the original's.

  Args:
    path: str.

  Returns:
    {question: {'support': [[image, answer], ...], 'query': [[image, answer],
    ...], 'answers': [answer, ...]}}.

  Raises:
    BadInput: naming the file, the question and the fault.
  """
  return {
    question: _checked(record, f'{path}: {question!r}')
    for question, record in read_json(path).items()
  }


def read_splits(folder):
  """Reads the tasks of a folder.

  Args:
    folder: str.

  Returns:
    {'train': tasks, 'valid': tasks, 'test': tasks}. Without meta_valid.json a
    tenth of the training tasks is valid, see `hold_out`.

  Raises:
    BadInput: a fault in a file, or a question in two of them.
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


def hold_out(tasks, seed=SEED):
  """Splits tasks into (train, valid): a tenth, at least one, is valid.

  Which ones depends on the set of questions, not on their order; a single task
  stays with train.
  """
  count = min(max(1, round(0.1 * len(tasks))), len(tasks) - 1)
  held = set(shuffled(sorted(tasks), seed)[:count])
  train = {name: task for name, task in tasks.items() if name not in held}
  return train, {name: tasks[name] for name in tasks if name in held}


def shuffled(values, seed):
  """The list of `values` as `random.Random(seed).shuffle` leaves it."""
  values = list(values)
  random.Random(seed).shuffle(values)
  return values


def read_json(path):
  """The content of the JSON file at `path` (str), an object with entries."""
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
  parts = next(
    (
      parts
      for parts in (PARTS, _ORIGINAL_PARTS)
      if isinstance(record, dict) and {*parts, 'answers'} <= set(record)
    ),
    None,
  )
  if parts is None:
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


def check_templates(templates, tasks, where):
  """Raises BadInput if a task has no template, or one without exactly one {}.

  Args:
    templates: {question: str}.
    tasks: container of questions.
    where: str, the file as messages name it.
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


def require(names, is_there, what):
  """Raises BadInput with how many names lack something, and the first of them.

  Args:
    names: container of str.
    is_there: function of a name, whether it lacks nothing.
    what: str, the file, and the names that lack something, for messages.
  """
  missing = [name for name in names if not is_there(name)]
  if missing:
    raise BadInput(
      f'{what}: {len(missing)} of {len(names)}, first {missing[0]!r}; add what '
      'is missing'
    )


def statistics(tasks):
  """Counts what the tasks hold.

  Args:
    tasks: as from `read_tasks`.

  Returns:
    dict of int 'tasks', 'images' and 'answers' (different ones), 'color' and
    'how many' (questions with these words), 'one shot' (tasks whose rarest
    answer has one support image); dicts 'support' and 'query' (pairs per task)
    and 'ways' (answers per task) of total, min, median, mean and max; float
    'majority' and 'majority pooled', the share of query pairs that have the
    commonest answer of the support (of several, the first in `answers`), as
    mean over tasks and over all pairs, and 'chance', the mean of 1 / ways.

  Raises:
    BadInput: no tasks.
  """
  if not tasks:
    raise BadInput('no tasks to count; give a file with some')
  records = tasks.values()
  found = {'tasks': len(tasks)}
  for part in (*PARTS, 'answers'):
    name = 'ways' if part == 'answers' else part
    found[name] = _summary([len(record[part]) for record in records])
  pairs = [p for r in records for part in PARTS for p in r[part]]
  counts = [Counter(a for _, a in r['support']) for r in records]
  rarest = [min(n[a] for a in r['answers']) for n, r in zip(counts, records)]
  hits = []
  for count, record in zip(counts, records):
    guess = max(record['answers'], key=count.__getitem__)
    hits.append([answer == guess for _, answer in record['query']])
  return found | {
    'images': len({image for image, _ in pairs}),
    'answers': len({a for r in records for a in r['answers']}),
    'color': sum('color' in question for question in tasks),
    'how many': sum('How many' in question for question in tasks),
    'one shot': rarest.count(1),
    'majority': float(np.mean([np.mean(hit) for hit in hits])),
    'majority pooled': float(np.mean(np.concatenate(hits))),
    'chance': float(np.mean([1 / len(r['answers']) for r in records])),
  }


def _summary(counts):
  return {
    'total': sum(counts),
    'min': min(counts),
    'median': float(np.median(counts)),
    'mean': float(np.mean(counts)),
    'max': max(counts),
  }


def report(folder):
  """The table of `statistics` for each file of a folder and for all of them.

  Args:
    folder: str. Tasks are counted in the file where they are: nothing is held
      out.

  Returns:
    str, a line per number, a column per file.

  Raises:
    BadInput: as `read_splits`.
  """
  splits = _read_files(folder)
  splits['all'] = {q: t for tasks in splits.values() for q, t in tasks.items()}
  columns = {split: _flat(statistics(tasks)) for split, tasks in splits.items()}
  lines = [' ' * 15 + ''.join(f'{split:>9}' for split in columns)]
  for label in columns['all']:
    values = [column[label] for column in columns.values()]
    form = '9d' if isinstance(values[0], int) else '9.5g'
    lines.append(f'{label:<15}' + ''.join(f'{v:{form}}' for v in values))
  return '\n'.join(lines) + '\n'


def _flat(found):
  flat = {}
  for name, value in found.items():
    if isinstance(value, dict):
      flat |= {f'{name} {key}': number for key, number in value.items()}
    else:
      flat[name] = value
  return flat
