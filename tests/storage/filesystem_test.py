"""Locks, full disks, and files that are replaced whole or not at all."""

import errno
import fcntl
import os
import pathlib
import re
import subprocess
import sys

import pytest

from hyperudl import core
from hyperudl.storage import filesystem

HOLD = """
import sys, time
from hyperudl.storage import filesystem
lock = filesystem.acquire_lock(sys.argv[1])
print('held', flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_kill(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLD, tmp_path],
    stdout=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  try:
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(core.Busy, match=f'process {holder.pid}') as raised:
      filesystem.acquire_lock(tmp_path)
    assert raised.value.exit_code == 6
    filesystem.acquire_lock(tmp_path, '.lock_eval').close()  # another role
  finally:
    holder.kill()
    holder.wait()
    holder.stdout.close()
  with filesystem.acquire_lock(tmp_path):
    assert (tmp_path / '.lock').read_text() == f'{os.getpid()}\n'


def test_a_lock_that_cannot_be_made_is_unwritable(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(core.Unwritable) as raised:
    filesystem.acquire_lock(tmp_path / 'file' / 'run')
  assert raised.value.exit_code == 5


def test_a_file_system_without_locks_is_reported_and_used(
  tmp_path, monkeypatch, warnings
):
  def refuse(code):
    def flock(file, flags):
      raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)

  refuse(errno.ENOLCK)
  filesystem.acquire_lock(tmp_path).close()
  assert 'no locks' in warnings[0]
  refuse(errno.EIO)
  with pytest.raises(core.Unwritable, match='cannot lock'):
    filesystem.acquire_lock(tmp_path)


def test_only_errors_of_the_disk_become_unwritable(tmp_path):
  path = tmp_path / 'a' / 'b'
  for error in (
    OSError(errno.ENOSPC, 'No space left on device'),
    PermissionError(errno.EACCES, 'Permission denied'),
    OSError(errno.EROFS, 'Read-only file system'),
    ValueError('RESOURCE_EXHAUSTED: a page of text'),
  ):
    with pytest.raises(core.Unwritable) as raised, filesystem.writing(path):
      raise error
    text = str(raised.value)
    assert text.startswith(f'cannot write {path}: ') and '\n' not in text
    assert re.search(r'\(\d+ bytes free\)', text)
  with pytest.raises(KeyError), filesystem.writing(path):
    raise KeyError('a bug')


def test_a_reason_is_one_short_line():
  page = ValueError('DATA_LOSS: Error\n' * 200 + "[os_error_code='28']")
  assert filesystem.reason(page) == 'No space left on device'
  assert filesystem.reason(KeyError('x')) == "KeyError: 'x'"
  long = filesystem.reason(ValueError('one\ntwo ' * 100))
  assert '\n' not in long and len(long) < 200


def test_free_space_is_checked_and_nothing_stays_reserved(tmp_path):
  filesystem.check_space(tmp_path, 10_000)
  with pytest.raises(OSError, match='No space left'):
    filesystem.check_space(tmp_path, 10 * filesystem.free_bytes(tmp_path))
  with pytest.raises(OSError, match='No such file'):
    filesystem.check_space(tmp_path / 'missing', 10)
  assert os.listdir(tmp_path) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'config.json'
  filesystem.replace(path, b'old')
  filesystem.replace(path, b'new')
  assert path.read_bytes() == b'new'

  def fail(source, target):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(core.Unwritable, match='No space left'):
    filesystem.replace(path, b'newer')
  assert path.read_bytes() == b'new'
  assert os.listdir(tmp_path) == ['config.json']
