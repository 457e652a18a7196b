"""The tasks of Meta-VQA follow from VQA v2 by rules counted here by hand."""

import itertools
import json

import pytest

from hyperudl.data import convert
from hyperudl.data.language import metavqa_build
from hyperudl.data.language import metavqa_tasks
from tests.testing import errors

CAT = 'What color is the cat?'
# range(n) as random.Random(2021).shuffle leaves it.
SHUFFLED = {
  6: [1, 5, 0, 2, 4, 3],
  15: [5, 14, 1, 2, 11, 12, 9, 7, 0, 3, 4, 8, 10, 6, 13],
  20: [18, 3, 2, 6, 10, 11, 0, 13, 19, 4, 5, 15, 9, 14, 16, 1, 7, 8, 17, 12],
}


class Vqa:
  """Records of VQA v2 in the order in which they are added."""

  def __init__(self):
    self.questions = {'train2014': [], 'val2014': []}
    self.annotations = {'train2014': [], 'val2014': []}
    self.numbers = itertools.count(1000)

  def add(self, question, answer, images, subset='train2014', kind='other'):
    for image in images:
      number = next(self.numbers)
      self.questions[subset].append(
        {'image_id': image, 'question': question, 'question_id': number}
      )
      self.annotations[subset].append(
        {
          'question_id': number,
          'image_id': image,
          'question_type': 'what',
          'answer_type': kind,
          'multiple_choice_answer': answer,
          'answers': [{'answer': answer}],
        }
      )
    return self

  def build(self, templates=None, **options):
    if templates is None:
      asked = itertools.chain(*self.questions.values())
      templates = {record['question']: 'it is {}' for record in asked}
    return metavqa_build.build(
      self.questions, self.annotations, templates, **options
    )

  def tasks(self, **options):
    files = self.build(**options)
    del files['templates.json']
    return {
      name: task for part in files.values() for name, task in part.items()
    }


def cats():
  """21 images: 15 black, 3 of them in the other subset, and 6 white."""
  vqa = Vqa().add(CAT, 'black', range(1, 13)).add(CAT, 'white', range(20, 26))
  return vqa.add(CAT, 'black', range(1, 4), 'val2014')


def count(task):
  """(support, query) images of each answer."""
  return {
    answer: tuple(
      sum(pair[1] == answer for pair in task[part])
      for part in ('support', 'query')
    )
    for answer in task['answers']
  }


def test_one_task_equals_the_one_made_by_hand():
  task = cats().tasks()[CAT]
  assert list(task) == ['support', 'query', 'answers']
  assert task['answers'] == ['black', 'white']
  # 0.7 * 15 = 10.5 and round() takes the even neighbour; 0.7 * 6 = 4.2.
  assert count(task) == {'black': (10, 5), 'white': (4, 2)}
  black = [f'COCO_train2014_{i:012d}' for i in range(1, 13)]
  black += [f'COCO_val2014_{i:012d}' for i in range(1, 4)]
  white = [f'COCO_train2014_0000000000{i}' for i in range(20, 26)]
  black = [[black[i], 'black'] for i in SHUFFLED[15]]
  white = [[white[i], 'white'] for i in SHUFFLED[6]]
  assert task['support'] == black[:10] + white[:4]
  assert task['query'] == black[10:] + white[4:]


def test_the_seed_changes_the_order_alone():
  one, other = cats().tasks()[CAT], cats().tasks(seed=2022)[CAT]
  assert one != other and count(one) == count(other)
  pairs = [sorted(t['support'] + t['query']) for t in (one, other)]
  assert pairs[0] == pairs[1]


def test_answers_of_type_number_and_other_are_kept():
  vqa = cats().add(CAT, 'no', (31, 32), kind='yes/no')
  vqa.add(CAT, '2', (41, 42, 43), kind='number')
  assert count(vqa.tasks()[CAT]) == {
    'black': (10, 5),
    'white': (4, 2),
    '2': (2, 1),
  }


def test_questions_are_grouped_by_their_exact_text():
  vqa = cats()
  for text in ('what color is the cat?', CAT + ' '):
    vqa.add(text, 'black', range(1, 12)).add(text, 'red', range(12, 22))
  vqa.add('What color is the cat', 'black', (50, 51))
  tasks = vqa.tasks()
  assert set(tasks) == {CAT, 'what color is the cat?', CAT + ' '}
  assert tasks[CAT] == cats().tasks()[CAT]


