"""Draws the built-in image set `glyphs`, which has the shape of Omniglot.

It has 1,623 Unicode characters of 18 alphabets, each drawn by 20 "drawers",
28x28 pixels, ink = 255. A character is a skeleton of lines one pixel wide
(`glyph_skeletons.npz`, made by `tools/build_glyph_skeletons.py`), which is
bent, rotated and drawn with a pen here. A drawer has one style for a whole
alphabet: r, h, a, s, p are drawn once per (alphabet, drawer), N for every
image, all of them standard normals:

  angle  = .12 r + .06 N             shear = .14 h + .05 N
  aspect = exp(.10 a + .06 N)        scale = exp(.13 s + .08 N - .13)
  shift  = .045 N of the frame       half pen width = .98 + .17 clip(p, -1.5, 2)
  bend   = 1.6 * .075 N of the frame at 5x5 points, smoothed by Gaussians
  ink    = clip(.5 + half pen width - distance to the line in pixels, 0, 1)

The pixels are a pure function of the seed, computed in float64 from Philox's
raw bits. With seed 0 every ink value is at least 1e-7 grey levels away from a
rounding boundary, far more than CPUs differ; a checksum detects any deviation.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
import os
import unicodedata

import numpy as np
from scipy import ndimage
from scipy import special

from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field

CLASSES = 1623
SIDE = 28  # pixels of an image
FRAME = 64  # pixels of a skeleton
CONTROL = 5  # elastic control points per axis
# SHA-256 of the pixels of `Recipe()`. It is also the version of the set: a new
# checksum makes old caches stale.
CHECKSUM = '26ba527b8c60dcf28e50dc832f3241622d6af277482076ff794df0fb1228de4f'

# Each alphabet lies in one split, together with related ones: Latin, Cyrillic,
# Coptic, Old Italic and Lisu share roots; maths, arrows and symbols share
# shapes. These two families are the largest and are in train, as are the
# Canadian syllabics (301 characters, rotations of a few shapes). Test has the
# letters (and digits) of five scripts unlike all of them. Greek is related to
# Latin but in valid, which is used for model selection only. The split was
# chosen by kinship only, before anything was trained.
SPLITS = {
  'valid': ('GREEK', 'HEBREW', 'OGHAM', 'TIFINAGH'),
  'test': ('ARABIC', 'ARMENIAN', 'GEORGIAN', 'LAO', 'NKO'),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The settings that determine the pixels."""

  seed: int = field(0, at_least=0, below=2**64)  # of the drawers' styles
  # Strength of the bending: 1 is like Omniglot, 1.5 is hard.
  elastic: float = field(1.0, at_least=0)
  # Strength of rotations, shears, stretches and shifts: 1 is like Omniglot,
  # 1.25 is hard.
  affine: float = field(1.0, at_least=0)
  # Images per character; a larger number begins with the same images.
  drawers: int = field(20, at_least=1)


