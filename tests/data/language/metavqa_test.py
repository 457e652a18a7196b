"""Meta-VQA is read in the forms of the original, and no fault passes."""

import json
import os

import numpy as np
import pytest

from hyperudl.data.language import metavqa
from hyperudl.data.language import metavqa_build
from tests.testing import errors

WIDTH = 5
BANKS = ('image_features', 'question_features', 'answer_features')


def make_vqa():
  """VQA v2 with ten questions of 21 images and two to four answers each."""
  questions, annotations, number = [], [], 0
  for index in range(10):
    for image in range(21):
      number += 1
      answer = 'abcd'[image % (2 + index % 3)]
      record = {'question_id': number, 'image_id': 5 * index + image}
      questions.append({**record, 'question': f'What is {index}?'})
      fields = {'answer_type': 'other', 'multiple_choice_answer': answer}
      annotations.append({**record, **fields})
  return {'val2014': questions}, {'val2014': annotations}


@pytest.fixture(scope='module')
def files():
  templates = {f'What is {index}?': f'{index} is {{}}' for index in range(10)}
  return metavqa_build.build(*make_vqa(), templates)


def all_tasks(files):
  tasks = {}
  for split in ('train', 'valid', 'test'):
    tasks |= files[f'meta_{split}.json']
  return tasks


def make_banks(files, seed=0):
  """The three dicts of the original: name -> f32[rows, e]."""
  generator = np.random.default_rng(seed)
  tasks = all_tasks(files)
  pairs = [
    p for task in tasks.values() for p in task['support'] + task['query']
  ]
  rows = (
    dict.fromkeys(sorted({image for image, _ in pairs}), 1),
    dict.fromkeys(tasks, 1),
    {name: len(task['answers']) for name, task in tasks.items()},
  )
  return {
    bank: {
      name: generator.normal(size=(count, WIDTH)).astype(np.float32)
      for name, count in counts.items()
    }
    for bank, counts in zip(BANKS, rows)
  }


def save_npz(path, bank):
  names = [name for name, rows in bank.items() for _ in rows]
  np.savez(path, names=names, features=np.concatenate(list(bank.values())))


def write(folder, files, banks=None, form='npy'):
  for name, content in files.items():
    (folder / name).write_text(json.dumps(content))
  for name, bank in (banks or make_banks(files)).items():
    if form == 'npy':
      np.save(folder / f'{name}.npy', bank)
    else:
      save_npz(folder / f'{name}.npz', bank)
  return str(folder)


def assert_equal(one, other):
  for name, left, right in zip(one._fields, one, other):
    assert type(left) is type(right), name
    if isinstance(left, np.ndarray):
      assert left.dtype == right.dtype and np.array_equal(left, right), name
    else:
      assert left == right, name


@pytest.mark.parametrize('split, number', [('train', 6), ('test', 3)])
def test_features_and_tasks_come_back(tmp_path, files, split, number):
  banks = make_banks(files)
  loaded = metavqa.load(write(tmp_path, files, banks), split)
  tasks = files[f'meta_{split}.json']
  assert loaded.names == tuple(tasks) and len(tasks) == number
  most = max(len(task['answers']) for task in tasks.values())
  assert loaded.mask.shape == (number, most) and loaded.mask.dtype == bool
  assert loaded.answers.shape == (number, most, WIDTH)
  images = [p[0] for t in tasks.values() for p in t['support'] + t['query']]
  assert len(loaded.images) == len(set(images)) < len(images)
  for row, (name, task) in enumerate(tasks.items()):
    ways = len(task['answers'])
    assert loaded.answer_names[row] == tuple(task['answers'])
    assert loaded.mask[row].tolist() == [i < ways for i in range(most)]
    assert np.array_equal(
      loaded.answers[row, :ways], banks['answer_features'][name]
    )
    assert not loaded.answers[row, ways:].any()
    assert np.array_equal(
      loaded.question[row], banks['question_features'][name][0]
    )
    for part in ('support', 'query'):
      places = getattr(loaded, part)[row]
      labels = getattr(loaded, f'{part}_y')[row]
      count = len(task[part])
      assert (places[count:] == -1).all() and (labels[count:] == -1).all()
      for place, label, (image, answer) in zip(places, labels, task[part]):
        assert task['answers'][label] == answer
        assert np.array_equal(
          loaded.images[place], banks['image_features'][image][0]
        )
  kinds = [array.dtype for array in loaded[:7]]
  assert kinds == [np.float32, *[np.int32] * 4, *[np.float32] * 2]
  assert min((loaded.support >= 0).sum(1)) < loaded.support.shape[1]


def test_both_formats_and_both_namings_give_the_same_tasks(tmp_path, files):
  folders = [tmp_path / name for name in ('npy', 'npz', 'original', 'half')]
  for folder in folders:
    folder.mkdir()
  original_names = {
    name: {
      q: {'train': t['support'], 'test': t['query'], 'answers': t['answers']}
      for q, t in tasks.items()
    }
    for name, tasks in files.items()
    if name != 'templates.json'
  }
  banks = make_banks(files)
  write(folders[0], files, banks)
  write(folders[1], files, banks, 'npz')
  write(folders[2], {**files, **original_names}, banks)
  for split in ('train', 'valid', 'test'):
    npy, npz, original = (
      metavqa.load(str(folder), split) for folder in folders[:3]
    )
    assert_equal(npz, npy)
    assert_equal(original, npy)
  rounded = {
    name: {key: rows.astype(np.float16) for key, rows in bank.items()}
    for name, bank in banks.items()
  }
  write(folders[3], files, rounded)
  half = metavqa.load(str(folders[3]), 'test')
  assert half.images.dtype == np.float32
  npy = metavqa.load(str(folders[0]), 'test')
  assert np.array_equal(half.images, npy.images.astype(np.float16))


