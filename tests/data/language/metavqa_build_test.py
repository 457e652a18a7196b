"""The tasks of Meta-VQA follow from VQA v2 by rules counted here by hand."""

import itertools

import pytest

from hyperudl.data.language import metavqa_tasks
from tests.testing import errors
from tests.testing import vqa as helper

CAT = helper.CAT
# range(n) as random.Random(2021).shuffle leaves it.
SHUFFLED = {
  6: [1, 5, 0, 2, 4, 3],
  15: [5, 14, 1, 2, 11, 12, 9, 7, 0, 3, 4, 8, 10, 6, 13],
  20: [18, 3, 2, 6, 10, 11, 0, 13, 19, 4, 5, 15, 9, 14, 16, 1, 7, 8, 17, 12],
}


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
  task = helper.cats().tasks()[CAT]
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
  one, other = (
    helper.cats().tasks()[CAT],
    helper.cats().tasks(seed=2022)[CAT],
  )
  assert one != other and count(one) == count(other)
  pairs = [sorted(t['support'] + t['query']) for t in (one, other)]
  assert pairs[0] == pairs[1]


def test_answers_of_type_number_and_other_are_kept():
  vqa = helper.cats().add(CAT, 'no', (31, 32), kind='yes/no')
  vqa.add(CAT, '2', (41, 42, 43), kind='number')
  assert count(vqa.tasks()[CAT]) == {
    'black': (10, 5),
    'white': (4, 2),
    '2': (2, 1),
  }


def test_questions_are_grouped_by_their_exact_text():
  vqa = helper.cats()
  for text in ('what color is the cat?', CAT + ' '):
    vqa.add(text, 'black', range(1, 12)).add(text, 'red', range(12, 22))
  vqa.add('What color is the cat', 'black', (50, 51))
  tasks = vqa.tasks()
  assert set(tasks) == {CAT, 'what color is the cat?', CAT + ' '}
  assert tasks[CAT] == helper.cats().tasks()[CAT]


def test_the_first_use_of_an_image_counts():
  vqa = helper.cats().add(CAT, 'white', (1, 2))
  assert vqa.tasks() == helper.cats().tasks()
  # 60 was used for an answer that occurs once: it is spent all the same.
  vqa = helper.cats().add(CAT, 'grey', (60,)).add(CAT, 'white', (60,))
  assert vqa.tasks() == helper.cats().tasks()
  # The same number in the other subset is another image.
  vqa = helper.cats().add(CAT, 'white', (20,), 'val2014')
  assert count(vqa.tasks()[CAT])['white'] == (5, 2)
  # And another question may use it again.
  vqa = helper.cats().add('Is it?', 'a', range(1, 12))
  vqa.add('Is it?', 'b', range(12, 22))
  assert set(vqa.tasks()) == {CAT, 'Is it?'}


def test_answers_that_occur_once_are_dropped():
  vqa = helper.cats().add(CAT, 'grey', (60,)).add(CAT, 'red', (61, 62))
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
  vqa, images = helper.cats(), itertools.count(1)
  for answer, number in answers.items():
    vqa.add(question, answer, itertools.islice(images, number))
  assert set(vqa.tasks()) == {CAT} | ({question} if is_kept else set())


def test_each_answer_is_in_support_and_in_query():
  vqa, images = helper.Vqa(), itertools.count(1)
  for number in range(2, 13):
    vqa.add(CAT, f'{number}', itertools.islice(images, number))
  counts = count(vqa.tasks()[CAT])
  # 1.4, 2.1, 2.8, 3.5, 4.2, 4.9, 5.6, 6.3, 7, 7.7 and 8.4, rounded.
  support = [1, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]
  assert list(counts.values()) == [
    (shots, number - shots) for number, shots in zip(range(2, 13), support)
  ]


def many(number):
  vqa = helper.Vqa()
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
  files = helper.cats().build(templates)
  assert files['templates.json'] == {CAT: 'the cat is {}'}


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
  vqa = helper.cats()
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
  assert words in errors.refusal(helper.cats().build, templates)
