"""Writes a set of images or features as a .npz file and describes it."""

import contextlib
import hashlib
import os
import tempfile
import zipfile

import numpy as np
import pooch

from hyperudl import core
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.storage import filesystem


def write(table: class_table.Table, path: str, *, checksum: bool = True) -> str:
  """Write a set as a `.npz` file, completely or not at all, and its checksum.

  The same set always gives the same bytes. Big sets are stored uncompressed, so
  that training can memory-map them. Of several processes that write one file,
  the last wins, with its checksum.

  Args:
    table: the set.
    path: file ending in .npz.
    checksum: whether to write `<path>.sha256` too.

  Returns:
    The SHA-256 of the file in hexadecimal digits.

  Raises:
    core.BadInput: training could not read the file; nothing is written.
    core.Unwritable: the disk is full or the folder cannot be written.
  """
  part = f'{path}.{os.getpid()}.part'
  folder = os.path.dirname(os.path.abspath(path))
  with filesystem.writing(path):
    try:
      os.makedirs(folder, exist_ok=True)
      with zipfile.ZipFile(part, 'w') as archive:
        _write_blocks(archive, table)
        for field in class_table.STRINGS:
          if getattr(table, field):
            strings = np.array(getattr(table, field), dtype=str)
            write_array(archive, field, strings)
      wanted = *class_table.CONTENTS, 'labels', *class_table.STRINGS
      arrays, _ = npy.read_npz(part, wanted)
      class_table.from_arrays(arrays, path)
      digest = pooch.file_hash(part)
      line = f'{digest}  {os.path.basename(path)}\n'
      with _locked(folder):
        os.replace(part, path)
        if checksum:
          content = line.encode('utf-8', 'surrogateescape')
          filesystem.replace(f'{path}.sha256', content)
      return digest
    finally:
      with contextlib.suppress(OSError):
        os.remove(part)


@contextlib.contextmanager
def _locked(folder):
  """Hold a lock for what this user writes to a folder, where there are locks.

  Its file is not in the folder, where it would stay.
  """
  place = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
  user = os.getuid() if hasattr(os, 'getuid') else 0
  held = contextlib.ExitStack()
  with contextlib.suppress(core.Unwritable):
    name = f'hyperudl-{user}-{place}.lock'
    held = filesystem.acquire_lock(tempfile.gettempdir(), name, timeout=-1)
  with held:
    yield


def _write_blocks(archive, table):
  counts = [len(block) for block in table.blocks]
  first = table.blocks[0]
  name, size = 'images', first.shape[1:]
  if class_table.is_features(first):
    name = 'features'
  elif size[-1] == 1:
    size = size[:-1]
  shape = (sum(counts), *size)
  if len(set(counts)) == 1:
    shape = (len(counts), counts[0], *size)
  else:
    labels = np.repeat(np.arange(len(counts)), counts)
    write_array(archive, 'labels', labels)
  big = sum(block.nbytes for block in table.blocks) >= npy.MAP_BYTES
  method = zipfile.ZIP_STORED if big else zipfile.ZIP_DEFLATED
  with _open_member(archive, name, method) as stream:
    header = {'descr': first.dtype.str, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in table.blocks:
      stream.write(np.ascontiguousarray(block).data)


def write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
  """Write an array without objects into a `.npz` file under a name."""
  with _open_member(archive, name, zipfile.ZIP_DEFLATED) as stream:
    np.lib.format.write_array(stream, array, allow_pickle=False)


def _open_member(archive, name, method):
  info = zipfile.ZipInfo(f'{name}.npy')  # has a fixed date, so fixed bytes
  info.compress_type = method
  return archive.open(info, 'w', force_zip64=True)


def describe(table: class_table.Table, path: str, sha256: str) -> str:
  """Return a report, several lines long, about a set and its file `path`."""
  rows = [len(block) for block in table.blocks]
  is_features = class_table.is_features(table.blocks[0])
  kind = 'features' if is_features else 'images'
  size = 'x'.join(map(str, table.blocks[0].shape[1:]))
  lines = [
    *table.notes,
    f'{len(rows)} classes, {sum(rows)} {kind} ({min(rows)} to {max(rows)} per '
    f'class), {size}, from {table.where}',
  ]
  if table.alphabets:
    lines.append(f'{len(set(table.alphabets))} alphabets')
  if table.split:
    for split in (*class_table.SPLITS, class_table.UNUSED):
      part = [n for n, other in zip(rows, table.split) if other == split]
      if part or split != class_table.UNUSED:
        lines.append(f'{split}: {len(part)} classes, {sum(part)} images')
  else:
    lines.append('no split: data.split_by says how training splits it')
  megabytes = os.path.getsize(path) / 1e6
  lines.append(f'wrote {path} ({megabytes:.1f} MB)')
  lines.append(f'sha256 {sha256}')
  return '\n'.join(lines) + '\n'
