"""Reads pickles of plain arrays without running any code from them.

Public image sets come as pickles (mini- and tieredImageNet, object arrays
inside `.npy` files), and unpickling can run any code. Here `pickle_machine`
reads plain values and records of calls, and this module makes arrays of those
calls that NumPy writes, from a dtype that is a plain string, a shape and bytes
that fit it. So a file can neither call nor change anything, nor hand over an
object that it does not hold. The arrays are views of the file's bytes.
"""

import codecs
import functools
import math
import re
from typing import IO
from typing import Any

import numpy as np

from hyperudl import core
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import pickle_machine
from hyperudl.data.datasets import pickle_values

MAX_DEPTH = 32  # of lists, tuples and dicts in each other

_RECONSTRUCT = 'numpy._core.multiarray._reconstruct'
_SCALAR = 'numpy._core.multiarray.scalar'
_FROM_BUFFER = 'numpy._core.numeric._frombuffer'
_NAMES = {
  '__builtin__.bytes',  # protocols up to 2 encode b'' as bytes()
  '_codecs.encode',
  'collections.OrderedDict',
  'numpy.dtype',
  'numpy.ndarray',
  _FROM_BUFFER,
  _RECONSTRUCT,
  _SCALAR,
}
_KINDS = re.compile(r'[?biuf](1|2|4|8|16)?|[SU][1-9]\d{0,6}|O8?')
_PIECE = 1 << 20  # bytes of a text that are decoded at a time
_ROUNDS = 2  # how often the content of a file may occur in the result


def load(stream: IO[bytes], where: str) -> Any:
  """Read one pickle of arrays, lists, dicts, strings and numbers.

  Args:
    stream: an open binary file at the start of the pickle; read to its end.
    where: name of the file (and array) in error messages.

  Returns:
    The object: plain Python values, and ndarrays, most of them read-only.

  Raises:
    BadInput: the pickle contains anything else, is damaged, or claims more data
      than it holds. None of its code has been executed.
  """
  remedy = 'it may be truncated: fetch it again'
  try:
    # A damaged pickle raises whatever its opcodes ran into.
    with checks.reading(where, 'not a readable pickle', remedy):
      data = stream.read()
      machine = pickle_machine.Machine(data, _NAMES)
      value = machine.run()
      return _Interpreter(len(data), machine.operations).plain(value)
  except pickle_values.Refused as error:
    raise core.BadInput(
      f'{where}: refused, {" ".join(str(error).split())[:200]}; only arrays, '
      'lists, dicts and strings are read from pickles and nothing was '
      'executed. If you trust the file, save its images as a .npz file with '
      'plain arrays'
    ) from None


def load_file(path: str) -> Any:
  """Read a file that holds one pickle; see `load`."""
  check_path = checks.reading(path, 'cannot be read', 'check the path')
  with check_path, open(path, 'rb') as stream:
    return load(stream, path)


class _Interpreter:
  """Replaces records of calls by arrays, with a limit on their repetition.

  A pickle of a few bytes can hold the same list a million times: values are
  counted as often as they occur.
  """

  def __init__(self, size, operations):
    self._size = size
    self._left_bytes = _ROUNDS * size
    self._left_values = _ROUNDS * operations

  def plain(self, value, depth=0):
    """Return a value without records."""
    self._left_values -= 1
    if self._left_values < 0:
      raise pickle_values.Refused('its lists hold each other many times')
    if depth > MAX_DEPTH:
      raise pickle_values.Refused(f'values nested more than {MAX_DEPTH} deep')
    kind = type(value)
    if kind in (list, tuple):
      return kind(self.plain(entry, depth + 1) for entry in value)
    if kind is dict:
      return {
        self._key(key): self.plain(entry, depth + 1)
        for key, entry in value.items()
      }
    if kind is pickle_values.Call:
      return self._call(value, depth)
    if kind is pickle_values.Name:
      raise pickle_values.Refused(f'{value.text} as a value')
    if kind is pickle_values.Large:
      self._charge(len(value.view))
      if value.codec and len(value.view) > _PIECE:
        raise pickle_values.Refused(f'a text of {len(value.view)} bytes')
      return pickle_values.decode(*value)
    return value

  def _key(self, key):
    if type(key) is pickle_values.Call:
      key = self._call(key, MAX_DEPTH)
      key = key.item() if isinstance(key, np.generic) else key
    return pickle_values.check_key(key, self._size)

  def _call(self, call, depth):
    if call.result is None:
      call.result = self._interpret(call, depth)
    result = call.result
    self._charge(len(result) if type(result) is bytes else result.nbytes)
    return result

  def _charge(self, size):
    self._left_bytes -= size
    if self._left_bytes < 0:
      raise pickle_values.Refused('its arrays occur many times')

  def _interpret(self, call, depth):
    name, arguments = call.name, call.arguments
    if name in ('__builtin__.bytes', '_codecs.encode') and call.state is None:
      return bytes(_to_bytes(call))
    if name == _RECONSTRUCT:
      return self._reconstruct(arguments, call.state, depth)
    if name == _SCALAR and len(arguments) == 2 and call.state is None:
      array = _array(_to_dtype(arguments[0]), (), _to_bytes(arguments[1]))
      return array[()]
    if name == _FROM_BUFFER and call.state is None:
      data, dtype, shape, order, *axis_order = arguments
      if axis_order not in ([], [None]) or order not in ('C', 'F'):
        raise pickle_values.Refused('an array in an unusual order')
      return _array(_to_dtype(dtype), shape, _to_bytes(data), order)
    raise pickle_values.Refused(f'an unusual call of {name}')

  def _reconstruct(self, arguments, state, depth):
    kind, shape, _ = arguments
    # NumPy always writes the empty array here; the state fills it later.
    if kind != pickle_values.Name('numpy.ndarray') or shape != (0,):
      raise pickle_values.Refused(
        f'unusual array constructor of {_describe(shape)}'
      )
    _, shape, dtype, fortran, data = state
    dtype, order = _to_dtype(dtype), 'F' if fortran else 'C'
    if not dtype.hasobject:
      return _array(dtype, shape, _to_bytes(data), order)
    if type(data) is not list:
      raise pickle_values.Refused('an object array without a list of objects')
    _check_shape(shape, 1, len(data), 'objects')
    array = np.empty(len(data), object)
    for index, value in enumerate(data):
      array[index] = self.plain(value, depth + 1)
    return array.reshape(shape, order=order)