def test_the_first_use_of_an_image_counts():
  vqa = cats().add(CAT, 'white', (1, 2))
  assert vqa.tasks() == cats().tasks()
  # 60 was used for an answer that occurs once: it is spent all the same.
  vqa = cats().add(CAT, 'grey', (60,)).add(CAT, 'white', (60,))
  assert vqa.tasks() == cats().tasks()
  # The same number in the other subset is another image.
  vqa = cats().add(CAT, 'white', (20,), 'val2014')
  assert count(vqa.tasks()[CAT])['white'] == (5, 2)
  # And another question may use it again.
  vqa = (
    cats().add('Is it?', 'a', range(1, 12)).add('Is it?', 'b', range(12, 22))
  )
  assert set(vqa.tasks()) == {CAT, 'Is it?'}


def test_answers_that_occur_once_are_dropped():
  vqa = cats().add(CAT, 'grey', (60,)).add(CAT, 'red', (61, 62))
  assert vqa.tasks()[CAT]['answers'] == ['black', 'white', 'red']


@pytest.mark.parametrize(
  'question, answers, is_kept',
  [
    ('What is it?', {'a': 11, 'b': 10}, True),
    ('What is it?', {'a': 11, 'b': 9}, False),
    # 25 images, 20 of which have an answer that occurs twice.
    ('What is it?', {'a': 11, 'b': 9, **dict.fromkeys('cdefg', 1)}, False),
    ('What is it?', {'a': 30}, False),
    ('What is it?', {'a': 30, 'b': 1}, False),
    ('Is it red or blue?', {'a': 11, 'b': 10}, False),
    ('What color is the floor?', {'a': 11, 'b': 10}, True),
    ('Or is it red?', {'a': 11, 'b': 10}, True),
  ],
)
def test_questions_of_few_images_or_of_a_choice_are_dropped(
  question, answers, is_kept
):
  vqa, images = cats(), itertools.count(1)
  for answer, number in answers.items():
    vqa.add(question, answer, itertools.islice(images, number))
  assert set(vqa.tasks()) == {CAT} | ({question} if is_kept else set())


def test_each_answer_is_in_support_and_in_query():
  vqa, images = Vqa(), itertools.count(1)
  for number in range(2, 13):
    vqa.add(CAT, f'{number}', itertools.islice(images, number))
  counts = count(vqa.tasks()[CAT])
  # 1.4, 2.1, 2.8, 3.5, 4.2, 4.9, 5.6, 6.3, 7, 7.7 and 8.4, rounded.
  support = [1, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]
  assert list(counts.values()) == [
    (shots, number - shots) for number, shots in zip(range(2, 13), support)
  ]


def many(number):
  vqa = Vqa()
  for index in range(number):
    question = f'What is number {index}?'
    vqa.add(question, 'a', range(11)).add(question, 'b', range(11, 21))
  return vqa


def test_tasks_are_dealt_to_the_splits():
  files = many(20).build()
  assert len(files) == 4
  train, valid, test = (
    list(files[f'meta_{split}.json']) for split in ('train', 'valid', 'test')
  )
  order = [f'What is number {i}?' for i in SHUFFLED[20]]
  assert set(files['templates.json']) == set(order)
  assert test == order[14:] and len(valid) == 1
  assert [n for n in order[:14] if n not in valid] == train


def test_the_seed_changes_the_splits():
  files = many(20).build(seed=7)
  train, valid = (files[f'meta_{split}.json'] for split in ('train', 'valid'))
  assert set(train | valid) != {
    f'What is number {i}?' for i in SHUFFLED[20][:14]
  }
  assert metavqa_tasks.hold_out(train | valid, 7)[1] == valid
  assert metavqa_tasks.hold_out(train | valid)[1] != valid


def test_a_tenth_of_the_training_tasks_is_held_out():
  tasks = {f'{i}?': i for i in range(36)}
  train, valid = metavqa_tasks.hold_out(tasks)
  assert len(valid) == 4 and train | valid == tasks
  assert list(train) == [name for name in tasks if name in train]
  backwards = dict(reversed(tasks.items()))
  assert metavqa_tasks.hold_out(backwards) == (train, valid)
  assert metavqa_tasks.hold_out(tasks, 1)[1] != valid
  for few, held in (('a', 0), ('ab', 1), ('abcde', 1)):
    assert len(metavqa_tasks.hold_out(dict.fromkeys(few))[1]) == held


def test_templates_are_those_of_the_tasks():
  templates = {CAT: 'the cat is {}', 'What?': 'broken'}
  assert cats().build(templates)['templates.json'] == {CAT: 'the cat is {}'}


def drop(subset, field, row):
  def change(vqa):
    del vqa.annotations[subset][row][field]

  return change


