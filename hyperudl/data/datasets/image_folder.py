"""Reads trees of class folders of images, and resizes images."""

import collections
from concurrent import futures
import functools
import os
import time

from absl import logging
import numpy as np
from PIL import Image

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_cache
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_tree

_THREADS = 2  # each may hold a photograph of full size
_SECONDS = 5.0  # between two lines that tell how far the reading is


def resize(images: np.ndarray, size: int) -> np.ndarray:
  """Resize images to squares with an antialiasing (Lanczos) filter.

  Args:
    images: uint8[n, H, W, C].
    size: pixels per side; the aspect ratio is not kept.

  Returns:
    uint8[n, size, size, C]; the input itself if it already has this size.

  Raises:
    BadInput: the result would not fit into the memory of this machine.
  """
  rows, height, width, channels = images.shape
  if (height, width) == (size, size):
    return images
  _check_memory(f'{rows} images', rows * size * size * channels)
  resized = np.empty((rows, size, size, channels), np.uint8)
  for row in range(rows):
    for channel in range(channels):
      plane = Image.fromarray(np.ascontiguousarray(images[row, ..., channel]))
      plane = plane.resize((size, size), Image.Resampling.LANCZOS)
      resized[row, ..., channel] = np.asarray(plane)
  return resized


def read_tree(folder: str, image_size: int = 0) -> class_table.Table:
  """Read a tree of class folders.

  Each image is resized as soon as it is read, so that only one of full size is
  in memory. Sets that take seconds to read are kept in a cache (`image_cache`).

  Args:
    folder: as `image_tree.find` expects it.
    image_size: pixels per side; 0 for images that are all of one size.

  Returns:
    A `class_table.Table`; one channel if every image is gray, else three. Its
    `notes` say what was passed over.

  Raises:
    BadInput: with the name of the faulty file or folder.
  """
  classes, notes = image_tree.find(folder)
  files = [
    (*entry[:3], os.path.relpath(path, folder), *_status(path))
    for entry in classes
    for path in entry.paths
  ]
  cache = image_cache.path(folder, image_size, files)
  table = image_cache.read(cache, folder)
  if table is None:
    start = time.monotonic()
    with image_file.without_warnings():
      blocks = _read_blocks(folder, classes, image_size)
    took = time.monotonic() - start
    split, alphabets, names, _ = zip(*classes)
    table = class_table.check(
      class_table.Table(
        folder,
        blocks,
        names,
        alphabets if alphabets[0] else None,
        split if split[0] else None,
      )
    )
    if took >= image_cache.SECONDS:
      image_cache.write(table, cache)
  return table._replace(notes=notes)


def _status(path):
  """Return what changes with the content of a file."""
  try:
    status = os.stat(path)
  except OSError:  # reading it will tell
    return 0, 0
  return status.st_size, status.st_mtime_ns


def _read_blocks(folder, classes, image_size):
  """Return the images of each class, uint8[n_c, H, W, C]."""
  paths = [path for entry in classes for path in entry.paths]
  images = []
  for path, image in zip(paths, _read_all(folder, paths, image_size)):
    if not images:
      _check_memory(folder, len(paths) * image.nbytes)
    elif image.shape[:2] != images[0].shape[:2]:
      sizes = [f'{i.shape[1]}x{i.shape[0]}' for i in (images[0], image)]
      raise BadInput(
        f'{folder}: images differ in size ({paths[0]} is {sizes[0]}, {path} '
        f'is {sizes[1]}); set data.image_size (--image_size in convert)'
      )
    images.append(image)
  channels = max(image.shape[-1] for image in images)
  blocks = []
  for entry in classes:
    part, images = images[: len(entry.paths)], images[len(entry.paths) :]
    alike = [np.broadcast_to(i, (*i.shape[:2], channels)) for i in part]
    blocks.append(np.stack(alike))
  return blocks


def _check_memory(where, size):
  """Refuse `size` bytes of pixels where the machine has no room for them."""
  if not hasattr(os, 'sysconf'):
    return  # Windows does not say
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if 2 * size > memory:  # a copy is made for each split
    raise BadInput(
      f'{where}: the images take {size >> 20} MB and a copy of them, more '
      f'than the {memory >> 20} MB of this machine; set a smaller '
      'data.image_size (--image_size in convert)'
    )


def _read_all(folder, paths, image_size):
  """Yield the pixels of each file in order, and log how far it is."""
  start = told = time.monotonic()
  read = functools.partial(image_file.read, size=image_size)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    ahead: collections.deque = collections.deque()
    for done in range(len(paths)):
      while len(ahead) < 2 * _THREADS and done + len(ahead) < len(paths):
        ahead.append(pool.submit(read, paths[done + len(ahead)]))
      yield ahead.popleft().result()
      now = time.monotonic()
      if now - told > _SECONDS:
        told = now
        left = (now - start) / (done + 1) * (len(paths) - done - 1)
        logging.info(
          '%s: read %d of %d images, %d s left',
          folder,
          done + 1,
          len(paths),
          left,
        )
