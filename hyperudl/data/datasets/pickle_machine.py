"""Interprets the opcodes of a pickle without importing or calling anything.

Python's own unpickler hands out real functions and objects, whose calls and
attributes the file then chooses. This one makes plain values only: None, bool,
int, float, str, bytes, list, tuple, dict, and three records of its own for what
is to be interpreted later. Opcodes, memory and integers are bounded by the size
of the file. Opcodes: `pickletools` of the standard library.
"""

from collections.abc import Callable
from collections.abc import Collection
import pickletools
import struct
import sys
from typing import Any

from hyperudl.data.datasets import pickle_values

# Bytes of objects that a file may need beside its own size, by `_COSTS`.
SPARE_BYTES = 150 << 20
_SHORT = 512  # bytes of strings that are decoded at once


class Machine:
  """The stack machine of one pickle.

  Attributes:
    operations: number of opcodes that were executed.
  """

  def __init__(self, data: bytes, names: Collection[str]) -> None:
    """Prepare to read `data`; functions and classes are among `names`."""
    self.operations = 0
    self._data = data
    self._view = memoryview(data)
    self._names = names
    self._position = 0
    self._stack: list[Any] = []
    self._marks: list[list] = []  # the stacks below the marks
    self._memo: dict[int, Any] = {}
    self._spare = SPARE_BYTES + len(data)

  def run(self) -> Any:
    """Return the value of the pickle.

    Raises:
      pickle_values.Refused: another opcode or name, or too much memory.
      Exception: it is damaged.
    """
    data, handlers, costs = self._data, _TABLE, _COSTS
    operations = 0
    while True:
      code = data[self._position]
      self._position += 1
      operations += 1
      self._spare -= costs[code]
      if self._spare < 0:
        self._charge(0)
      if code == _STOP:
        self.operations = operations
        return self._stack.pop()
      handlers[code](self)

  def _charge(self, cost):
    self._spare -= cost
    if self._spare < 0:
      raise pickle_values.Refused(
        f'it needs more than {SPARE_BYTES >> 20} MB beside its own size'
      )

  def _take(self, size):
    """Return the start of the next `size` bytes, and go behind them."""
    start = self._position
    if size < 0 or size > len(self._data) - start:
      raise ValueError(f'claims {size} bytes, {len(self._data) - start} follow')
    self._position = start + size
    return start

  def _unsigned(self, size):
    start = self._take(size)
    return int.from_bytes(self._data[start : start + size], 'little')

  def _byte(self):
    self._position += 1
    return self._data[self._position - 1]

  def _line(self):
    """Return the bytes up to the next line feed, uncopied."""
    end = self._data.index(b'\n', self._position)
    line = self._view[self._position : end]
    self._position = end + 1
    return line

  def _short_line(self):
    line = self._line()
    if len(line) > 100:
      raise ValueError(f'a number or name of {len(line)} characters')
    return bytes(line).decode('ascii')

  def _push(self, value):
    self._stack.append(value)

  def _push_text(self, view, codec):
    if len(view) > _SHORT:
      self._push_large(view, codec)
      return
    text = pickle_values.decode(view, codec)
    self._spare -= sys.getsizeof(text)
    self._stack.append(text)

  def _push_large(self, view, codec):
    self._spare -= pickle_values.RECORD_COST
    self._stack.append(pickle_values.Large(view, codec))

  def _push_bytes(self, size):
    start = self._take(size)
    if size > _SHORT:
      self._push_large(self._view[start : start + size], None)
    else:
      self._spare -= size
      self._stack.append(self._data[start : start + size])

  def _push_string(self, size, codec):
    start = self._take(size)
    self._push_text(self._view[start : start + size], codec)

  def _push_integer(self, size):
    if size > pickle_values.MAX_INTEGER:
      raise pickle_values.Refused(f'an integer of {size} bytes')
    start = self._take(size)
    digits = self._data[start : start + size]
    self._push(int.from_bytes(digits, 'little', signed=True))

  def _push_decimal(self):
    self._push(pickle_values.parse_integer(self._short_line()))

  def _unpack(self, form):
    start = self._take(struct.calcsize(form))
    self._push(struct.unpack_from(form, self._data, start)[0])

  def _above_mark(self):
    """Return the values above the last mark, which are popped with it."""
    values, self._stack = self._stack, self._marks.pop()
    return values

  def _push_above_mark(self, kind):
    self._push(kind(self._above_mark()))

  def _dict(self):
    entries = self._above_mark()
    self._push({})
    self._set_items(entries)

  def _mark(self):
    self._marks.append(self._stack)
    self._stack = []

  def _tuple(self, count):
    if count > len(self._stack):
      raise IndexError('too few values for a tuple')
    values = tuple(self._stack[len(self._stack) - count :])
    del self._stack[len(self._stack) - count :]
    self._push(values)

  def _append(self, values):
    target = self._stack[-1]
    if type(target) is not list:
      raise pickle_values.Refused(f'items appended to {type(target).__name__}')
    target += values

  def _set_items(self, values):
    target = self._stack[-1]
    if type(target) is not dict or len(values) % 2:
      raise pickle_values.Refused(f'entries set in {type(target).__name__}')
    for key, value in zip(values[::2], values[1::2]):
      target[self._key(key)] = value

  def _key(self, key):
    return (
      key
      if type(key) is pickle_values.Call
      else pickle_values.check_key(key, len(self._data))
    )

  def _name(self, module, name):
    if module.startswith('numpy.core.'):  # before NumPy 2
      module = 'numpy._core.' + module.removeprefix('numpy.core.')
    if f'{module}.{name}' not in self._names:
      raise pickle_values.Refused(f'forbidden global {module}.{name}')
    self._push(pickle_values.Name(f'{module}.{name}'))

  def _name_on_lines(self):
    module = self._short_line()
    self._name(module, self._short_line())

  def _name_on_stack(self):
    name, module = self._stack.pop(), self._stack.pop()
    if type(name) is not str or type(module) is not str:
      raise ValueError('a name that is no string')
    self._name(module, name)

  def _reduce(self):
    arguments, function = self._stack.pop(), self._stack.pop()
    if type(arguments) is not tuple or type(function) is not pickle_values.Name:
      raise pickle_values.Refused(f'a call of {type(function).__name__}')
    self._push(pickle_values.Call(function.text, arguments))
    if function.text == 'collections.OrderedDict':
      self._stack[-1] = {}
      for pairs in arguments[:1]:
        self._charge(pickle_values.PAIR_COST * len(pairs))
        for key, value in pairs:
          self._set_items([key, value])

  def _build(self):
    state, target = self._stack.pop(), self._stack[-1]
    if type(target) is not pickle_values.Call or target.state is not None:
      raise pickle_values.Refused(f'attributes set on {type(target).__name__}')
    target.state = state

  def _put(self, index):
    self._memo[index] = self._stack[-1]

  def _check_frame(self):
    size, start = self._unsigned(8), self._position
    self._take(size)
    self._position = start  # its content is read next


