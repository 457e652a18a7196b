"""Reads .npy and .npz files, and checks their headers before using them.

The size that a header claims is compared with the bytes in the file before any
memory is allocated, and compressed arrays may take `MAP_BYTES` more than their
file. Big arrays are memory-mapped, also those stored without compression inside
a .npz file.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import io
import math
import os
from typing import NamedTuple
import warnings
import zipfile

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import safe_pickle

MAP_BYTES = 1 << 27  # arrays from this size on are memory-mapped
MAX_ENTRIES = 1000  # of a .npz file
_MAX_DIRECTORY = 1 << 24  # bytes of the table of contents of a zip file
_MAX_NAME = 200  # characters of the name of an array
_MAX_HEADER = 2000  # bytes; that of a plain array has 118
_MAGIC = b'\x93NUMPY'
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes
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
  size = _file_size(path)
  with (
    checks.reading(path, 'not a .npz file or truncated', 'copy it again'),
    open_zip(path) as archive,
  ):
    members = _members(archive, path)
    chosen = {name: members[name] for name in wanted if name in members}
    _check_expansion(chosen.values(), size, path)
    arrays = {
      name: _read_member(archive, info, path, name)
      for name, info in chosen.items()
    }
  return arrays, tuple(members)


class _BoundedFile(io.BufferedReader):
  """A file of which no large part is read at once."""

  def read(self, size=-1, /):
    if size is not None and size > _MAX_DIRECTORY:
      raise BadInput(
        f'{self.name}: a zip file with a table of contents of {size} bytes, '
        f'more than the {_MAX_DIRECTORY} that are read'
      )
    return super().read(size)


@contextlib.contextmanager
def open_zip(path: str) -> Iterator[zipfile.ZipFile]:
  """Open a zip file whose table of contents is small.

  Raises:
    BadInput: the table of contents has more than 16 MiB, which would take ten
      times as much memory.
    OSError, zipfile.BadZipFile: it cannot be read, or is damaged.
  """
  with _BoundedFile(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
    yield archive


def _members(archive, path):
  """Return name -> ZipInfo of the arrays of a .npz file."""
  infos = archive.infolist()
  if len(infos) > MAX_ENTRIES:
    raise BadInput(
      f'{path}: {len(infos)} arrays, more than the {MAX_ENTRIES} that are '
      'read; save images and labels as one array each'
    )
  return {
    info.filename.removesuffix('.npy'): info
    for info in infos
    if info.filename.endswith('.npy') and len(info.filename) <= _MAX_NAME
  }


def _check_expansion(infos, size, path):
  """Refuse a small file of compressed arrays that would fill the memory."""
  # Arrays that are stored as they are cannot claim more than they have.
  larger = [info for info in infos if info.file_size > info.compress_size]
  total = sum(info.file_size for info in larger)
  if total > MAP_BYTES + size:
    raise BadInput(
      f'{path}: {size} bytes, whose compressed arrays would take {total} bytes '
      'of memory; save them with numpy.savez, so that they stay on disk'
    )


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
  length = stream.read(2 * version[0])
  size = int.from_bytes(length, 'little')
  if size > _MAX_HEADER:
    raise BadInput(
      f'{where}: a .npy header of {size} bytes; that of a plain array has at '
      f'most {_MAX_HEADER}'
    )
  text = io.BytesIO(length + stream.read(size))
  damaged = checks.reading(where, 'damaged .npy header', 'copy it again')
  with damaged, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # about headers written by Python 2
    header = Header(*_HEADER_READERS[version](text), stream.tell())
  dtype = header.dtype
  if dtype.kind not in 'biufcSUO' or not dtype.itemsize or dtype.subdtype:
    raise BadInput(
      f'{where}: dtype {str(dtype)[:60]}; expected plain numbers or strings'
    )
  return header


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
  if info.compress_type not in _METHODS:
    raise BadInput(
      f'{where}: compressed by method {info.compress_type}; save the file with '
      'numpy.savez'
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
    with archive.open(info) as stream:
      return _read_values(stream, header)


def _read_values(stream, header):
  """Return the array of a member, of which no more is read than it claims."""
  array = np.empty(math.prod(header.shape), header.dtype)
  content = memoryview(array.view(np.uint8))
  stream.read(header.offset)
  done = 0
  while piece := stream.read(min(1 << 20, len(content) - done)):
    content[done : done + len(piece)] = piece
    done += len(piece)
  if done < len(content) or stream.read(1):
    raise ValueError(f'holds {done} bytes, expected {len(content)}')
  order = 'F' if header.fortran else 'C'
  return array.reshape(header.shape, order=order)


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
