"""Reads .npy and .npz files, and checks their headers before using them.

The size that a header claims is compared with the bytes in the file before any
memory is allocated. Big arrays are memory-mapped, also those stored without
compression inside a .npz file.
"""

from collections.abc import Iterable
import math
import os
from typing import NamedTuple
import warnings
import zipfile

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import safe_pickle

MAP_BYTES = 1 << 28  # arrays from this size on are memory-mapped
_MAGIC = b'\x93NUMPY'
# No deflate stream expands more than this (zlib's documentation: 1032 to 1).
_MAX_RATIO = 1100
_HEADER_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
  """The header of a .npy file; the data begin at byte `offset`."""

  shape: tuple[int, ...]
  fortran: bool
  dtype: np.dtype
  offset: int

  @property
  def size(self) -> int:
    """Bytes that the array needs."""
    return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: str) -> np.ndarray:
  """Read a .npy file.

  Returns:
    ndarray, or a read-only memmap if it has `MAP_BYTES` or more. Object arrays
    are read by `safe_pickle`.

  Raises:
    BadInput: not a .npy file, truncated, or a pickle of more than plain data.
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


def read_npz(
  path: str, wanted: Iterable[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Read arrays of a .npz file.

  Args:
    path: path of the file.
    wanted: names of the arrays to read if the file has them.

  Returns:
    (dict name -> array, the names of all arrays in the file).

  Raises:
    BadInput: damaged file, or object (pickled) arrays.
  """
  _file_size(path)
  with (
    checks.reading(path, 'not a .npz file or truncated', 'copy it again'),
    zipfile.ZipFile(path) as archive,
  ):
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
  return arrays, tuple(members)


def _file_size(path):
  check_path = checks.reading(path, 'cannot be read', 'check the path')
  with check_path, open(path, 'rb') as stream:
    size = os.fstat(stream.fileno()).st_size
  if not size:
    raise BadInput(f'{path}: the file is empty; copy it again')
  return size


def _read_header(stream, where):
  prefix = stream.read(8)
  if prefix[:6] != _MAGIC or len(prefix) < 8:
    raise BadInput(
      f'{where}: not a .npy file{_describe_content(prefix)}; write it with '
      'numpy.save(path, images)'
    )
  version = tuple(prefix[6:])
  if version not in _HEADER_READERS:
    raise BadInput(
      f'{where}: .npy format {version[0]}.{version[1]}, which plain arrays do '
      'not use; expected 1.0 or 2.0'
    )
  damaged = checks.reading(where, 'damaged .npy header', 'copy it again')
  with damaged, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # about headers written by Python 2
    header = _HEADER_READERS[version](stream)
  return Header(*header, stream.tell())


def _describe_content(prefix):
  if prefix.startswith(b'PK'):
    return ' but a .npz archive: rename it'
  if prefix.startswith((b'\x80', b'(', b'cnumpy')):
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
  shape = getattr(array, 'shape', type(array).__name__)
  if shape != header.shape:
    raise BadInput(
      f'{where}: the header says shape {header.shape}, the pickle inside '
      f'{shape}'
    )
  return np.asarray(array)


def _read_member(archive, info, path, name):
  where = f'{path}[{name}]'
  if info.file_size > _MAX_RATIO * (info.compress_size + 1):
    raise BadInput(
      f'{where}: claims {info.file_size} bytes from {info.compress_size} '
      'compressed ones, which is impossible; copy it again'
    )
  with checks.reading(where, 'damaged', 'copy it again'):
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


def _map_member(info, header, path):
  # The local header repeats the name, but its extra field may differ in size.
  with open(path, 'rb') as stream:
    stream.seek(info.header_offset + 26)
    name_size = int.from_bytes(stream.read(2), 'little')
    extra_size = int.from_bytes(stream.read(2), 'little')
  start = info.header_offset + 30 + name_size + extra_size
  return _map(path, header, start + header.offset)


def _map(path, header, offset):
  order = 'F' if header.fortran else 'C'
  return np.memmap(path, header.dtype, 'r', offset, header.shape, order)
