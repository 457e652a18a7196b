"""Reads pickles of plain arrays without running any code from them.

Public image sets come as pickles (mini- and tieredImageNet, object arrays
inside `.npy` files), and unpickling can run any code. The unpickler here allows
a handful of names, maps most of them to functions of this module, and refuses
every other name before anything is called. A hostile file cannot run code; it
can still request much memory, which also ends in an error message.
"""

from collections import OrderedDict
import math
import pickle
from typing import IO
from typing import Any

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks


class _Refused(BadInput):
  """The pickle uses a name that plain data never need."""


class _Array(np.ndarray):
  """An ndarray that checks its claimed size before it allocates memory."""

  def __setstate__(self, state):
    _, shape, dtype, _, data = state
    count = math.prod(shape)
    size = count if dtype.hasobject else count * dtype.itemsize
    if min(shape, default=0) < 0 or size != len(data):
      raise _Refused(
        f'an array claims shape {shape} of {dtype} but holds {len(data)} '
        f'{"objects" if dtype.hasobject else "bytes"}'
      )
    super().__setstate__(state)


def _reconstruct(kind, shape, code):
  # NumPy always writes the empty array here; the state fills it later.
  if kind is not np.ndarray or shape != (0,):
    raise _Refused(f'unusual array constructor {shape!r}')
  del code
  return np.ndarray.__new__(_Array, (0,), np.uint8)


def _dtype(spec, align=False, copy=False):
  # Old files have 0 and 1 as flags, which new versions of NumPy warn about.
  return np.dtype(spec, bool(align), bool(copy))


def _scalar(dtype, data):
  if dtype.hasobject:
    raise _Refused('a scalar that holds an object')
  data = data.encode('latin1') if isinstance(data, str) else data
  return np.frombuffer(data, dtype, count=1)[0]


def _frombuffer(data, dtype, shape, order, axis_order=None):
  if dtype.hasobject or axis_order is not None:
    raise _Refused('an array in an unusual order')
  return np.frombuffer(data, dtype).reshape(shape, order=order)


def _encode(text, encoding='latin1'):
  if encoding not in ('latin1', 'latin-1', 'iso-8859-1'):
    raise _Refused(f'bytes encoded as {encoding!r}')
  return text.encode('latin1')


def _no_bytes():
  return b''


_ALLOWED = {
  # Protocols up to 2 encode b'' as bytes(); a call with arguments is refused.
  ('__builtin__', 'bytes'): _no_bytes,
  ('numpy', 'ndarray'): np.ndarray,
  ('numpy', 'dtype'): _dtype,
  ('numpy._core.multiarray', '_reconstruct'): _reconstruct,
  ('numpy._core.multiarray', 'scalar'): _scalar,
  ('numpy._core.numeric', '_frombuffer'): _frombuffer,
  ('_codecs', 'encode'): _encode,
  ('collections', 'OrderedDict'): OrderedDict,
}


class _Unpickler(pickle.Unpickler):
  def find_class(self, module, name):
    if module.startswith('numpy.core.'):  # before NumPy 2
      module = 'numpy._core.' + module.removeprefix('numpy.core.')
    if (module, name) not in _ALLOWED:
      raise _Refused(f'forbidden global {module}.{name}')
    return _ALLOWED[module, name]


def load(stream: IO[bytes], where: str) -> Any:
  """Read one pickle of arrays, lists, dicts, strings and numbers.

  Args:
    stream: an open binary file at the start of the pickle.
    where: name of the file (and array) in error messages.

  Returns:
    The object. Its arrays are ndarrays; pass them through `np.asarray` to get
    rid of the checking subclass.

  Raises:
    BadInput: the pickle contains anything else, is damaged, or claims more data
      than it holds. None of its code has been executed.
  """
  # A damaged pickle raises whatever its opcodes ran into.
  remedy = 'it may be truncated: fetch it again'
  try:
    with checks.reading(where, 'not a readable pickle', remedy):
      return _Unpickler(stream, encoding='latin1').load()
  except _Refused as error:
    raise BadInput(
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
