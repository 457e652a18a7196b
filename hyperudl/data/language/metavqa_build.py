"""Builds the few-shot tasks of Meta-VQA from the records of VQA v2."""

import json
import os
import tempfile
from typing import Any

from hyperudl.core import BadInput
from hyperudl.data.language import metavqa_tasks
from hyperudl.storage import filesystem

_QUESTION = ('question_id', 'question')
_ANNOTATION = (
  'question_id',
  'image_id',
  'answer_type',
  'multiple_choice_answer',
)
SUBSETS = ('train2014', 'val2014')
_FILES = {  # as VQA v2 names them, and the key of the records
  'questions': ('v2_OpenEnded_mscoco_{}_questions.json', 'questions'),
  'annotations': ('v2_mscoco_{}_annotations.json', 'annotations'),
}


def convert(source: str, folder: str, seed: int = metavqa_tasks.SEED) -> str:
  """Build tasks in a folder and report them, or report those of `source`.

  Args:
    source: folder with the question and annotation files of VQA v2 (train2014
      and val2014) and templates.json; or with meta_train.json and
      meta_test.json, which are only reported.
    folder: target of the JSON files.
    seed: seed of every shuffle.

  Returns:
    The table of `metavqa_tasks.report`.

  Raises:
    BadInput: a missing or faulty file; nothing has been written.
    Unwritable: the disk is full or the folder cannot be written.
  """
  if is_built(source):
    return metavqa_tasks.report(source)
  if os.path.realpath(source) == os.path.realpath(folder):
    raise BadInput(
      f'{folder} is the source itself, whose templates.json would be replaced: '
      'give another --name or --out'
    )
  records: dict[str, dict[str, list[Any]]] = {}
  for kind, (name, key) in _FILES.items():
    records[kind] = {}
    for subset in SUBSETS:
      path = os.path.join(source, name.format(subset))
      content = metavqa_tasks.read_json(path)
      if not isinstance(content.get(key), list):
        raise BadInput(f'{path}: expected an object with a list {key!r}')
      records[kind][subset] = content[key]
  templates = metavqa_tasks.read_json(os.path.join(source, 'templates.json'))
  files = build(records['questions'], records['annotations'], templates, seed)
  _write(folder, files)
  return metavqa_tasks.report(folder) + f'wrote {folder}\n'


def is_built(folder: str) -> bool:
  """Return whether a folder already has tasks."""
  return os.path.exists(os.path.join(folder, 'meta_train.json'))


def _write(folder, files):
  """Write all files or none; other files in the folder are kept."""
  with filesystem.writing(folder):
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
      for name, content in files.items():
        with open(os.path.join(temporary, name), 'w') as file:
          json.dump(content, file, indent=1)
      for name in files:
        os.replace(os.path.join(temporary, name), os.path.join(folder, name))


def build(
  questions: dict[str, list[Any]],
  annotations: dict[str, list[Any]],
  templates: dict[str, str],
  seed: int = metavqa_tasks.SEED,
) -> dict[str, Any]:
  """Make the tasks of Meta-VQA from VQA v2.

  Annotations with answer type 'number' or 'other' are grouped by the exact
  question over all subsets; only the first one of an image counts. Answers that
  occur once are dropped, then questions with 20 images or fewer, with one
  answer or with the word "or". Of the n shuffled images of an answer,
  round(0.7 n) become support and the rest query, so each answer is in both. Of
  the shuffled questions 70% are for training, a tenth of which become valid
  (`metavqa_tasks.hold_out`); the original has the same test and no valid tasks.

  Args:
    questions: {subset ('train2014', ...): dicts with question_id, question}.
    annotations: {subset: list of dicts} with question_id, image_id,
      answer_type and multiple_choice_answer; train2014 before val2014.
    templates: {question: sentence with one {}}.
    seed: seed of every shuffle.

  Returns:
    {file name: content} of the splits and of templates.json for these tasks.

  Raises:
    BadInput: a faulty record, a missing template, or no tasks.
  """
  grouped = _group(questions, annotations)
  tasks = {}
  for question, images in grouped.items():
    images = {a: names for a, names in images.items() if len(names) > 1}
    count = sum(map(len, images.values()))
    if count > 20 and len(images) > 1 and 'or' not in question.split():
      tasks[question] = _make_task(images, seed)
  if not tasks:
    raise BadInput(
      f'VQA: none of {len(grouped)} questions has more than 20 images whose '
      'answers occur twice, and two answers; give whole subsets'
    )
  metavqa_tasks.check_templates(templates, tasks, 'templates')
  train, test = _deal(tasks, seed)
  train, valid = metavqa_tasks.hold_out(train, seed)
  return {
    'meta_train.json': train,
    'meta_valid.json': valid,
    'meta_test.json': test,
    'templates.json': {name: templates[name] for name in tasks},
  }


def _group(questions, annotations):
  """Return {question: {answer: [image, ...]}} in the order of the records."""
  if set(questions) != set(annotations):
    raise BadInput(
      f'VQA: questions of {sorted(questions)} but annotations of '
      f'{sorted(annotations)}; give both of each subset'
    )
  grouped, used = {}, set()
  for subset, records in annotations.items():
    texts = dict(
      _fields(record, _QUESTION, f'{subset} question {row}')
      for row, record in enumerate(questions[subset])
    )
    for row, record in enumerate(records):
      where = f'{subset} annotation {row}'
      number, image, kind, answer = _fields(record, _ANNOTATION, where)
      if number not in texts:
        raise BadInput(
          f'VQA: {where}: question_id {number!r} is not in the questions of '
          f'{subset}; give the questions of the same release'
        )
      name = f'COCO_{subset}_{str(image).zfill(12)}'
      key = (texts[number], name)
      if kind in ('number', 'other') and key not in used:
        used.add(key)
        images = grouped.setdefault(texts[number], {})
        images.setdefault(answer, []).append(name)
  return grouped


def _fields(record, names, where):
  for name in names:
    if not isinstance(record, dict) or name not in record:
      raise BadInput(
        f'VQA: {where} has no {name!r}; expected a record of VQA v2 with '
        f'{", ".join(names)}'
      )
  return [record[name] for name in names]


def _make_task(images, seed):
  support, query = [], []
  for answer, names in images.items():
    pairs = [[n, answer] for n in metavqa_tasks.shuffled(names, seed)]
    cut = round(0.7 * len(pairs))
    support += pairs[:cut]
    query += pairs[cut:]
  return {'support': support, 'query': query, 'answers': list(images)}


def _deal(tasks, seed):
  """Return the tasks split into (train, test)."""
  order = metavqa_tasks.shuffled(tasks, seed)
  cut = round(0.7 * len(order))
  return tuple(
    {name: tasks[name] for name in names}
    for names in (order[:cut], order[cut:])
  )
