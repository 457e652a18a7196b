"""Choices of tasks with language; labels and order of what was loaded."""

import numpy as np
import pytest

from hyperudl.data.language import task_set
from tests.testing import errors
from tests.testing import glyphvqa as helper


@pytest.mark.parametrize(
  'choice',
  [{'size': 'huge'}, {'level': 'words'}, {'answers': 'all'}],
)
def test_an_unknown_choice_is_refused(choice):
  ((name, value),) = choice.items()
  message = errors.refusal(task_set.LanguageConfig, **choice)
  assert message.startswith(f'config.language.{name} = {value!r} is none of ')


def test_tasks_without_labels_get_those_of_their_own_images():
  tasks = helper.load('train')
  own = task_set.with_labels(tasks._replace(labels=None, label_rows=None))
  whole = task_set.with_labels(tasks)
  assert whole is tasks
  labels = own.labels[own.label_rows]
  known = labels >= 0
  rows = np.concatenate([tasks.support, tasks.query], axis=1)
  np.testing.assert_array_equal(known.sum(axis=1), (rows >= 0).sum(axis=1))
  every = tasks.labels[tasks.label_rows]
  np.testing.assert_array_equal(labels[known], every[known])
  assert (every >= 0).sum() > known.sum()


def test_tasks_in_another_order_are_the_same_tasks():
  tasks = helper.load('train')
  count = len(tasks.names)
  latents = np.arange(2.0 * count * 3).reshape(2, count, 3)
  tasks = tasks._replace(latents=latents)
  order = np.random.default_rng(0).permutation(count)
  moved = task_set.reordered(tasks, order)
  assert sorted(order) == list(range(count)) and list(order) != sorted(order)
  for new, old in enumerate(order):
    assert moved.names[new] == tasks.names[old]
    assert moved.answer_names[new] == tasks.answer_names[old]
  unmoved = {'images', 'total', 'words', 'labels', 'captions'}
  unmoved |= {'names', 'answer_names'}
  for name in {*tasks._fields} - unmoved - {'latents'}:
    values, expected = getattr(moved, name), getattr(tasks, name)[order]
    np.testing.assert_array_equal(values, expected, name)
  np.testing.assert_array_equal(moved.latents, latents[:, order])
