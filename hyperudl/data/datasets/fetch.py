"""Downloads a file and verifies its checksum."""

import os

import pooch
import requests

from hyperudl import core

RETRIES = 3  # attempts after the first one, with growing pauses between them
TIMEOUT = 30.0  # seconds without an answer after which an attempt is given up


def fetch(url: str, path: str, sha256: str) -> None:
  """Download `url` to `path`, unless the file exists already.

  Args:
    url: address of the file.
    path: target path; an existing file with another checksum is replaced.
    sha256: the expected checksum in hexadecimal digits.

  Raises:
    BadInput: `url` is not an address.
    Error: every attempt failed, or gave a file with another checksum.
    Unwritable: the file cannot be written.
  """
  if '://' not in url:
    raise core.BadInput(f'{url!r} is no address; expected https://...')
  folder, name = os.path.split(os.path.abspath(path))
  downloads = pooch.create(
    folder,
    base_url='',
    registry={name: f'sha256:{sha256}'},
    urls={name: url},
    retry_if_failed=RETRIES,
  )
  try:
    downloads.fetch(name, downloader=pooch.HTTPDownloader(timeout=TIMEOUT))
  # pooch raises ValueError for a wrong checksum.
  except (requests.RequestException, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise core.Error(
      f'{url}: cannot be downloaded ({reason}); run again, or get it by hand '
      f'and put it at {path}'
    ) from None
  except OSError as error:
    raise core.Unwritable(
      f'{path}: cannot be written ({error.strerror})'
    ) from None
