"""Files of Meta-VQA tasks: no fault passes, and the counts are right."""

import copy
import json

import pytest

from hyperudl.data.language import metavqa_tasks
from tests.testing import errors

COLOR = 'What color is it?'
MANY = 'How many color pens?'
THIS = "What's this?"


def pairs(start, **counts):
  """[[image, answer], ...]: each answer `counts` times, images from `start`."""
  answers = [answer for answer, count in counts.items() for _ in range(count)]
  return [[f'i{start + row}', answer] for row, answer in enumerate(answers)]


def make_tasks():
  return {
    COLOR: {
      'support': pairs(0, a=3, b=1),
      'query': pairs(10, a=2, b=1),
      'answers': ['a', 'b'],
    },
    # The image i0 again, and a draw, which `answers` decides for z.
    MANY: {
      'support': pairs(20, x=2, a=2) + [['i0', 'z'], ['i30', 'z']],
      'query': pairs(40, x=1, a=1, z=2),
      'answers': ['z', 'x', 'a'],
    },
    THIS: {
      'support': pairs(50, a=9, c=2),
      'query': pairs(70, c=3),
      'answers': ['a', 'c'],
    },
  }


def sizes(name, *numbers):
  labels = ('total', 'min', 'median', 'mean', 'max')
  return {f'{name} {label}': n for label, n in zip(labels, numbers)}


def test_statistics_are_those_counted_by_hand():
  assert metavqa_tasks.statistics(make_tasks()) == {
    'tasks': 3,
    **sizes('support', 21, 4, 6, 7, 11),
    **sizes('query', 10, 3, 3, 10 / 3, 4),
    **sizes('ways', 7, 2, 2, 7 / 3, 3),
    'images': 30,
    'answers': 5,
    'color': 2,
    'how many': 1,
    'one shot': 1,
    'majority': pytest.approx((2 / 3 + 2 / 4 + 0) / 3),
    'majority pooled': pytest.approx(4 / 10),
    'chance': pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3),
  }
  message = errors.refusal(metavqa_tasks.statistics, {})
  assert message.startswith('no tasks to count')


def save(folder, name, tasks):
  path = folder / name
  path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
  return str(path)


def test_a_report_has_a_column_per_file_and_one_of_all(tmp_path):
  tasks = make_tasks()
  test = {THIS: tasks.pop(THIS)}
  save(tmp_path, 'meta_train.json', tasks)
  save(tmp_path, 'meta_test.json', test)
  lines = metavqa_tasks.report(str(tmp_path)).splitlines()
  table = {line[:15].strip(): line[15:].split() for line in lines}
  assert len({len(line) for line in lines}) == 1
  assert table[''] == ['train', 'test', 'all']
  assert table['tasks'] == ['2', '1', '3']
  assert table['support total'] == ['10', '11', '21']
  assert table['support median'] == ['5', '11', '6']
  assert table['query mean'] == ['3.5', '3', '3.3333']
  assert table['ways max'] == ['3', '2', '3']
  assert table['images'] == ['16', '14', '30']
  assert table['majority'] == ['0.58333', '0', '0.38889']
  assert table['chance'] == ['0.41667', '0.5', '0.44444']
  assert len(table) == 1 + 1 + 3 * 5 + 8
  save(tmp_path, 'meta_valid.json', {'Is it?': tasks[COLOR]})
  lines = metavqa_tasks.report(str(tmp_path)).splitlines()
  assert lines[0].split() == ['train', 'valid', 'test', 'all']
  assert lines[1].split() == ['tasks', '2', '1', '1', '4']


def test_a_question_belongs_to_one_split(tmp_path):
  tasks = make_tasks()
  save(tmp_path, 'meta_train.json', tasks)
  save(tmp_path, 'meta_test.json', {THIS: tasks[THIS], COLOR: tasks[COLOR]})
  assert errors.refusal(metavqa_tasks.read_splits, str(tmp_path)) == (
    f'{tmp_path}: 2 questions, first {COLOR!r}, are in meta_train.json and in '
    'meta_test.json; remove them from one'
  )


