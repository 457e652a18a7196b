"""The built-in image set `glyphs`: Omniglot's shape, drawn, not downloaded.

1,623 Unicode characters of 18 alphabets, each written by 20 "drawers", 28x28
pixels, ink = 255. Every character is a line one pixel wide
(`glyph_skeletons.npz`, made by `tools/build_glyph_skeletons.py`), which is
bent, turned and drawn with a pen here. One drawer writes a whole alphabet in
one hand: r, h, a, s, p are drawn once per (alphabet, drawer), N for every
image, all of them standard normals:

  angle  = .12 r + .06 N             shear = .14 h + .05 N
  aspect = exp(.10 a + .06 N)        scale = exp(.13 s + .08 N - .13)
  shift  = .045 N of the frame       half the pen = .98 + .17 clip(p, -1.5, 2)
  bend   = 1.6 * .075 N of the frame at 5x5 points, smoothed by Gaussians
  ink    = clip(.5 + half the pen - distance to the line in pixels, 0, 1)

The pixels are a pure function of the seed: float64 all the way from Philox's
raw bits. No ink of seed 0 is closer than 1e-7 grey levels to where it would be
rounded to another one, far more than CPUs differ by; a checksum tells the rest.
"""

import contextlib
import hashlib
import json
import math
import os
import time
import unicodedata

from absl import logging
import numpy as np
from scipy import ndimage
from scipy import special

from hyperudl import core

CLASSES = 1623
SIDE = 28  # pixels of an image
FRAME = 64  # pixels of a skeleton
CONTROL = 5  # elastic control points per axis
# What `load` draws with, and the SHA-256 of the pixels it should get. The
# latter is the version of the set as well: a new one makes old caches stale.
NUMBERS = {'seed': 0, 'elastic': 1.0, 'affine': 1.0, 'drawers': 20}
CHECKSUM = '26ba527b8c60dcf28e50dc832f3241622d6af277482076ff794df0fb1228de4f'

# An alphabet lies in one split as a whole, and so do its relatives: Latin,
# Cyrillic, Coptic, Old Italic and Lisu share roots, maths, arrows and symbols
# share shapes. These two families train, for they are the largest, with the
# Canadian syllabics, 301 turns of few shapes. Tested are letters (and digits)
# of five scripts unlike all of them. Greek, akin to Latin, is in valid, which
# only selects models. Chosen by kinship alone, before anything was trained.
SPLITS = {
  'valid': ('GREEK', 'HEBREW', 'OGHAM', 'TIFINAGH'),
  'test': ('ARABIC', 'ARMENIAN', 'GEORGIAN', 'LAO', 'NKO'),
}


def _read_skeletons():
  """bool[1623, 64, 64], code points i32[1623] and alphabets str[1623]."""
  path = os.path.join(os.path.dirname(__file__), 'glyph_skeletons.npz')
  with np.load(path, allow_pickle=False) as file:
    bits = np.unpackbits(file['skeletons'], axis=1).astype(bool)
    return bits.reshape(-1, FRAME, FRAME), file['codes'], file['alphabets']


def _normals(seed, stream, shape):
  """Standard normals f64[shape] of one stream of one seed.

  NumPy promises Philox's bits for ever, but not the way its own `normal`
  uses them; hence the inverse of the normal distribution function.
  """
  key = np.array([seed, stream], np.uint64)
  raw = np.random.Philox(key=key).random_raw(math.prod(shape))
  uniform = ((raw >> np.uint64(12)) + 0.5) * 2.0**-52
  return special.ndtri(uniform).reshape(shape)


def _make_basis():
  """Weight of each control point at each pixel of an axis: f64[28, 5]."""
  pixels = (np.arange(SIDE) + 0.5) / SIDE
  points = np.linspace(0, 1, CONTROL)
  basis = np.exp(-0.5 * ((pixels[:, None] - points) / 0.22) ** 2)
  return basis / basis.sum(axis=1, keepdims=True)


