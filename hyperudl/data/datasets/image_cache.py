"""Keeps the resized images of a folder, so that they are decoded only once."""

from collections.abc import Iterable
import contextlib
import glob
import hashlib
import os

from absl import logging

from hyperudl import core
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import npz_file
from hyperudl.storage import filesystem

VERSION = 1  # of the pixels that `image_file` makes of a file
SECONDS = 2.0  # folders that are read faster need no cache


def path(folder: str, image_size: int, files: Iterable[tuple]) -> str:
  """Return the path of the cache of a folder, which need not exist.

  Args:
    folder: of the images.
    image_size: pixels per side, 0 for their own.
    files: what is read, in order: strings and numbers that change with it.
  """
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  place = f'{os.path.realpath(folder)} {image_size}'
  listing = hashlib.sha256(f'{VERSION}'.encode())
  for entry in files:
    listing.update(repr(entry).encode())
  name = f'{_digest(place)}-{listing.hexdigest()[:32]}.npz'
  return os.path.join(home, 'hyperudl', 'images', name)


def read(path: str, folder: str) -> class_table.Table | None:
  """Return the set that the cache at `path` holds, or None."""
  if not os.path.isfile(path):
    return None
  try:
    names = ('images', 'labels', *class_table.STRINGS)
    table = class_table.from_arrays(npy.read_npz(path, names)[0], folder)
  except (core.BadInput, KeyError) as error:
    logging.warning('%s: %s; reading the images again', path, error)
    return None
  logging.info('%s: images as cached in %s', folder, path)
  return table


def write(table: class_table.Table, path: str) -> None:
  """Save a set at `path`, in place of older caches of its folder.

  A cache that cannot be written costs only time: that is logged.
  """
  try:
    npz_file.write(table, path, checksum=False)
  except core.Unwritable as error:
    logging.info('The images are not cached (%s).', filesystem.reason(error))
    return
  of_folder = path[: -len('-.npz') - 32]
  for older in glob.glob(f'{glob.escape(of_folder)}-*.npz'):
    if older != path:
      with contextlib.suppress(OSError):
        os.remove(older)


def _digest(text):
  data = text.encode('utf-8', 'surrogateescape')
  return hashlib.sha256(data).hexdigest()[:32]
