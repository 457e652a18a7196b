"""Caches the built-in image set `glyphs` in a file once it is drawn."""

from collections.abc import Callable
import dataclasses
import hashlib
import io
import json
import os

from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.data.datasets import glyphs
from hyperudl.data.datasets import npy
from hyperudl.storage import filesystem


def load(
  dir: str, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, np.ndarray]:
  """Return the built-in set, drawn on the first call and cached in a directory.

  If the cache is damaged or of another version, the set is drawn again; if the
  directory cannot be written, it is not cached. Both log a warning.

  Args:
    dir: directory of `glyphs.npz`; created if it does not exist.
    progress: called as progress(characters done, characters) while drawing.

  Returns:
    dict(images: uint8[1623, 20, 28, 28]; class_names, alphabets: str[1623];
    split: str[1623], one of train, valid, test).
  """
  path = os.path.join(dir, 'glyphs.npz')
  images, problem = _read(path)
  if problem:
    logging.warning('%s %s; drawing the glyphs anew.', path, problem)
  cached = images is not None
  if not cached:
    logging.info('Drawing the built-in glyphs: once, a few seconds.')
    images = glyphs.generate(progress=progress)
  digest = _digest(images)
  if digest != glyphs.CHECKSUM:
    logging.warning(
      'The pixels of glyphs have SHA-256 %s, not %s as released: this CPU or '
      'these versions of NumPy and SciPy round differently. Results will be '
      'alike, not bit for bit equal.',
      digest,
      glyphs.CHECKSUM,
    )
  arrays = {'images': images, **glyphs.describe_classes()}
  if not cached:
    _write(path, {**arrays, 'recipe': recipe_text(), 'sha256': digest})
  return arrays


def recipe_text() -> str:
  """Return everything that the pixels depend on as one line of text."""
  recipe = dataclasses.asdict(glyphs.Recipe())
  return json.dumps({'version': glyphs.CHECKSUM, **recipe})


def _digest(images):
  return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def _read(path):
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
      f'{path}: glyphs is the name of the built-in set, and this is another; '
      'rename it'
    )
  if str(recipe) != recipe_text():
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
      'Glyphs are not cached: %s. They stay in memory and are drawn again by '
      'the next run.',
      error,
    )
