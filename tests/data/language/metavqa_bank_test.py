"""Banks of features are read as data; each of their faults is named."""

import os

import numpy as np
import pytest

from hyperudl.data.language import metavqa
from tests.testing import errors

WIDTH = 5


def refusal(*arguments):
  message = errors.refusal(metavqa.read_features, *arguments)
  assert len(message) < 600
  return message


def ones(*shape):
  return np.ones(shape, np.float32)


class Bomb:
  """Makes a folder when a pickle of it is loaded."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return os.mkdir, (self.target,)


@pytest.mark.parametrize('place', ['whole', 'entry', 'name', 'array'])
def test_a_hostile_pickle_is_refused(tmp_path, place):
  path, target = str(tmp_path / 'bank.npy'), str(tmp_path / 'bang')
  bomb, rows = Bomb(target), np.ones((1, WIDTH), np.float32)
  held = np.empty((1, 1), object)
  held[0, 0] = bomb
  content = {
    'whole': bomb,
    'entry': {'cat': rows, 'dog': bomb},
    'name': {(bomb,): rows},
    'array': {'cat': held},
  }[place]
  whole = np.empty((), object)
  whole[()] = content
  np.save(path, whole, allow_pickle=True)
  message = refusal(path)
  assert message.startswith(path) and 'mkdir' in message
  assert not os.path.exists(target)
  # The same file does go off where nobody is careful.
  np.load(path, allow_pickle=True)
  assert os.path.exists(target)


def test_rows_of_a_bank(tmp_path):
  rows = np.arange(12, dtype=np.float64).reshape(4, 3)
  np.save(tmp_path / 'a.npy', {'cat': rows[:1], 'dogs': rows[1:]})
  # Rows of a name need not be neighbours; their order stays.
  np.savez(
    tmp_path / 'a.npz',
    names=['dogs', 'cat', 'dogs', 'dogs'],
    features=rows[[1, 0, 2, 3]],
  )
  for form in ('npy', 'npz'):
    bank = metavqa.read_features(str(tmp_path / f'a.{form}'), 3)
    assert set(bank) == {'cat', 'dogs'}
    assert bank['cat'].dtype == bank['dogs'].dtype == np.float32
    assert type(bank['dogs']) is np.ndarray
    assert np.array_equal(bank['cat'], rows[0])
    assert np.array_equal(bank['dogs'], rows[1:])


@pytest.mark.parametrize(
  'bank, words',
  [
    ({'cat': ones(1, 4)}, "['cat']: 4 features; expected 5 as in the others"),
    ({'cat': ones(1, 5), 'dog': ones(2, 6)}, "['dog']: 6 features; expected 5"),
    ({'cat': ones(5)}, "['cat']: shape (5,); expected [K, e]"),
    ({'cat': ones(1, 1, 5)}, "['cat']: shape (1, 1, 5); expected [K, e]"),
    ({'cat': ones(0, 5)}, "['cat']: shape (0, 5); expected [K, e]"),
    ({'cat': ones(2, 5) * np.nan}, "['cat']: element [0, 0] is nan"),
    ({'cat': np.diag([1, 1, 1, 1, 1e99])}, "['cat']: element [4, 4] is inf"),
    ({'cat': np.ones((1, 5), int)}, "['cat']: int64; expected an array of"),
    ({'cat': [[1.0] * 5]}, "['cat']: list; expected an array of floats"),
    ({'cat': np.array([[None] * 5])}, "['cat']: object; expected an array"),
    ({7: ones(1, 5)}, 'entry 7 has a name of type int; expected a string'),
    ({}, 'object of shape (); expected a dict name -> float[K, e]'),
    (ones(3, 5), 'float32 of shape (3, 5); expected a dict'),
    ([ones(1, 5), 'cat'], 'expected a dict name ->'),
  ],
)
def test_a_bad_npy_bank_is_refused(tmp_path, bank, words):
  path = str(tmp_path / 'bank.npy')
  if isinstance(bank, list):
    bank = np.array([None, *bank], object)[1:]
  np.save(path, bank, allow_pickle=True)
  message = refusal(path, WIDTH)
  assert message.startswith(path) and words in message


def test_without_a_width_the_first_entry_gives_it(tmp_path):
  path = str(tmp_path / 'bank.npy')
  np.save(path, {'cat': ones(1, 4), 'dog': ones(2, 4)})
  assert metavqa.read_features(path)['dog'].shape == (2, 4)
  np.save(path, {'cat': ones(1, 4), 'dog': ones(2, 6)})
  assert "['dog']: 6 features; expected 4" in refusal(path)


@pytest.mark.parametrize(
  'arrays, words',
  [
    ({'names': ['a', 'b'], 'features': ones(2, 4)}, "['a']: 4 features; expec"),
    (
      {'names': ['a', 'b'], 'features': np.diag([1, np.inf])[:, [0] * 4 + [1]]},
      "['b']: element [0, 4] is inf; features must be finite",
    ),
    ({'names': ['a'], 'features': ones(2, 5)}, 'names <U1 of shape (1,) and f'),
    ({'names': [1, 2], 'features': ones(2, 5)}, 'names int64 of shape (2,)'),
    ({'names': [['a']], 'features': ones(1, 5)}, 'expected str[n] and float'),
    ({'names': ['a'], 'features': ones(1, 1, 5)}, 'features of shape (1, 1, 5'),
    ({'names': np.array([], str), 'features': ones(0, 5)}, 'n > 0'),
    ({'names': ['a'], 'features': np.ones((1, 5), int)}, "['a']: int64; expec"),
    ({'names': ['a']}, 'has the arrays names; expected names and features'),
    ({'names': ['a'], 'features': np.array([[None] * 5])}, 'an object array'),
  ],
)
def test_a_bad_npz_bank_is_refused(tmp_path, arrays, words):
  path = str(tmp_path / 'bank.npz')
  np.savez(path, **arrays)
  message = refusal(path, WIDTH)
  assert message.startswith(path) and words in message


def test_a_truncated_bank_is_refused(tmp_path):
  path = tmp_path / 'bank.npy'
  np.save(path, {'cat': ones(1, WIDTH)})
  data = path.read_bytes()
  for size in (0, 5, 100, 130, len(data) - 30, len(data) - 1):
    path.write_bytes(data[:size])
    assert refusal(str(path)).startswith(str(path))
