"""A division into splits names every class once.

Its leak checks are in duplicates_test.py, its stored form in
stored_split_test.py, and what it chooses in dataset_test.py.
"""

import pytest

from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import partition
from tests.testing import errors
from tests.testing import image_sets


def table(count=10, **fields):
  images = image_sets.pixels(count, 5)
  return class_table.from_arrays({'images': images, **fields}, 'here')


@pytest.mark.parametrize('split_by', ['auto', 'class', 'image'])
def test_every_image_is_in_one_split(split_by):
  division = partition.divide(table(), partition.Options(split_by=split_by))
  taken = [
    (index, row)
    for part in division.parts.values()
    for index, rows in zip(part.indices, part.rows)
    for row in (range(5) if rows is None else rows.tolist())
  ]
  assert len(taken) == len(set(taken)) == 50
  assert not division.notes


def test_labels_name_the_alphabet_too():
  alphabets = ['A'] * 5 + ['B'] * 3 + ['C'] * 2
  division = partition.divide(table(alphabets=alphabets), partition.Options())
  split_of = division.classes.split_of
  assert len(split_of) == 10 and 'A/class0000' in split_of


def test_ranges_and_images_cannot_both_be_divided():
  options = partition.Options(ranges='0-3', split_by='image')
  message = errors.refusal(partition.divide, table(), options)
  assert 'choose one of them' in message


def test_a_number_of_classes_is_a_sample_of_a_part():
  part = partition.everything(table())
  few = partition.limit(table(), 'train', part, 4, 0)
  assert len(few.indices) == 4 == len(few.rows)
  assert partition.limit(table(), 'train', part, 0, 0) == part
  args = partition.limit, table(), 'train', part, 11, 0
  assert 'has only 10 classes' in errors.refusal(*args)