def _array(dtype, shape, data, order='C'):
  """Return a view of bytes, which must be as many as the array needs."""
  if dtype.hasobject:
    raise pickle_values.Refused('an array of objects without a list of them')
  _check_shape(shape, dtype.itemsize, len(data), 'bytes')
  if not len(data):
    return np.empty(shape, dtype)
  return np.frombuffer(data, dtype).reshape(shape, order=order)


def _check_shape(shape, itemsize, held, unit):
  counts = type(shape) is tuple and all(type(axis) is int for axis in shape)
  if not counts or len(shape) > MAX_DEPTH:
    raise pickle_values.Refused('an array whose shape is no tuple of integers')
  if min(shape, default=0) < 0 or math.prod(shape) * itemsize != held:
    raise pickle_values.Refused(
      f'an array claims shape {str(shape)[:100]} of {itemsize} {unit} each but '
      f'holds {held} {unit}'
    )


def _to_dtype(call):
  """Return the dtype of a record of `numpy.dtype(...)` and its state."""
  if type(call) is not pickle_values.Call or call.name != 'numpy.dtype':
    raise pickle_values.Refused('a dtype that is none')
  # Version, byte order, subarray, names, fields, itemsize, alignment, flags.
  state = call.state or (3, '|', None, None, None, -1, -1, 0)
  if len(state) < 6 or any(entry is not None for entry in state[2:5]):
    raise pickle_values.Refused('a dtype with fields')
  text, order = call.arguments[0], state[1]
  if type(text) is not str or not _KINDS.fullmatch(text):
    raise pickle_values.Refused(f'the dtype {_describe(text)}')
  if type(order) is not str or order not in ('<', '>', '|', '='):
    raise pickle_values.Refused(f'the byte order {_describe(order)}')
  return _parse_dtype(order + text)


_parse_dtype = functools.lru_cache(maxsize=64)(np.dtype)


def _describe(value):
  """Return a short text; that of nested tuples could be endless."""
  return repr(value[:50]) if type(value) is str else type(value).__name__


def _to_bytes(value):
  """Return the bytes, or a view of them, that a record or string stands for."""
  codec = 'latin1'
  if type(value) is pickle_values.Call and value.name == '__builtin__.bytes':
    value = b'' if value.arguments == () else None
  if type(value) is pickle_values.Call and value.name == '_codecs.encode':
    value, *codec = value.arguments
    codec = codec[0] if codec else 'utf-8'
    if codec not in ('latin1', 'latin-1', 'iso-8859-1'):
      raise pickle_values.Refused(f'bytes encoded as {_describe(codec)}')
  if type(value) is str:
    return value.encode('latin1')
  if type(value) is pickle_values.Large:
    return value.view if _is_bytes(value) else _encode(value)
  if type(value) is not bytes:
    raise pickle_values.Refused(f'{type(value).__name__} in place of bytes')
  return value


def _is_bytes(large):
  return large.codec in (None, 'latin1')


def _encode(large):
  """Return the bytes of a long text, decoded in pieces."""
  if large.codec == 'escape':
    return pickle_values.decode_escapes(large.view)
  decoder = codecs.getincrementaldecoder(large.codec)()
  content = bytearray()
  for start in range(0, len(large.view), _PIECE):
    piece = large.view[start : start + _PIECE]
    content += decoder.decode(bytes(piece)).encode('latin1')
  decoder.decode(b'', final=True)
  return content
