"""Class folders are found as people and their systems leave them."""

import os

import pytest

from hyperudl.data.datasets import image_tree
from tests.testing import errors
from tests.testing import image_sets


def make(folder, *paths):
  """Makes empty files; only their names matter here."""
  for path in paths:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b'')


def names(folder):
  return [entry.name for entry in image_tree.find(str(folder))[0]]


def note(folder):
  return ''.join(image_tree.find(str(folder))[1])


def test_numbered_folders_are_in_natural_order(tmp_path):
  make(tmp_path, *(f'{number}/1.png' for number in range(12)))
  assert names(tmp_path) == [str(number) for number in range(12)]


def test_natural_order_of_equal_numbers_is_that_of_the_text(tmp_path):
  make(tmp_path, 'a10/1.png', 'a2/1.png', 'a02/1.png', 'B1/1.png', '7/1.png')
  assert names(tmp_path) == ['7', 'B1', 'a02', 'a2', 'a10']


def test_linked_classes_and_images_are_read(tmp_path):
  make(tmp_path, 'store/e/1.png', 'set/a/1.png')
  (tmp_path / 'set/e').symlink_to(tmp_path / 'store/e')
  (tmp_path / 'set/a/2.png').symlink_to(tmp_path / 'store/e/1.png')
  assert names(tmp_path / 'set') == ['a', 'e']
  (first, _), _ = image_tree.find(str(tmp_path / 'set'))
  assert len(first.paths) == 2


def test_a_link_that_leads_back_is_refused(tmp_path):
  make(tmp_path, 'a/1.png', 'b/1.png')
  (tmp_path / 'b/up').symlink_to(tmp_path)
  message = errors.refusal(image_tree.find, str(tmp_path))
  assert f'{tmp_path}/b/up: this link leads back' in message


@pytest.mark.parametrize('target', ['missing', 'c'])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, target):
  make(tmp_path, 'a/1.png', 'b/1.png')
  (tmp_path / 'c').symlink_to(tmp_path / target)
  message = errors.refusal(image_tree.find, str(tmp_path))
  assert f'{tmp_path}/c: this link leads nowhere' in message


def test_a_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
  make(tmp_path, 'a/1.png', 'b/1.png')
  listdir = os.listdir

  def forbidding(path):
    if str(path).endswith('/b'):
      raise PermissionError(13, 'Permission denied')
    return listdir(path)

  monkeypatch.setattr(os, 'listdir', forbidding)
  message = errors.refusal(image_tree.find, str(tmp_path))
  assert f'{tmp_path}/b: may not be listed (Permission denied)' in message


def test_what_is_passed_over_is_reported_by_count_and_example(tmp_path):
  make(tmp_path, 'a/1.png', 'a/x.txt', 'b/1.png', 'b/y.TXT', 'b/.DS_Store')
  message = note(tmp_path)
  assert f'{tmp_path}: passed over 3 entries' in message
  assert '2 .txt (such as a/x.txt)' in message
  assert '1 hidden (such as b/.DS_Store)' in message
  make(tmp_path / 'clean', 'a/1.png')
  assert not note(tmp_path / 'clean')


def test_heic_files_without_the_plug_in_are_reported(tmp_path):
  make(tmp_path, 'a/1.png', 'a/IMG_1.HEIC')
  assert '1 .heic (such as a/IMG_1.HEIC); pip install pil' in note(tmp_path)


@pytest.mark.parametrize(
  'junk', ['@eaDir', 'thumbnails', '.thumbnails', '__MACOSX', '.git']
)
def test_thumbnails_and_hidden_folders_are_passed_over(tmp_path, junk):
  make(tmp_path, 'a/1.png', f'a/{junk}/1.png', 'b/1.png', f'{junk}/1.png')
  assert names(tmp_path) == ['a', 'b']
  assert 'passed over 2 entries' in note(tmp_path)


def test_a_class_may_begin_with_an_underscore(tmp_path):
  make(tmp_path, '_f/1.png', 'a/1.png')
  assert names(tmp_path) == ['_f', 'a']


@pytest.mark.parametrize(
  'train, valid, test',
  [
    ('Train', 'Val', 'Test'),
    ('TRAIN', 'VALID', 'TEST'),
    ('training', 'validation', 'testing'),
    ('meta-train', 'meta-val', 'meta-test'),
    ('train_set', 'dev_set', 'test_set'),
    ('Train', 'dev', 'Testing'),
  ],
)
def test_split_names_in_capitals_and_their_synonyms(
  tmp_path, train, valid, test
):
  make(tmp_path, f'{train}/a/1.png', f'{valid}/b/1.png', f'{test}/c/1.png')
  classes, _ = image_tree.find(str(tmp_path))
  found = {entry.name: (entry.split, entry.alphabet) for entry in classes}
  wanted = {'a': ('train', ''), 'b': ('valid', ''), 'c': ('test', '')}
  assert found == wanted


@pytest.mark.parametrize(
  'paths, words',
  [
    (
      ['val/a/1.png', 'validation/b/1.png', 'train/c/1.png'],
      "'val' and 'validation' both name the split valid",
    ),
    (
      ['Train/a/1.png', 'train/b/1.png'],
      "'Train' and 'train' both name the split train",
    ),
    (['train/1.png', 'test/1.png'], 'are named like splits (test, train)'),
    (['dog/train/1.png', 'dog/test/2.png'], 'are named like splits'),
    (['train/a/1.png', 'eval/b/1.png'], 'eval/b: not under train, valid'),
  ],
)
def test_ambiguous_splits_are_refused(tmp_path, paths, words):
  make(tmp_path, *paths)
  assert words in errors.refusal(image_tree.find, str(tmp_path))


def test_a_class_of_trains_is_no_split(tmp_path):
  make(tmp_path, 'train/1.png', 'bus/1.png', 'car/1.png')
  classes, _ = image_tree.find(str(tmp_path))
  assert [(c.split, c.name) for c in classes] == [
    ('', 'bus'),
    ('', 'car'),
    ('', 'train'),
  ]


def test_the_same_class_in_two_splits_is_refused(tmp_path):
  for split in ('Train', 'Val', 'Test'):
    for index, name in enumerate('abc'):
      path = tmp_path / 'set' / split / name / '1.png'
      image_sets.draw(path, image_sets.pixels()[index, 0])
  words = "(test and train) have the same name 'a'"
  for split in ('train', 'test', 'all'):
    assert words in image_sets.refusal(tmp_path, split)


@pytest.mark.parametrize('beside', ['x.txt', '1.png', 'images/x.txt'])
def test_a_list_of_labels_is_mentioned(tmp_path, beside):
  make(tmp_path, 'labels.csv', beside)
  message = errors.refusal(image_tree.find, str(tmp_path))
  assert 'labels.csv is not read: sort images by class' in message
