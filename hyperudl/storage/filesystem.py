"""Writes files whole or not at all, locks folders and reports full disks."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import shutil
from typing import IO
from typing import TypeAlias

from absl import logging
import filelock

from hyperudl import core

StrPath = str | os.PathLike[str]
Lock: TypeAlias = filelock.BaseFileLock  # of `acquire_lock`

# Error codes of file systems that cannot lock files or reserve space.
_UNSUPPORTED = (errno.ENOLCK, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_bytes(path: StrPath) -> int:
  """Return the free bytes of the disk of `path`, which need not exist."""
  path = os.path.abspath(path)
  while not os.path.exists(path):
    path = os.path.dirname(path)
  return shutil.disk_usage(path).free


def reason(error: BaseException) -> str:
  """Return one short line for an exception, however long its text is."""
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
def writing(path: StrPath) -> Iterator[None]:
  """Convert what a full or read-only disk raises into core.Unwritable."""
  try:
    yield
  except Exception as error:
    from_disk = isinstance(error, OSError) or re.search(
      'os_error_code|RESOURCE_EXHAUSTED|PERMISSION_DENIED', str(error)
    )
    if not from_disk:
      raise
    code = error.errno if isinstance(error, OSError) else errno.ENOSPC
    remedy = 'make room' if code in _FULL else 'change its permissions'
    raise core.Unwritable(
      f'cannot write {path}: {reason(error)} ({free_bytes(path)} bytes free); '
      f'{remedy} or choose another place (--workdir, --out), then give the '
      'same command again'
    ) from error


def replace(path: StrPath, content: bytes) -> None:
  """Replace the content of a file atomically: readers get the old or the new.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  with replacing(path) as file:
    file.write(content)


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
  """Open a file that takes the place of `path` when the block ends well.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  temporary = f'{path}.{os.getpid()}.tmp'
  with writing(path):
    try:
      with open(temporary, 'wb') as file:
        yield file
      os.replace(temporary, path)
    finally:
      with contextlib.suppress(OSError):
        os.remove(temporary)


def check_space(directory: StrPath, size: int) -> None:
  """Raise OSError if a file of `size` bytes cannot be made in `directory`.

  The threads of orbax print a traceback each when the disk is full; a check
  before leaves one line to the user. Nothing stays reserved, and file systems
  that cannot reserve pass.
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
    if error.errno not in _UNSUPPORTED:
      raise
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)


def acquire_lock(
  workdir: StrPath, name: str = '.lock', timeout: float = 0
) -> contextlib.ExitStack:
  """Create `workdir` and lock `workdir/name` for this process.

  Args:
    workdir: folder of the run.
    name: of the lock file; the trainer and the evaluator have one each.
    timeout: seconds to wait for another process; -1 for ever.

  Returns:
    What holds the lock, until it is closed or the process ends (by kill -9
    too); also a context manager.

  Raises:
    core.Busy: another process holds the lock.
    core.Unwritable: the file cannot be made.
  """
  path = os.path.abspath(os.path.join(workdir, name))
  with writing(path):
    os.makedirs(workdir, exist_ok=True)
  # A soft lock would stay after kill -9.
  lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
  held = contextlib.ExitStack()
  try:
    held.enter_context(lock.acquire(timeout))
  except filelock.Timeout:
    raise core.Busy(
      f'{os.path.abspath(workdir)} is in use by process {_holder(path)} '
      f'({path}): wait for it, stop it, or choose another --workdir'
    ) from None
  except (OSError, NotImplementedError) as error:
    if getattr(error, 'errno', errno.ENOSYS) not in _UNSUPPORTED:
      raise core.Unwritable(f'cannot lock {path}: {reason(error)}') from error
    logging.warning('%s: this file system has no locks; going on', path)
  with contextlib.suppress(OSError):  # the number only helps the reader
    pathlib.Path(path).write_text(f'{os.getpid()}\n')
  return held


def _holder(path):
  """Return the number of the process that holds a lock."""
  with contextlib.suppress(OSError):
    return pathlib.Path(path).read_text().strip() or 'unknown'
  return 'unknown'