def _warp(style, noise, affine):
  """Where the pixels of a class's images lie in the skeleton's frame.

  Args:
    style: f64[drawers, 5], standard normals of the alphabet's drawers.
    noise: f64[drawers, 6], standard normals of this class.
    affine: strength of both.

  Returns:
    rows and columns f64[drawers, 28, 28] in [-1/2, 1/2] about the centre, and
    the magnification f64[drawers].
  """
  angle = affine * (0.12 * style[:, 0] + 0.06 * noise[:, 0])
  shear = affine * (0.14 * style[:, 1] + 0.05 * noise[:, 1])
  aspect = np.exp(affine * (0.10 * style[:, 2] + 0.06 * noise[:, 2]) / 2)
  scale = np.exp(affine * (0.13 * style[:, 3] + 0.08 * noise[:, 3]) - 0.13)
  shift = affine * 0.045 * noise[:, 4:6]
  angle, shear, aspect, scale = (
    value[:, None, None] for value in (angle, shear, aspect, scale)
  )
  axis = (np.arange(SIDE) + 0.5) / SIDE - 0.5
  rows = axis[:, None] - shift[:, 0, None, None]
  columns = axis - shift[:, 1, None, None]
  # Backwards, for each pixel asks where it comes from: turn, shear, stretch.
  sine, cosine = np.sin(angle), np.cos(angle)
  turned_rows = cosine * rows - sine * columns
  turned_columns = sine * rows + cosine * columns - shear * turned_rows
  return (
    turned_rows * aspect / scale,
    turned_columns / aspect / scale,
    scale[:, 0, 0],
  )


def _draw(skeleton, style, noise, elastic, affine, basis):
  """Images uint8[drawers, 28, 28] of one character.

  Args:
    skeleton: bool[64, 64].
    style: f64[drawers, 5], standard normals of the alphabet's drawers.
    noise: f64[drawers, 56], standard normals of this class.
    elastic: strength of the bending.
    affine: strength of turns, shears, stretches and shifts.
    basis: f64[28, 5], as from `_make_basis`.
  """
  rows, columns, scale = _warp(style, noise[:, :6], affine)
  control = noise[:, 6:].reshape(-1, 2, CONTROL, CONTROL)
  bend = basis @ (elastic * 1.6 * 0.075 * control) @ basis.T
  where = np.stack([rows + bend[:, 0], columns + bend[:, 1]])
  distance = ndimage.distance_transform_edt(~skeleton)
  distance = ndimage.map_coordinates(
    distance, (where + 0.5) * FRAME - 0.5, order=1, mode='nearest'
  )
  distance *= (SIDE / FRAME) * scale[:, None, None]
  pen = 0.98 + 0.17 * np.clip(style[:, 4], -1.5, 2)
  ink = np.clip(0.5 + pen[:, None, None] - distance, 0, 1)
  return np.rint(255 * ink).astype(np.uint8)


def generate(seed=0, *, elastic=1.0, affine=1.0, drawers=20, progress=None):
  """Draws every character with every drawer, a pure function of its numbers.

  Args:
    seed: int in [0, 2**64); another seed is another set of drawers.
    elastic: strength of the bending, >= 0; 1 is like Omniglot, 1.5 is hard.
    affine: strength of turns, shears, stretches and shifts, >= 0; 1 is like
      Omniglot, 1.25 is hard.
    drawers: images per character, >= 1. The first ones of a larger number are
      those of a smaller one.
    progress: called as progress(characters done, characters) now and then.

  Returns:
    uint8[1623, drawers, 28, 28], ink = 255.

  Raises:
    BadInput: a number is out of its range.
  """
  _check_numbers(seed, elastic, affine, drawers)
  skeletons, _, alphabets = _read_skeletons()
  names, alphabet = np.unique(alphabets, return_inverse=True)
  styles = [_normals(seed, 2**32 + i, (drawers, 5)) for i in range(len(names))]
  basis = _make_basis()
  images = np.empty((CLASSES, drawers, SIDE, SIDE), np.uint8)
  for index, skeleton in enumerate(skeletons):
    noise = _normals(seed, index, (drawers, 6 + 2 * CONTROL**2))
    style = styles[alphabet[index]]
    images[index] = _draw(skeleton, style, noise, elastic, affine, basis)
    if progress and ((index + 1) % 100 == 0 or index + 1 == CLASSES):
      progress(index + 1, CLASSES)
  return images


