"""What lies under checkpoints and metrics: disks, locks, leaves with names."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil

from absl import logging
import jax
import numpy as np

from hyperudl import core

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_FALLOCATE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def free_bytes(path):
  """Free bytes of the disk that holds `path`, which need not exist."""
  path = os.path.abspath(path)
  while not os.path.exists(path):
    path = os.path.dirname(path)
  return shutil.disk_usage(path).free


def reason(error):
  """One short line for an exception, also for the pages of tensorstore."""
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code.group(1)))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = ' '.join(str(error).split())
  if len(text) > 160:
    text = text[:160] + '...'
  return f'{type(error).__name__}: {text}'


@contextlib.contextmanager
def writing(path):
  """Turns what a full or forbidden disk raises into core.Unwritable."""
  try:
    yield
  except Exception as error:
    from_disk = isinstance(error, OSError) or re.search(
      'os_error_code|RESOURCE_EXHAUSTED|PERMISSION_DENIED', str(error)
    )
    if not from_disk:
      raise
    raise core.Unwritable(
      f'cannot write {path}: {reason(error)} ({free_bytes(path)} bytes free); '
      'make room or choose another --workdir, then give the same command again'
    ) from error


def replace(path, content):
  """Writes bytes to `path` so that readers see the old file or the new one.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  temporary = f'{path}.{os.getpid()}.tmp'
  with writing(path):
    try:
      with open(temporary, 'wb') as file:
        file.write(content)
      os.replace(temporary, path)
    finally:
      with contextlib.suppress(OSError):
        os.remove(temporary)


def check_space(directory, size):
  """Raises OSError if a file of `size` bytes cannot be made in `directory`.

  The threads of orbax print a traceback each when the disk is full; asking
  first leaves one line to the user. Nothing is kept, and file systems that
  cannot reserve pass.
  """
  # Reserving more than there is would fill the disk for a moment.
  if shutil.disk_usage(directory).free < size:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  path = os.path.join(directory, f'.space.{os.getpid()}')
  try:
    with open(path, 'wb') as file:
      if hasattr(os, 'posix_fallocate'):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size)
  except OSError as error:
    if error.errno not in _NO_FALLOCATE:
      raise
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)


def acquire_lock(workdir, name='.lock'):
  """Makes `workdir` and locks `workdir/name` for this process.

  Args:
    workdir: str.
    name: str, one file per role that may exist once.

  Returns:
    The open file; the lock ends with it, also by kill -9.

  Raises:
    core.Busy: another process holds the lock.
    core.Unwritable: the file cannot be made.
  """
  path = os.path.abspath(os.path.join(workdir, name))
  with writing(path):
    os.makedirs(workdir, exist_ok=True)
    file = open(path, 'a+')  # noqa: SIM115 - the caller holds it
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.read().strip() or 'unknown'
    file.close()
    raise core.Busy(
      f'{os.path.abspath(workdir)} is in use by process {holder} ({path}): '
      'wait for it, stop it, or choose another --workdir'
    ) from None
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      file.close()
      raise core.Unwritable(f'cannot lock {path}: {reason(error)}') from error
    logging.warning('%s: this file system has no locks; going on', path)
  with contextlib.suppress(OSError):  # the number only helps the reader
    file.truncate(0)
    file.write(f'{os.getpid()}\n')
    file.flush()
  return file


def name_leaves(tree):
  """dict 'params/block0/kernel' -> leaf, in the order of the leaves."""
  pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in pairs
  }


def nest(named):
  """Nested dictionaries of strings from a dict of `name_leaves`."""
  tree = {}
  for name, leaf in named.items():
    *parents, last = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def fill(tree, named):
  """`tree` with the leaves of a dict that has its names."""
  return jax.tree.unflatten(
    jax.tree.structure(tree), [named[name] for name in name_leaves(tree)]
  )


def mismatch(found, expected):
  """Tells where two dicts of arrays differ first in name, shape or dtype.

  Args:
    found: dict of `name_leaves`; of a leaf only shape and dtype are looked at.
    expected: likewise.

  Returns:
    str, or None if they agree.
  """
  for name, leaf in expected.items():
    if name not in found:
      return f'{name} is missing, expected {_describe(leaf)}'
    if _describe(found[name]) != _describe(leaf):
      return f'{name} is {_describe(found[name])}, expected {_describe(leaf)}'
  for name, leaf in found.items():
    if name not in expected:
      return f'{name} is {_describe(leaf)}, expected none'
  return None


def pack(state, step, config, metric=None):
  """Copies a state to the host and describes it, for one checkpoint.

  Args:
    state: PyTree with an entry `params`, on any devices.
    step: int.
    config: dict that JSON can hold.
    metric: float or None.

  Returns:
    (u8[total] the bytes of all leaves, dict for JSON that tells them apart).

  Raises:
    core.NonFinite: a parameter is NaN or infinite.
  """
  named = name_leaves(jax.device_get(state))
  leaves, flat, offset = {}, [], 0
  for name, leaf in named.items():
    array = np.asarray(leaf)
    if name.startswith('params/') and not np.all(np.isfinite(array)):
      raise core.NonFinite(
        f'{name} is not finite at step {step}: not saved, the last good '
        'checkpoint stays'
      )
    flat.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    leaves[name] = {
      'shape': list(array.shape),
      'dtype': str(array.dtype),
      'offset': offset,
      'sha256': hashlib.sha256(flat[-1]).hexdigest(),
    }
    offset += array.nbytes
  meta = {'step': step, 'metric': metric, 'config': config, 'leaves': leaves}
  return np.concatenate(flat), {**meta, 'sha256': _digest_json(meta)}


def check_meta(meta, step):
  """Raises ValueError if `meta` of `pack` is damaged or of another step."""
  body = {key: value for key, value in meta.items() if key != 'sha256'}
  if meta['sha256'] != _digest_json(body):
    raise ValueError('the checksum of its meta data is wrong')
  if meta['step'] != step:
    raise ValueError(f'it holds step {meta["step"]}')


def unpack(data, meta):
  """The dict of `name_leaves` from what `pack` made.

  Raises:
    ValueError: the checksum of a leaf is wrong.
  """
  named = {}
  for name, leaf in meta['leaves'].items():
    dtype = np.dtype(leaf['dtype'])
    size = math.prod(leaf['shape']) * dtype.itemsize
    flat = data[leaf['offset'] :][:size].copy()
    if hashlib.sha256(flat).hexdigest() != leaf['sha256']:
      raise ValueError(f'the checksum of {name} is wrong')
    named[name] = flat.view(dtype).reshape(leaf['shape'])
  return named


def config_differences(stored, current):
  """Lists the fields that differ: ['learner.width: 64 stored, 32 now'].

  Args:
    stored: dict, the config of a checkpoint or of `config.json`.
    current: dict, the config of this run; tuples equal lists.
  """
  old, new = _flat(stored), _flat(current)
  return [
    f'{name}: {old.get(name, "absent")} stored, {new.get(name, "absent")} now'
    for name in sorted({**old, **new})
    if old.get(name) != new.get(name)
  ]


def _flat(config, prefix=''):
  """dict 'a.b' -> JSON text of the value."""
  if not isinstance(config, dict) or not config:
    return {prefix[:-1]: json.dumps(config)}
  flat = {}
  for key, value in config.items():
    flat.update(_flat(value, f'{prefix}{key}.'))
  return flat


def _describe(leaf):
  return f'{leaf.dtype}{list(leaf.shape)}'


def _digest_json(value):
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
