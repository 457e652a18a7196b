"""Pickles are read as data: no code of them runs, whatever they hold."""

from collections import OrderedDict
import io
import os
import pickle
import random

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import safe_pickle
from tests.testing import errors

PROTOCOLS = (0, 2, 4, 5)


class Call:
  """Pickles as a call of `function` with `arguments`."""

  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments

  def __reduce__(self):
    return self.function, self.arguments


def read(data):
  return safe_pickle.load(io.BytesIO(data), 'file.pkl')


def refusal(data):
  message = errors.refusal(read, data)
  assert message.startswith('file.pkl')
  return message


def equal(left, right):
  if isinstance(right, dict):
    return list(left) == list(right) and all(
      equal(left[key], right[key]) for key in right
    )
  if isinstance(right, list | tuple):
    return len(left) == len(right) and all(map(equal, left, right))
  if isinstance(right, np.ndarray) and right.dtype.hasobject:
    return left.shape == right.shape and all(map(equal, left, right))
  if isinstance(right, np.ndarray):
    return left.dtype == right.dtype and np.array_equal(left, right)
  return type(left) is type(right) and left == right


def ragged(*sizes):
  array = np.empty(len(sizes), object)
  for index, size in enumerate(sizes):
    array[index] = np.full((size, 2, 2, 3), index, np.uint8)
  return array


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize(
  'value',
  [
    {'image_data': np.arange(24, dtype=np.uint8).reshape(2, 3, 4)},
    OrderedDict(a=[1, 2.5, None, True], b=('x', b'\xff\x00')),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.array(['cat', 'hound']),
    np.zeros((0, 4), np.float32),
    np.array(3.5),
    [np.int64(7), np.float32(0.5), np.uint8(255)],
    ragged(1, 3, 2),
    ragged(2, 2),
  ],
  ids=repr,
)
def test_plain_data_come_back_as_they_were(value, protocol):
  assert equal(read(pickle.dumps(value, protocol)), value)


def test_files_of_old_numpy_and_of_python_2_are_read():
  images = np.arange(8, dtype=np.uint8)
  old = pickle.dumps(images, 2).replace(b'numpy._core.', b'numpy.core.')
  assert np.array_equal(read(old), images)
  python_2 = (
    b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'
    b'K\x00\x85U\x01b\x87R(K\x01K\x04\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R'
    b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89'
    b'U\x04\x01\x02\xfe\xfftb.'
  )
  assert np.array_equal(read(python_2), np.array([1, 2, 254, 255], np.uint8))


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('place', ['bare', 'list', 'value', 'key', 'object'])
@pytest.mark.parametrize('function', [os.system, eval, exec, os.mkdir])
def test_bombs_do_not_go_off(tmp_path, protocol, place, function):
  target = str(tmp_path / 'bang')
  argument = {
    os.system: f'touch {target}',
    os.mkdir: target,
  }.get(function, f'__import__("os").mkdir({target!r})')
  bomb = Call(function, argument)
  array = np.empty(2, object)
  array[:] = [np.zeros(3, np.uint8), bomb]
  value = {
    'bare': bomb,
    'list': [1, [2, bomb]],
    'value': {'image_data': bomb},
    'key': {(bomb,): 1},
    'object': array,
  }[place]
  data = pickle.dumps(value, protocol)
  message = refusal(data)
  assert f'.{function.__name__}' in message
  assert 'nothing was executed' in message
  assert not os.path.exists(target)
  # With plain pickle the same bytes do go off.
  pickle.loads(data)
  assert os.path.exists(target)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_bombs_in_npy_files_do_not_go_off(tmp_path, protocol):
  target = tmp_path / 'bang'
  array = np.empty(1, object)
  array[0] = Call(os.mkdir, str(target))
  header = {'descr': '|O', 'fortran_order': False, 'shape': (1,)}
  path = str(tmp_path / 'set.npy')
  with open(path, 'wb') as stream:
    np.lib.format.write_array_header_1_0(stream, header)
    pickle.dump(array, stream, protocol)
  with pytest.raises(core.BadInput, match=r'set\.npy: refused, .*\.mkdir'):
    npy.read_npy(path)
  assert not target.exists()


@pytest.mark.parametrize(
  'name',
  [
    'builtins getattr',
    'builtins __import__',
    'numpy load',
    'numpy fromfile',
    'numpy memmap',
    'numpy._core.multiarray fromfile',
    'numpy.core.multiarray frombuffer',
    'numpy.ma.core _mareconstruct',
    'copy_reg _reconstructor',
    'copyreg _reconstructor',
    'hyperudl.data.datasets.safe_pickle _Array',
    'pickle loads',
    'collections OrderedDict.fromkeys',
    'os system',
  ],
)
def test_every_other_name_is_refused(name):
  module, attribute = name.split()
  short = f'c{module}\n{attribute}\n.'.encode()
  module = module.replace('numpy.core.', 'numpy._core.')
  assert f'forbidden global {module}.{attribute}' in refusal(short)


def test_dotted_names_do_not_reach_through_an_allowed_one():
  for name in (b'ndarray.tofile', b'dtype.__class__', b'ndarray.__init__'):
    data = b'\x80\x04\x8c\x05numpy\x8c' + bytes([len(name)]) + name + b'\x93.'
    assert 'forbidden global numpy.' in refusal(data)


def test_codecs_other_than_latin1_are_refused():
  data = pickle.dumps(Call(__import__('_codecs').encode, 'x', 'zlib'), 2)
  assert "encoded as 'zlib'" in refusal(data)


@pytest.mark.parametrize('kind', [np.uint8, object])
def test_an_array_cannot_claim_more_than_it_holds(kind):
  data = pickle.dumps(np.zeros(7, kind), 2)
  assert data.count(b'K\x07\x85') == 1
  huge = data.replace(b'K\x07\x85', b'J\x00\x00\x00\x70\x85')
  assert 'claims shape (1879048192,)' in refusal(huge)


def test_a_constructor_cannot_allocate_by_itself():
  data = pickle.dumps(np.zeros(7, np.uint8), 2)
  assert data.count(b'K\x00\x85') == 1
  huge = data.replace(b'K\x00\x85', b'J\x00\x00\x00\x70\x85')
  assert 'unusual array constructor' in refusal(huge)


def test_a_truncated_pickle_is_one_line():
  data = pickle.dumps({'a': [np.arange(9), 'text'], 'b': ragged(1, 2)}, 4)
  for size in range(len(data)):
    refusal(data[:size])


def test_damaged_bytes_end_in_an_error_or_in_data():
  data = pickle.dumps({'a': [np.arange(9), 'text'], 'b': ragged(1, 2)}, 4)
  generator = random.Random(0)
  refused = 0
  for _ in range(400):
    damaged = bytearray(data)
    for _ in range(generator.randint(1, 3)):
      damaged[generator.randrange(len(data))] = generator.randrange(256)
    try:
      read(bytes(damaged))
    except core.BadInput:
      refused += 1
  assert refused > 100


def test_a_dict_in_a_npy_file_is_read(tmp_path):
  path = str(tmp_path / 'features.npy')
  value = {'cat': np.arange(3.0), 'dog': np.ones(2)}
  np.save(path, np.array(value, object), allow_pickle=True)
  array = npy.read_npy(path)
  assert array.shape == () and equal(array.item(), value)


def test_a_missing_file_is_named():
  with pytest.raises(core.BadInput, match=r'nowhere\.pkl: cannot be read'):
    safe_pickle.load_file('nowhere.pkl')