def load(dir, *, progress=None):
  """The built-in set, drawn on the first call and cached in a directory.

  A cache that is damaged or of another version is drawn anew, a directory that
  cannot be written goes without cache; both are said in a warning.

  Args:
    dir: where `glyphs.npz` is or will be; made if it does not exist.
    progress: called as progress(characters done, characters) while drawing.

  Returns:
    dict(images: uint8[1623, 20, 28, 28]; class_names, alphabets: str[1623];
    split: str[1623], one of train, valid, test).
  """
  path = os.path.join(dir, 'glyphs.npz')
  images, complaint, ours = _read_cache(path)
  if complaint:
    logging.warning('%s %s; drawing the glyphs anew.', path, complaint)
  cached = images is not None
  if not cached:
    start = time.monotonic()
    logging.info('Drawing the built-in glyphs: once, a few seconds.')
    images = generate(**NUMBERS, progress=progress)
    logging.info('Drew the glyphs in %.1f s.', time.monotonic() - start)
  digest = _digest(images)
  if digest != CHECKSUM:
    logging.warning(
      'The pixels of glyphs have SHA-256 %s, not %s as released: this CPU or '
      'these versions of NumPy and SciPy round differently. Results will be '
      'alike, not bit for bit equal.',
      digest,
      CHECKSUM,
    )
  arrays = {'images': images, **_describe()}
  if not cached and ours:
    _write_cache(path, {**arrays, 'recipe': _recipe(), 'sha256': digest})
  return arrays


def _check_numbers(seed, elastic, affine, drawers):
  """Raises BadInput unless `generate` can draw with these numbers."""
  whole = (int, np.integer)
  if not isinstance(seed, whole) or not 0 <= seed < 2**64:
    raise core.BadInput(f'seed is {seed!r}, must be an int in [0, 2**64).')
  if not isinstance(drawers, whole) or drawers < 1:
    raise core.BadInput(f'drawers is {drawers!r}, must be an int >= 1.')
  for name, value in (('elastic', elastic), ('affine', affine)):
    if not 0 <= value < math.inf:
      raise core.BadInput(f'{name} is {value!r}, must be finite and >= 0.')


def _describe():
  """The class names, alphabets and splits, each str[1623]."""
  _, codes, alphabets = _read_skeletons()
  split = np.full(CLASSES, 'train')
  for name, members in SPLITS.items():
    split[np.isin(alphabets, members)] = name
  names = np.array([unicodedata.name(chr(code)) for code in codes])
  return {'class_names': names, 'alphabets': alphabets, 'split': split}


def _recipe():
  """What the pixels depend on, as one line of text."""
  return json.dumps({'version': CHECKSUM, **NUMBERS})


def _digest(images):
  """SHA-256 of the pixels in hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def _read_cache(path):
  """The images of a cache, if it is whole and fresh.

  Returns:
    images or None; the complaint about a file that is no good, else ''; and
    whether the file is ours to write.
  """
  if not os.path.lexists(path):
    return None, '', True
  try:
    with np.load(path, allow_pickle=False) as file:
      if 'recipe' not in file:
        return None, 'is another data set, and stays as it is', False
      if str(file['recipe']) != _recipe():
        return None, 'is of another version', True
      images, digest = file['images'], str(file['sha256'])
  except Exception as error:  # zipfile, zlib, struct, ... each has its own
    return None, f'cannot be read ({type(error).__name__}: {error})', True
  shape = (CLASSES, NUMBERS['drawers'], SIDE, SIDE)
  if images.dtype != np.uint8 or images.shape != shape:
    return None, f'holds {images.dtype}{list(images.shape)}', True
  if _digest(images) != digest:
    return None, 'is damaged (its pixels do not match its checksum)', True
  return images, '', True


def _write_cache(path, arrays):
  """Writes an .npz that is whole or not there, or warns why not."""
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(temporary, 'wb') as file:
      np.savez(file, **arrays)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    logging.warning(
      'Cannot cache the glyphs in %s (%s); they stay in memory and are drawn '
      'again by the next run. Make the directory writable to save the time.',
      path,
      error.strerror or error,
    )
    with contextlib.suppress(OSError):
      os.remove(temporary)