@pytest.mark.parametrize(
  'change, words',
  [
    (drop('val2014', 'image_id', 2), "val2014 annotation 2 has no 'image_id'"),
    (drop('train2014', 'answer_type', 0), "annotation 0 has no 'answer_type'"),
    (
      lambda vqa: vqa.questions['train2014'][1].pop('question'),
      "train2014 question 1 has no 'question'",
    ),
    (
      lambda vqa: vqa.annotations['train2014'].append(['x']),
      "train2014 annotation 18 has no 'question_id'; expected a record of VQA",
    ),
    (
      lambda vqa: vqa.questions['val2014'].pop(0),
      'val2014 annotation 0: question_id 1018 is not in the questions',
    ),
    (
      lambda vqa: vqa.questions.pop('val2014'),
      "questions of ['train2014'] but annotations of ['train2014', 'val2014']",
    ),
    (
      lambda vqa: vqa.annotations['train2014'].pop(),
      'none of 1 questions has more than 20 images',
    ),
  ],
)
def test_bad_records_are_named(change, words):
  vqa = cats()
  change(vqa)
  assert words in errors.refusal(vqa.build, {CAT: '{}'})


@pytest.mark.parametrize(
  'templates, words',
  [
    ({}, f'questions without a template: 1 of 1, first {CAT!r}'),
    ({CAT: 'the cat is black'}, "has 'the cat is black'; expected a sentence"),
    ({CAT: '{} and {}'}, 'expected a sentence with one {}'),
    ({CAT: '{} and {x}'}, 'no other braces'),
    ({CAT: 7}, 'has 7; expected'),
  ],
)
def test_bad_templates_are_named(templates, words):
  assert words in errors.refusal(cats().build, templates)


def vqa_folder(folder, vqa):
  """The files of VQA v2 as they are published, and templates."""
  for kind, name in (
    ('questions', 'v2_OpenEnded_mscoco_{}_questions.json'),
    ('annotations', 'v2_mscoco_{}_annotations.json'),
  ):
    for subset, records in getattr(vqa, kind).items():
      (folder / name.format(subset)).write_text(json.dumps({kind: records}))
  asked = {r['question'] for rows in vqa.questions.values() for r in rows}
  templates = {question: 'it is {}' for question in asked}
  (folder / 'templates.json').write_text(json.dumps(templates))


def run_convert(*options):
  return convert.main(['convert', '--kind=metavqa', *options])


def test_the_command_builds_and_describes_and_never_overwrites(
  tmp_path, capsys
):
  vqa = cats()
  for number in range(12):
    question = f'What is thing {number}?'
    vqa.add(question, 'this', range(100, 114))
    vqa.add(question, 'that', range(200, 209))
  vqa_folder(tmp_path, vqa)
  options = [f'--source={tmp_path}', f'--out={tmp_path}', '--name=tasks']
  assert run_convert(*options) == 0
  report = capsys.readouterr().out
  files = {path.name for path in (tmp_path / 'tasks').iterdir()}
  assert files == {
    'meta_train.json',
    'meta_valid.json',
    'meta_test.json',
    'templates.json',
  }
  built = {}
  for split in ('train', 'valid', 'test'):
    path = tmp_path / 'tasks' / f'meta_{split}.json'
    built.update(metavqa_tasks.read_tasks(str(path)))
  assert built == vqa.tasks()
  assert report.endswith(f'wrote {tmp_path / "tasks"}\n')
  assert run_convert(*options) == 2
  assert 'exists; give --overwrite' in capsys.readouterr().err
  # Features that lie there stay.
  (tmp_path / 'tasks' / 'image_features.npz').write_bytes(b'mine')
  assert run_convert(*options, '--overwrite') == 0
  assert (tmp_path / 'tasks' / 'image_features.npz').read_bytes() == b'mine'
  capsys.readouterr()
  # What has been built is only described.
  again = [f'--source={tmp_path / "tasks"}', f'--out={tmp_path}', '--name=b']
  assert run_convert(*again) == 0
  assert capsys.readouterr().out == report.partition('wrote')[0]
  assert not (tmp_path / 'b').exists()


def test_a_missing_file_is_refused_and_nothing_written(tmp_path, capsys):
  vqa_folder(tmp_path, cats())
  (tmp_path / 'v2_mscoco_val2014_annotations.json').unlink()
  options = [f'--source={tmp_path}', f'--out={tmp_path}', '--name=tasks']
  assert run_convert(*options) == 2
  message = capsys.readouterr().err
  assert 'v2_mscoco_val2014_annotations.json' in message
  assert message.count('\n') == 1
  assert not (tmp_path / 'tasks').exists()