def test_valid_tasks_are_held_out_where_there_is_no_file(tmp_path, files):
  original = dict(files)
  valid = original.pop('meta_valid.json')
  original['meta_train.json'] = {**valid, **original['meta_train.json']}
  folder = write(tmp_path, original, make_banks(files))
  names = {s: metavqa.load(folder, s).names for s in ('train', 'valid', 'test')}
  assert len(names['train']) == 6 and len(names['valid']) == 1
  assert sorted(names['train'] + names['valid']) == sorted(
    original['meta_train.json']
  )
  assert names['test'] == tuple(files['meta_test.json'])


def test_tasks_with_many_answers_are_dropped(tmp_path, files, caplog):
  folder = write(tmp_path, files)
  tasks = files['meta_train.json']
  few = tuple(name for name in tasks if len(tasks[name]['answers']) <= 3)
  assert 0 < len(few) < len(tasks)
  with caplog.at_level('INFO', logger='absl'):
    loaded = metavqa.load(folder, 'train', ways=3)
  assert loaded.names == few and loaded.mask.shape == (len(few), 3)
  dropped = len(tasks) - len(few)
  assert f'dropped {dropped} of {len(tasks)} train tasks' in caplog.text
  assert metavqa.load(folder, 'train', ways=4).names == tuple(tasks)
  message = errors.refusal(metavqa.load, folder, 'train', ways=1)
  assert 'none of which is left with ways=1' in message


def ones(*shape):
  return np.ones(shape, np.float32)


def first(files, split='train'):
  question = next(iter(files[f'meta_{split}.json']))
  return question, files[f'meta_{split}.json'][question]


@pytest.fixture
def refusal(tmp_path, files):
  """Return how a set is refused after a change of (features, templates)."""

  def refuse(change):
    folder = tmp_path / str(len(os.listdir(tmp_path)))
    folder.mkdir()
    banks, templates = make_banks(files), dict(files['templates.json'])
    change(banks, templates)
    content = {**files, 'templates.json': templates}
    message = errors.refusal(
      metavqa.load, write(folder, content, banks), 'train'
    )
    return message.removeprefix(f'{folder}{os.sep}')

  return refuse


def test_images_without_one_row_are_counted(refusal, files):
  _, task = first(files)
  pairs = [
    pair
    for t in files['meta_train.json'].values()
    for pair in t['support'] + t['query']
  ]
  images = list(dict.fromkeys(image for image, _ in pairs))
  assert images[0] == task['support'][0][0]

  def no_images(banks, templates):
    del banks['image_features'][images[3]], banks['image_features'][images[5]]

  assert refusal(no_images) == (
    f'image_features.npy: images without exactly one row: 2 of {len(images)}, '
    f'first {images[3]!r}; add what is missing'
  )
  double = lambda banks, _: banks['image_features'].update(
    {images[4]: ones(2, WIDTH)}
  )
  assert f'row: 1 of {len(images)}, first {images[4]!r}' in refusal(double)


def test_questions_without_features_are_counted(refusal, files):
  question, task = first(files)
  last = list(files['meta_train.json'])[-1]
  gone = lambda banks, _: banks['question_features'].pop(last)
  assert refusal(gone) == (
    'question_features.npy: questions without exactly one row: 1 of 6, first '
    f'{last!r}; add what is missing'
  )

  def fewer_answers(banks, templates):
    banks['answer_features'][question] = ones(len(task['answers']) - 1, WIDTH)
    del banks['answer_features'][last]

  assert refusal(fewer_answers) == (
    'answer_features.npy: questions without exactly one row per answer: 2 of 6,'
    f' first {question!r}; add what is missing'
  )


def test_features_of_another_width_are_refused(refusal, files):
  other = lambda banks, _: banks.update(
    question_features={name: ones(1, WIDTH + 1) for name in all_tasks(files)}
  )
  message = refusal(other)
  assert 'question_features.npy' in message
  assert f'{WIDTH + 1} features; expected {WIDTH} as in the others' in message


def test_questions_without_a_proper_template_are_named(refusal, files):
  last = list(files['meta_train.json'])[-1]
  bare = lambda _, templates: templates.pop(last)
  assert refusal(bare) == (
    f'templates.json: questions without a template: 1 of 6, first {last!r}; '
    'add what is missing'
  )
  twice = lambda _, templates: templates.update({last: '{} or {}'})
  assert refusal(twice).startswith(
    f"templates.json: {last!r} has '{{}} or {{}}'"
  )


def test_missing_and_duplicate_files_are_refused(tmp_path, files):
  folder = write(tmp_path, files)
  message = errors.refusal(metavqa.load, folder, 'training')
  assert message == "split='training': expected one of train, valid, test"
  save_npz(tmp_path / 'answer_features.npz', {'x': ones(1, WIDTH)})
  message = errors.refusal(metavqa.load, folder, 'train')
  assert 'has 2 of answer_features.npz and answer_features.npy' in message
  for end in ('npz', 'npy'):
    os.remove(tmp_path / f'answer_features.{end}')
  message = errors.refusal(metavqa.load, folder, 'train')
  assert 'has 0 of answer_features.npz and answer_features.npy' in message
  for name in ('templates.json', 'meta_train.json'):
    os.remove(tmp_path / name)
    message = errors.refusal(metavqa.load, folder, 'test')
    assert f'{name}: cannot be read (No such file' in message
