"""Reads .npy and .npz files, believing no header before it is checked.

The size that a header claims is compared with the bytes that are there before
anything is allocated. Big arrays are memory-mapped, also those stored without
compression inside a .npz file.
"""

import math
import os
from typing import NamedTuple
import warnings
import zipfile

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import safe_pickle

MAP_BYTES = 1 << 28  # arrays from this size on are memory-mapped
_MAGIC = b'\x93NUMPY'
# No deflate stream expands more than this (1032 : 1, zlib's documentation).
_LARGEST_RATIO = 1100


class Header(NamedTuple):
  """What a .npy header says; `offset` is where the data begin."""

  shape: tuple[int, ...]
  fortran: bool
  dtype: np.dtype
  offset: int

  @property
  def size(self):
    """Bytes that the array needs."""
    return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path):
  """Reads a .npy file.

  Args:
    path: str.

  Returns:
    ndarray, or a read-only memmap from `MAP_BYTES` on. Object arrays are read
    by `safe_pickle`.

  Raises:
    BadInput: not a .npy file, truncated, or with a pickle that is not plain.
  """
  size = _file_size(path)
  with open(path, 'rb') as stream:
    header = _read_header(stream, path)
    if header.dtype.hasobject:
      return _read_objects(stream, header, path)
  _check_size(header, size - header.offset, path)
  if header.size >= MAP_BYTES:
    return _map(path, header, header.offset)
  count = math.prod(header.shape)
  values = np.fromfile(path, header.dtype, count, offset=header.offset)
  return values.reshape(header.shape, order='F' if header.fortran else 'C')


def read_npz(path, wanted):
  """Reads arrays of a .npz file.

  Args:
    path: str.
    wanted: names of the arrays to read, those that are there.

  Returns:
    (dict name -> array, tuple of the names of all arrays in the file).

  Raises:
    BadInput: damaged file, or pickled (object) arrays.
  """
  _file_size(path)
  try:
    with zipfile.ZipFile(path) as archive:
      members = {
        info.filename.removesuffix('.npy'): info
        for info in archive.infolist()
        if info.filename.endswith('.npy')
      }
      arrays = {
        name: _read_member(archive, members[name], path, name)
        for name in wanted
        if name in members
      }
  except zipfile.BadZipFile as error:
    raise BadInput(
      f'{path}: not a .npz file or truncated ({error}); copy it again'
    ) from None
  return arrays, tuple(members)


def _file_size(path):
  try:
    size = os.path.getsize(path)
    with open(path, 'rb'):
      pass
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  if not size:
    raise BadInput(f'{path}: the file is empty; copy it again')
  return size


def _read_header(stream, where):
  prefix = stream.read(8)
  if prefix[:6] != _MAGIC or len(prefix) < 8:
    raise BadInput(
      f'{where}: not a .npy file{_what_it_is(prefix)}; write it with '
      'numpy.save(path, images)'
    )
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  version = tuple(prefix[6:])
  if version not in readers:
    raise BadInput(
      f'{where}: .npy format {version[0]}.{version[1]}, which plain arrays do '
      'not use; expected 1.0 or 2.0'
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # about headers written by Python 2
      shape, fortran, dtype = readers[version](stream)
  # The header is text made by someone else: many errors are possible.
  except Exception as error:
    reason = ' '.join(str(error).split())[:120]
    raise BadInput(f'{where}: damaged .npy header ({reason})') from None
  return Header(shape, fortran, dtype, stream.tell())


def _what_it_is(prefix):
  if prefix.startswith(b'PK'):
    return ' but a .npz archive: rename it'
  if prefix.startswith(b'\x80') or prefix.startswith((b'(', b'cnumpy')):
    return ' but a pickle'
  if all(32 <= byte < 127 or byte in b'\r\n\t' for byte in prefix):
    return f' but text (it begins with {prefix.decode()!r})'
  return f' (it begins with {prefix!r})'


def _check_size(header, available, where):
  if min(header.shape, default=0) < 0 or header.size > available:
    raise BadInput(
      f'{where}: truncated, or a false header: shape {header.shape} of '
      f'{header.dtype} needs {header.size} bytes, the file holds {available}; '
      'copy it again'
    )


def _read_objects(stream, header, where):
  array = safe_pickle.load(stream, where)
  if getattr(array, 'shape', None) != header.shape:
    raise BadInput(
      f'{where}: the header says shape {header.shape}, the pickle inside '
      f'{getattr(array, "shape", type(array).__name__)}'
    )
  return np.asarray(array)


def _read_member(archive, info, path, name):
  where = f'{path}[{name}]'
  if info.file_size > _LARGEST_RATIO * (info.compress_size + 1):
    raise BadInput(
      f'{where}: claims {info.file_size} bytes from {info.compress_size} '
      'compressed ones, which is impossible; copy it again'
    )
  try:
    with archive.open(info) as stream:
      header = _read_header(stream, where)
    if header.dtype.hasobject:
      raise BadInput(
        f'{where}: an object array (pickled), which is not read; save pixels '
        'as uint8 and names with numpy.array(names, dtype=str)'
      )
    _check_size(header, info.file_size - header.offset, where)
    if info.compress_type == zipfile.ZIP_STORED and header.size >= MAP_BYTES:
      return _map_member(info, header, path)
    with archive.open(info) as stream, warnings.catch_warnings():
      warnings.simplefilter('ignore')
      return np.lib.format.read_array(stream, allow_pickle=False)
  except BadInput:
    raise
  # zipfile and zlib raise a dozen types for damaged or encrypted members.
  except Exception as error:
    reason = ' '.join(str(error).split())[:120] or type(error).__name__
    raise BadInput(f'{where}: damaged ({reason}); copy it again') from None


def _map_member(info, header, path):
  # The local header repeats the name and has its own extra field.
  with open(path, 'rb') as stream:
    stream.seek(info.header_offset + 26)
    name_size = int.from_bytes(stream.read(2), 'little')
    extra_size = int.from_bytes(stream.read(2), 'little')
  start = info.header_offset + 30 + name_size + extra_size
  return _map(path, header, start + header.offset)


def _map(path, header, offset):
  order = 'F' if header.fortran else 'C'
  return np.memmap(path, header.dtype, 'r', offset, header.shape, order)
