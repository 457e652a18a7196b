"""Caches the built-in image sets in files once they are drawn."""

from collections.abc import Callable
import dataclasses
import hashlib
import io
import json
import os

from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import glyph_attributes
from hyperudl.data.datasets import glyphs
from hyperudl.data.datasets import npy
from hyperudl.storage import filesystem

SETS = {'glyphs': glyphs, 'glyph_attributes': glyph_attributes}


def load(
  dir: str,
  name: str = 'glyphs',
  *,
  progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
  """Return a built-in set, drawn on the first call and cached in a directory.

  If the cache is damaged or of another version, the set is drawn again; if the
  directory cannot be written, it is not cached. Both log a warning.

  Args:
    dir: directory of `<name>.npz`; created if it does not exist.
    name: of a set in `SETS`.
    progress: called as progress(classes done, classes) while drawing.

  Returns:
    dict(images: uint8[classes, 20, 28, 28(, 3)]; class_names, alphabets and
    split: str[classes], the last one of train, valid, test).
  """
  built_in, path = SETS[name], os.path.join(dir, f'{name}.npz')
  images, problem = _read(path, name)
  if problem:
    logging.warning('%s %s; drawing the %s anew.', path, problem, name)
  cached = images is not None
  if not cached:
    logging.info('Drawing the built-in %s: once, a few seconds.', name)
    images = built_in.generate(progress=progress)
  digest = _digest(images)
  if digest != built_in.CHECKSUM:
    logging.warning(
      'The pixels of %s have SHA-256 %s, not %s as released: this CPU or '
      'these versions of NumPy and SciPy round differently. Results will be '
      'alike, not bit for bit equal.',
      *(name, digest, built_in.CHECKSUM),
    )
  arrays = {'images': images, **built_in.describe_classes()}
  if not cached:
    _write(path, {**arrays, 'recipe': recipe_text(name), 'sha256': digest})
  return arrays


def recipe_text(name: str = 'glyphs') -> str:
  """Return everything that a set's pixels depend on as one line of text."""
  recipe = dataclasses.asdict(SETS[name].Recipe())
  return json.dumps({'version': SETS[name].CHECKSUM, **recipe})


def _digest(images):
  return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def _read(path, name):
  """Return (images or None, problem or '')."""
  if not os.path.lexists(path):
    return None, ''
  try:
    file, _ = npy.read_npz(path, ('recipe', 'images', 'sha256'))
    recipe = file.get('recipe')
    if recipe is not None:
      images, digest = file['images'], str(file['sha256'])
  except Exception as error:  # zipfile, zlib, struct, ... raise their own
    return None, f'cannot be read ({filesystem.reason(error)})'
  if recipe is None:
    raise core.BadInput(
      f'{path}: {name} is the name of the built-in set, and this is '
      'another; rename it'
    )
  if str(recipe) != recipe_text(name):
    return None, 'is of another version'
  if _digest(images) != digest:
    return None, 'is damaged (its pixels do not match its checksum)'
  return images, ''


def _write(path, arrays):
  """Write an .npz file, completely or not at all, and warn on failure."""
  content = io.BytesIO()
  np.savez(content, **arrays)
  try:
    with filesystem.writing(path):
      os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    filesystem.replace(path, content.getvalue())
  except core.Unwritable as error:
    logging.warning(
      'The set is not cached: %s. It stays in memory and is drawn again by the '
      'next run.',
      error,
    )
