"""Plain values are read as Python's own unpickler reads them."""

import pickle
import random

import pytest

from hyperudl.data.datasets import pickle_machine
from hyperudl.data.datasets import pickle_values
from tests.testing import errors

SMALL = (None, True, False, 0, -1, 255, 256, 2**31, -(2**63), 2**100, 0.1, -1e9)


def value(generator, depth=4):
  """Return a random value of the types that plain data have."""
  kind = generator.randrange(6 if depth else 3)
  size = generator.choice((0, 1, 2, 3, 5))
  if kind == 0:
    return generator.choice(SMALL)
  if kind == 1:
    length = size * generator.choice((1, 300))
    return ''.join(generator.choice('aß\n\\€😀\x00"') for _ in range(length))
  if kind == 2:
    return generator.randbytes(size * generator.choice((1, 100)))
  values = [value(generator, depth - 1) for _ in range(size)]
  if kind == 3:
    return values
  return (
    tuple(values) if kind == 4 else {f'k{i}': v for i, v in enumerate(values)}
  )


def read(data):
  return pickle_machine.Machine(data, ('_codecs.encode',)).run()


def decoded(part):
  """Return a value in which long strings are decoded."""
  if isinstance(part, pickle_values.Large):
    return pickle_values.decode(*part)
  if isinstance(part, list | tuple):
    return type(part)(map(decoded, part))
  if isinstance(part, dict):
    return {key: decoded(entry) for key, entry in part.items()}
  return part


@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_random_values_are_read_as_pickle_reads_them(protocol):
  generator = random.Random(protocol)
  for _ in range(200):
    expected = value(generator)
    assert decoded(read(pickle.dumps(expected, protocol))) == expected


def test_each_opcode_of_old_protocols_is_read_as_pickle_reads_it():
  for data in (
    b"(dp0\nS'a\\x41'\np1\nI01\nsS'b'\n(lp2\nI-5\naL7L\naF0.5\nas.",
    b'(I1\n(lt.',
    b'(V\\u20ac\nNd.',
    b"(S'k'\nI00\nS'l'\ng0\nd.".replace(b'g0\n', b'I3\n'),
  ):
    assert read(data) == pickle.loads(data)


def test_calls_and_names_are_records():
  data = pickle.dumps(b'\xff\x00', 2)
  call = read(data)
  assert isinstance(call, pickle_values.Call)
  assert call.name == '_codecs.encode'
  assert call.arguments == ('\xff\x00', 'latin1')


def test_keys_that_a_file_could_make_collide_are_refused():
  assert pickle_values.check_key(3, 10) == 3
  for key in (2**61 - 1, -11, (1,), None, 1.5, True):
    errors.refusal(pickle_values.check_key, key, 10)


@pytest.mark.parametrize(
  'text, number', [('12', 12), ('-3L', -3), ('00', False), ('01', True)]
)
def test_decimals_are_integers_or_truth_values(text, number):
  parsed = pickle_values.parse_integer(text)
  assert parsed == number and type(parsed) is type(number)
