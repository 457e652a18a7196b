"""Downloads a file: resumed, tried again, and verified by its checksum."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request

from absl import logging

from hyperudl import core

_PIECE = 1 << 16


def fetch(url, path, sha256, *, tries=5, wait=1.0, timeout=30.0):
  """Downloads `url` to `path` unless the file is there already.

  What has come is kept in `<path>.part` and continued by the next try or the
  next call. A file with another checksum is thrown away.

  Args:
    url: str.
    path: str, where the finished file goes.
    sha256: str, the expected checksum in hexadecimal digits.
    tries: int, attempts before giving up.
    wait: float, seconds before the second try; doubled for each further one.
    timeout: float, seconds without an answer that end a try.

  Raises:
    BadInput: not an address.
    Error: no such file there, or every try failed, with the last reason.
    Unwritable: the file cannot be written.
  """
  if os.path.exists(path) and digest(path) == sha256:
    logging.info('%s is there already', path)
    return
  if '://' not in url:
    raise core.BadInput(f'{url!r} is no address; expected https://...')
  part = f'{path}.part'
  for attempt in range(tries):
    if attempt:
      time.sleep(wait * 2 ** (attempt - 1))
    try:
      _download(url, part, timeout)
      found = digest(part)
    # A connection breaks in as many ways as it has layers.
    except (OSError, http.client.HTTPException) as error:
      reason = ' '.join(str(error).split()) or type(error).__name__
      if getattr(error, 'code', 0) in (401, 403, 404, 410):
        break
    else:
      if found == sha256:
        os.replace(part, path)
        return
      os.remove(part)
      reason = f'the file has sha256 {found}, expected {sha256}'
    logging.warning('%s: %s (try %d of %d)', url, reason, attempt + 1, tries)
  raise core.Error(
    f'{url}: cannot be downloaded ({reason}); run again to continue, or get '
    f'it by hand and put it at {path}'
  )


def digest(path):
  """The SHA-256 of the file at `path` (str) in hexadecimal digits."""
  with open(path, 'rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def _download(url, part, timeout):
  start = os.path.getsize(part) if os.path.exists(part) else 0
  request = urllib.request.Request(url)
  if start:
    request.add_header('Range', f'bytes={start}-')
  try:
    response = urllib.request.urlopen(request, timeout=timeout)
  except urllib.error.HTTPError as error:
    if error.code == 416:  # all of it is here, or it is of another file
      return
    raise
  with response:
    # A server that does not know ranges sends the whole file.
    mode = 'ab' if response.status == 206 else 'wb'
    expected = response.headers.get('Content-Length')
    received = 0
    while piece := response.read(_PIECE):
      _append(piece, part, mode)
      mode = 'ab'
      received += len(piece)
  if expected is not None and received < int(expected):
    raise ConnectionError(f'broken off after {received} of {expected} bytes')


def _append(piece, part, mode):
  try:
    with open(part, mode) as stream:
      stream.write(piece)
  except OSError as error:
    raise core.Unwritable(
      f'{part}: cannot be written ({error.strerror})'
    ) from None