def read_skeletons() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Read the skeletons of all characters.

  Returns:
    bool[1623, 64, 64], code points i32[1623] and alphabets str[1623].
  """
  path = os.path.join(os.path.dirname(__file__), 'glyph_skeletons.npz')
  with np.load(path, allow_pickle=False) as file:
    bits = np.unpackbits(file['skeletons'], axis=1).astype(bool)
    return bits.reshape(-1, FRAME, FRAME), file['codes'], file['alphabets']


def uniforms(seed: int, stream: int, shape: Sequence[int]) -> np.ndarray:
  """Draw uniform numbers f64[shape] in (0, 1) of one stream of one seed.

  NumPy guarantees that Philox's raw bits never change, but not how its methods
  use them.
  """
  key = np.array([seed, stream], np.uint64)
  raw = np.random.Philox(key=key).random_raw(math.prod(shape))
  return (((raw >> np.uint64(12)) + 0.5) * 2.0**-52).reshape(shape)


def standard_normals(
  seed: int, stream: int, shape: Sequence[int]
) -> np.ndarray:
  """Draw standard normals f64[shape] from the same bits as `uniforms`."""
  return special.ndtri(uniforms(seed, stream, shape))


def _make_basis():
  """Return the weight of each control point at each pixel: f64[28, 5]."""
  pixels = (np.arange(SIDE) + 0.5) / SIDE
  points = np.linspace(0, 1, CONTROL)
  basis = np.exp(-0.5 * ((pixels[:, None] - points) / 0.22) ** 2)
  return basis / basis.sum(axis=1, keepdims=True)


_BASIS = _make_basis()


def warp_grid(
  style: np.ndarray, noise: np.ndarray, affine: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Compute where the pixels of a class's images lie in the skeleton's frame.

  Args:
    style: f64[drawers, 5], standard normals of the alphabet's drawers.
    noise: f64[drawers, 6], standard normals of this class.
    affine: strength of the distortions.

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
  # The inverse transform, as each pixel looks up its source: rotate, shear,
  # stretch.
  sine, cosine = np.sin(angle), np.cos(angle)
  turned_rows = cosine * rows - sine * columns
  turned_columns = sine * rows + cosine * columns - shear * turned_rows
  return (
    turned_rows * aspect / scale,
    turned_columns / aspect / scale,
    scale[:, 0, 0],
  )


def draw_character(
  skeleton: np.ndarray, style: np.ndarray, noise: np.ndarray, recipe: Recipe
) -> np.ndarray:
  """Draw the images uint8[drawers, 28, 28] of one character.

  Args:
    skeleton: bool[64, 64].
    style: f64[drawers, 5], standard normals of the alphabet's drawers.
    noise: f64[drawers, 56], standard normals of this class.
    recipe: the strengths `elastic` and `affine`.
  """
  rows, columns, scale = warp_grid(style, noise[:, :6], recipe.affine)
  control = noise[:, 6:].reshape(-1, 2, CONTROL, CONTROL)
  bend = _BASIS @ (recipe.elastic * 1.6 * 0.075 * control) @ _BASIS.T
  source = np.stack([rows + bend[:, 0], columns + bend[:, 1]])
  distance = ndimage.distance_transform_edt(~skeleton)
  distance = ndimage.map_coordinates(
    distance, (source + 0.5) * FRAME - 0.5, order=1, mode='nearest'
  )
  distance *= (SIDE / FRAME) * scale[:, None, None]
  pen = 0.98 + 0.17 * np.clip(style[:, 4], -1.5, 2)
  ink = np.clip(0.5 + pen[:, None, None] - distance, 0, 1)
  return np.rint(255 * ink).astype(np.uint8)


def generate(
  recipe: Recipe = Recipe(),
  *,
  progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
  """Draw every character with every drawer, a pure function of the recipe.

  Args:
    recipe: settings.
    progress: called now and then as progress(characters done, characters).

  Returns:
    uint8[1623, drawers, 28, 28], ink = 255.

  Raises:
    core.BadInput: a setting is out of its range.
  """
  hyperparameters.check(recipe)
  seed, drawers = recipe.seed, recipe.drawers
  skeletons, _, alphabets = read_skeletons()
  names, alphabet = np.unique(alphabets, return_inverse=True)
  styles = [
    standard_normals(seed, 2**32 + i, (drawers, 5)) for i in range(len(names))
  ]
  images = np.empty((CLASSES, drawers, SIDE, SIDE), np.uint8)
  for index, skeleton in enumerate(skeletons):
    noise = standard_normals(seed, index, (drawers, 6 + 2 * CONTROL**2))
    style = styles[alphabet[index]]
    images[index] = draw_character(skeleton, style, noise, recipe)
    if progress and ((index + 1) % 100 == 0 or index + 1 == CLASSES):
      progress(index + 1, CLASSES)
  return images


def describe_classes() -> dict[str, np.ndarray]:
  """Return class_names, alphabets and split, each str[1623]."""
  _, codes, alphabets = read_skeletons()
  split = np.full(CLASSES, 'train')
  for name, members in SPLITS.items():
    split[np.isin(alphabets, members)] = name
  names = np.array([unicodedata.name(chr(code)) for code in codes])
  return {'class_names': names, 'alphabets': alphabets, 'split': split}
