"""Reads and writes `.npz` files of arrays with a description and a checksum."""

from collections.abc import Mapping
import hashlib
import json
from typing import Any
import zipfile

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import npz_file
from hyperudl.storage import filesystem
from hyperudl.storage.filesystem import StrPath

VERSION = 1
MODEL, TASK = 'hyperudl-model', 'hyperudl-task'  # formats
_MAX_META = 1 << 24  # bytes of JSON


def write(
  path: StrPath,
  arrays: Mapping[str, np.ndarray],
  meta: Mapping[str, Any],
) -> None:
  """Write arrays and a description, completely or not at all.

  The same content always gives the same bytes.

  Args:
    path: of the file.
    arrays: by name, such as 'params/net/kernel'.
    meta: fits in JSON; `version` and `sha256` are added.

  Raises:
    BadInput: more arrays than are read, or a long name.
    core.Unwritable: the disk is full or may not be written.
  """
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  # `meta` itself is one more.
  if len(arrays) >= npy.MAX_ENTRIES or max(map(len, arrays), default=0) > 190:
    raise BadInput(
      f'{path}: {len(arrays)} arrays, more than the {npy.MAX_ENTRIES - 1} that '
      'are read, or a name of more than 190 characters'
    )
  body = {**meta, 'version': VERSION}
  body['sha256'] = _digest(arrays, body)
  text = json.dumps(body, sort_keys=True).encode()
  with (
    filesystem.replacing(path) as file,
    zipfile.ZipFile(file, 'w') as archive,
  ):
    npz_file.write_array(archive, 'meta', np.frombuffer(text, np.uint8))
    for name, array in arrays.items():
      npz_file.write_array(archive, name, array)


def read(path: StrPath, form: str) -> tuple[dict[str, np.ndarray], dict]:
  """Return the arrays by name and the description that `write` stored.

  Nothing in the file is executed, and no more memory is taken than it has.

  Args:
    path: of the file.
    form: the format that it must have, `MODEL` or `TASK`.

  Raises:
    BadInput: it is damaged, or of another format or version.
  """
  path = str(path)
  names = npy.read_npz(path, ())[1]
  arrays = npy.read_npz(path, names)[0]
  meta = _parse(arrays.pop('meta', None), path)
  if meta.get('format') != form or meta.get('version') != VERSION:
    raise BadInput(
      f'{path}: a file of the format {str(meta.get("format"))[:40]!r}, version '
      f'{str(meta.get("version"))[:40]}; expected {form!r}, version {VERSION}: '
      'a model is read by load (--model), a task by load_task (--task)'
    )
  found = meta.pop('sha256', None)
  if found != _digest(arrays, meta):
    raise BadInput(f'{path}: its checksum is wrong; copy it again')
  return arrays, meta


def _parse(array, path):
  """Return the JSON object that an array holds as bytes."""
  try:
    if array is None or array.dtype != np.uint8 or array.nbytes > _MAX_META:
      raise ValueError('no description')
    meta = json.loads(array.tobytes())
    if not isinstance(meta, dict):
      raise ValueError('its description is no object')
  except (ValueError, RecursionError) as error:
    raise BadInput(
      f'{path}: no model or task of hyperudl ({filesystem.reason(error)})'
    ) from None
  return meta


def _digest(arrays, meta):
  """Return the SHA-256 of arrays, with their names and types, and of `meta`."""
  digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f'{name} {array.dtype.str} {arrays[name].shape}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