def test_big_numbers_are_written_in_full(tmp_path):
  big = {
    'support': [['i0', 'a']] * 123457,
    'query': [['i1', 'a']],
    'answers': ['a', 'b'],
  }
  save(tmp_path, 'meta_train.json', {COLOR: big})
  save(tmp_path, 'meta_test.json', {THIS: big})
  assert (
    '\nsupport total     123457   123457   246914\n'
    in metavqa_tasks.report(str(tmp_path))
  )


def test_both_namings_are_read(tmp_path):
  tasks = make_tasks()
  ours = save(tmp_path, 'ours.json', tasks)
  original = {
    q: {'train': t['support'], 'test': t['query'], 'answers': t['answers']}
    for q, t in tasks.items()
  }
  assert metavqa_tasks.read_tasks(ours) == tasks
  assert (
    metavqa_tasks.read_tasks(save(tmp_path, 'original.json', original)) == tasks
  )


def put(*keys_and_value):
  *keys, value = keys_and_value

  def change(task):
    for key in keys[:-1]:
      task = task[key]
    task[keys[-1]] = value

  return change


@pytest.mark.parametrize(
  'change, words',
  [
    (
      put('query', 1, ['i99', 'c']),
      "query[1] has the answer 'c', which is not",
    ),
    (put('support', 3, ['i9', 'A']), "support[3] has the answer 'A', which is"),
    (put('answers', ['a']), "answers ['a']; expected a list of two or more"),
    (put('answers', ['a', 'b', 'a']), 'two or more different strings'),
    (put('answers', ['a', 'b', 3]), "answers ['a', 'b', 3]; expected"),
    (put('answers', 'ab'), "answers 'ab'; expected"),
    (put('support', []), 'support is []; expected a list of one or more'),
    (put('query', []), 'query is []; expected a list of one or more'),
    (put('query', {'i1': 'a'}), "query is {'i1': 'a'}; expected"),
    (put('query', 0, ['i1']), "query[0] is ['i1']; expected [image, answer]"),
    (put('query', 0, ['i1', 2]), "query[0] is ['i1', 2]; expected [image"),
    (put('query', 0, 'ab'), "query[0] is 'ab'; expected [image, answer]"),
    (put('query', 0, ['i0', 'a']), "image 'i0' is in support and in query"),
    (
      lambda task: task.pop('answers'),
      'expected an object with support, query',
    ),
    (lambda task: task.pop('query'), '(or train, test) and answers'),
  ],
)
def test_a_bad_task_is_named(tmp_path, change, words):
  tasks = make_tasks()
  assert metavqa_tasks.read_tasks(save(tmp_path, 'set.json', tasks)) == tasks
  changed = copy.deepcopy(tasks)
  change(changed[COLOR])
  path = save(tmp_path, 'set.json', changed)
  message = errors.refusal(metavqa_tasks.read_tasks, path)
  assert message.startswith(f'{path}: {COLOR!r}: ') and words in message


@pytest.mark.parametrize(
  'content, words',
  [
    ('', 'not JSON (Expecting value'),
    ('{"What?": {"support": [["a", "b"],', 'not JSON (Expecting'),
    ('{}\n{}', 'not JSON (Extra data'),
    ('[' * 200000, 'not JSON ('),
    ('{}', '{}; expected an object with an entry per question'),
    ('[["a", "b"]]', "[['a', 'b']]; expected an object"),
    ('"two\\nlines"', "'two\\nlines'; expected an object"),
    ('{"What?": 3}', "'What?': 3; expected an object with support"),
    ('{"two\\nlines": []}', "'two\\nlines': []; expected an object"),
  ],
)
def test_a_bad_file_is_named(tmp_path, content, words):
  path = save(tmp_path, 'set.json', content)
  message = errors.refusal(metavqa_tasks.read_tasks, path)
  assert message.startswith(f'{path}: ') and words in message


def test_bytes_that_are_not_text_and_missing_files_are_named(tmp_path):
  path = tmp_path / 'set.json'
  message = errors.refusal(metavqa_tasks.read_tasks, str(path))
  assert 'cannot be read' in message
  path.write_bytes(b'{"\xff": 1}')
  assert 'not JSON' in errors.refusal(metavqa_tasks.read_tasks, str(path))