# What to do at the opcodes that plain data need.
_HANDLERS: dict[str, Callable[[Machine], None]] = {
  'PROTO': lambda m: m._byte() and None,
  'FRAME': Machine._check_frame,
  'NONE': lambda m: m._push(None),
  'NEWTRUE': lambda m: m._push(True),
  'NEWFALSE': lambda m: m._push(False),
  'INT': Machine._push_decimal,
  'LONG': Machine._push_decimal,
  'BININT': lambda m: m._unpack('<i'),
  'BININT1': lambda m: m._stack.append(m._byte()),
  'BININT2': lambda m: m._stack.append(m._unsigned(2)),
  'LONG1': lambda m: m._push_integer(m._byte()),
  'LONG4': lambda m: m._push_integer(m._unsigned(4)),
  'FLOAT': lambda m: m._push(float(m._short_line())),
  'BINFLOAT': lambda m: m._unpack('>d'),
  'STRING': lambda m: m._push_text(m._line(), 'escape'),
  'BINSTRING': lambda m: m._push_string(m._unsigned(4), 'latin1'),
  'SHORT_BINSTRING': lambda m: m._push_string(m._byte(), 'latin1'),
  'UNICODE': lambda m: m._push_text(m._line(), 'raw-unicode-escape'),
  'BINUNICODE': lambda m: m._push_string(m._unsigned(4), 'utf-8'),
  'SHORT_BINUNICODE': lambda m: m._push_string(m._byte(), 'utf-8'),
  'BINUNICODE8': lambda m: m._push_string(m._unsigned(8), 'utf-8'),
  'BINBYTES': lambda m: m._push_bytes(m._unsigned(4)),
  'SHORT_BINBYTES': lambda m: m._push_bytes(m._byte()),
  'BINBYTES8': lambda m: m._push_bytes(m._unsigned(8)),
  'BYTEARRAY8': lambda m: m._push_bytes(m._unsigned(8)),
  'MARK': Machine._mark,
  'EMPTY_LIST': lambda m: m._push([]),
  'LIST': lambda m: m._push_above_mark(list),
  'APPEND': lambda m: m._append([m._stack.pop()]),
  'APPENDS': lambda m: m._append(m._above_mark()),
  'EMPTY_TUPLE': lambda m: m._push(()),
  'TUPLE': lambda m: m._push_above_mark(tuple),
  'TUPLE1': lambda m: m._tuple(1),
  'TUPLE2': lambda m: m._tuple(2),
  'TUPLE3': lambda m: m._tuple(3),
  'EMPTY_DICT': lambda m: m._push({}),
  'DICT': Machine._dict,
  'SETITEM': lambda m: m._set_items([m._stack.pop(-2), m._stack.pop()]),
  'SETITEMS': lambda m: m._set_items(m._above_mark()),
  'PUT': lambda m: m._put(int(m._short_line())),
  'BINPUT': lambda m: m._put(m._byte()),
  'LONG_BINPUT': lambda m: m._put(m._unsigned(4)),
  'MEMOIZE': lambda m: m._put(len(m._memo)),
  'GET': lambda m: m._push(m._memo[int(m._short_line())]),
  'BINGET': lambda m: m._push(m._memo[m._byte()]),
  'LONG_BINGET': lambda m: m._push(m._memo[m._unsigned(4)]),
  'GLOBAL': Machine._name_on_lines,
  'STACK_GLOBAL': Machine._name_on_stack,
  'REDUCE': Machine._reduce,
  'BUILD': Machine._build,
}


def _refuse(name):
  """Return the handler of an opcode that plain data never need."""

  def handler(machine):
    del machine
    raise pickle_values.Refused(f'opcode {name}')

  return handler


_STOP = ord('.')
_TABLE = [_refuse(f'0x{code:02x}') for code in range(256)]
_COSTS = [0] * 256
for _opcode in pickletools.opcodes:
  _name, _code = _opcode.name, ord(_opcode.code)
  _TABLE[_code] = _HANDLERS.get(_name) or _refuse(_name)
  _COSTS[_code] = pickle_values.cost(_name)
