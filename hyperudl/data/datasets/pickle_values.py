"""Defines what the interpreter of pickles makes, and what it may cost."""

import codecs
from typing import Any
from typing import NamedTuple

from hyperudl.core import BadInput

MAX_INTEGER = 16  # bytes
RECORD_COST = 300  # bytes of one of the records below
PAIR_COST = 50  # bytes of an entry of a dict


class Refused(BadInput):
  """The pickle does what plain data never need."""


class Name(NamedTuple):
  """The name of a function or class, never looked up."""

  text: str  # 'numpy.dtype'


class Large(NamedTuple):
  """A long string, as it stands in the file."""

  view: memoryview
  codec: str | None  # of text; None for bytes


class Call:
  """A call that the pickle asks for, which is not made."""

  __slots__ = ('arguments', 'name', 'result', 'state')

  def __init__(self, name: str, arguments: tuple) -> None:
    """Record the call `name(*arguments)`; its state may follow."""
    self.name = name
    self.arguments = arguments
    self.state: Any = None
    self.result: Any = None  # free for whoever interprets the record


def decode(view: memoryview, codec: str | None) -> str | bytes:
  """Return the text, or without a codec the bytes, of a string."""
  if codec is None:
    return bytes(view)
  if codec == 'escape':
    return decode_escapes(view).decode('latin1')
  return str(view, codec, 'surrogatepass' if codec == 'utf-8' else 'strict')


def decode_escapes(view: memoryview) -> bytes:
  """Return the bytes of a string that Python 2 has written as a literal."""
  literal = bytes(view).strip()
  if len(literal) < 2 or literal[:1] != literal[-1:]:
    raise ValueError('a string without quotes')
  return codecs.escape_decode(literal[1:-1])[0]


def parse_integer(text: str) -> int:
  """Return the int or bool that a pickle of protocol 0 states in decimals."""
  digits = text.removesuffix('L')
  if len(digits) > 2 * MAX_INTEGER:
    raise Refused(f'an integer of {len(digits)} digits')
  return digits == '01' if digits in ('00', '01') else int(digits)


def cost(opcode: str) -> int:
  """Estimate the bytes that an opcode allocates; this bounds the time, too."""
  if opcode in ('NONE', 'NEWTRUE', 'NEWFALSE', 'BININT1') or 'GET' in opcode:
    return 24  # a reference
  if opcode in ('MARK', 'EMPTY_LIST', 'EMPTY_DICT', 'REDUCE'):
    return 120
  return 100 if 'PUT' in opcode or opcode == 'MEMOIZE' else 48


def check_key(key: Any, size: int) -> str | bytes | int:
  """Return a key of a dict.

  Hashes of tuples recurse, and a file could choose numbers that collide.

  Args:
    key: any value.
    size: bytes of the file, which bound the integers.

  Raises:
    Refused: it is no string, and no integer within -size..size.
  """
  if type(key) in (str, bytes) or (type(key) is int and abs(key) <= size):
    return key
  raise Refused(f'a key of type {type(key).__name__}, or a very large one')
