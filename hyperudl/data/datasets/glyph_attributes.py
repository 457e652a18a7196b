"""Draws the built-in set `glyph_attributes`, whose tasks ask different things.

A scene of 28x28 pixels in colour shows striped ground, a rectangular tile on it
and a character of `glyphs` on the tile. It has six attributes. A class is one
value of one attribute; all other attributes of its images are random:

  letter   which character it is, drawn by one of 20 drawers
  ink      hue and saturation of the character
  tile     hue and saturation of the tile
  place    row and column of the centre of the tile
  size     height and width of the tile and of the character
  texture  direction and wavelength of the stripes

The set's alphabets are the attributes, so with episode.group='alphabet' all
classes of an episode are values of one attribute, and only the support shows
which. Train, valid and test have different values, also for the attributes that
a class leaves open. Values other than letters are points of a plane in the
order of a quasi-random sequence (R2; Roberts 2018, "The Unreasonable
Effectiveness of Quasirandom Sequences"), so each split covers its range evenly.

How light things are says nothing: the lightness of the scene and its gradient,
the contrasts of stripes, tile and character and their signs, the phase of the
stripes and the hue of the ground are random in every image.

As in `glyphs`, the pixels are a pure function of the seed, computed in float64
from Philox's raw bits, and a checksum detects any deviation.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import numpy as np

from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field
from hyperudl.data.datasets import glyphs

# Values by split. Letters are of the alphabets that `glyphs` has in that split.
LETTERS = {'train': 400, 'valid': 60, 'test': 100}
POINTS = {'train': 200, 'valid': 20, 'test': 30}  # of each other attribute
# Ranges of the two coordinates of the points.
RANGES = {
  'ink': ((0, 1), (0, 1)),  # turn of the hue, (saturation / largest)^2
  'tile': ((0, 1), (0, 1)),
  'place': ((-4, 4), (-4, 4)),  # pixels from the image's centre
  'size': ((np.log(4.5), np.log(11)),) * 2,  # log of half sides
  'texture': ((0, np.pi), (np.log(3), np.log(8))),  # angle, wavelength
}
ATTRIBUTES = ('letter', *RANGES)
CLASSES = sum(LETTERS.values()) + len(RANGES) * sum(POINTS.values())
# SHA-256 of the pixels of `Recipe()`. It is also the version of the set: a new
# checksum makes old caches stale.
CHECKSUM = 'ac7e9bea728e03fb0963feceb750bd8ca4a65af31e4a2c1ef4c3f254bb610291'

_DRAWERS = glyphs.Recipe().drawers
_LIGHTNESS = 9  # uniform numbers of `draw_scenes` for each image
_PLASTIC = 1.32471795724474602596  # real solution of x^3 = x + 1, for R2
_SATURATION = 0.3  # largest; as a distance from gray in RGB
# Two directions in RGB that change the hue alone: their channels add up to 0.
_HUES = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
_FROM_CENTRE = np.arange(glyphs.SIDE) - (glyphs.SIDE - 1) / 2


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The settings that determine the pixels."""

  seed: int = field(0, at_least=0, below=2**64)
  # Images per class; a larger number begins with the same images.
  images: int = field(20, at_least=1)


class Values(NamedTuple):
  """The values of all attributes in one split."""

  letters: np.ndarray  # i64[letters], numbers of characters of `glyphs`
  points: dict[str, np.ndarray]  # attribute -> f64[points, 2]


def read_values(split: str) -> Values:
  """Return the values of all attributes in 'train', 'valid' or 'test'."""
  members = np.flatnonzero(glyphs.describe_classes()['split'] == split)
  places = np.linspace(0, len(members) - 1, LETTERS[split])
  names = list(POINTS)
  start = sum(POINTS[name] for name in names[: names.index(split)])
  index = start + np.arange(POINTS[split])
  unit = (0.5 + index[:, None] * _PLASTIC ** np.array([-1.0, -2.0])) % 1.0
  points = {}
  for name, ranges in RANGES.items():
    low, high = np.array(ranges).T
    points[name] = low + unit * (high - low)
  return Values(members[np.rint(places).astype(int)], points)


def draw_scenes(
  letters: np.ndarray, points: dict[str, np.ndarray], draws: np.ndarray
) -> np.ndarray:
  """Draw scenes.

  Args:
    letters: f64[n, 28, 28], characters with ink = 1.
    points: attribute -> f64[n, 2], see `RANGES`.
    draws: f64[n, 9], uniform in (0, 1), for what no attribute determines.

  Returns:
    uint8[n, 28, 28, 3].
  """
  ground, tile, ink = _lightness(points['texture'], draws)
  hues = _to_rgb(draws[:, 7:9]), _to_rgb(points['tile']), _to_rgb(points['ink'])
  ground, tile, ink = (
    light[..., None] + hue[:, None, None]
    for light, hue in zip((ground, tile, ink), hues)
  )
  centre, half = points['place'], np.exp(points['size'])
  distance = np.abs(_FROM_CENTRE - centre[..., None])  # f64[n, 2, 28]
  inside = np.clip(0.5 + half[..., None] - distance, 0, 1)
  in_tile = (inside[:, 0, :, None] * inside[:, 1, None, :])[..., None]
  in_letter = _place_letters(letters, centre, half)[..., None]
  scene = ground + in_tile * (tile - ground)
  scene += in_letter * (ink - scene)
  return np.rint(255 * np.clip(scene, 0, 1)).astype(np.uint8)


def _lightness(texture, draws):
  """Return the lightness f64[n, 28, 28] of ground, tile and character."""
  draws = draws.T[:, :, None, None]  # [9, n, 1, 1]
  between = lambda draw, low, high: low + (high - low) * draw
  # Uniform with a random sign.
  signed = lambda draw, low, high: (
    np.sign(draw - 0.5) * between(np.abs(2 * draw - 1), low, high)
  )

  def along(angle):
    rows, columns = _FROM_CENTRE[:, None], _FROM_CENTRE
    return np.sin(angle) * rows + np.cos(angle) * columns

  slope = between(draws[2], 0.0, 0.35) / (glyphs.SIDE / 2)
  light = between(draws[1], 0.4, 0.6) + slope * along(2 * np.pi * draws[0])
  angle, log_length = texture.T[:, :, None, None]
  stripes = np.sin(2 * np.pi * (along(angle) / np.exp(log_length) + draws[3]))
  ground = light + between(draws[4], 0.06, 0.16) * stripes
  tile = light + signed(draws[5], 0.0, 0.2)
  return ground, tile, tile + signed(draws[6], 0.15, 0.3)


def _to_rgb(points):
  """Return the offsets f64[n, 3] from gray of f64[n, 2] hues."""
  angle = 2 * np.pi * points[:, 0]
  saturation = _SATURATION * np.sqrt(points[:, 1])
  plane = saturation * np.stack([np.cos(angle), np.sin(angle)])
  return plane.T @ _HUES


def _place_letters(letters, centre, half):
  """Scale characters to 1.15 times the tiles' sides and move them there.

  Lines are made twice as bold, or few pixels of a small one had full ink.
  """
  ratio = glyphs.SIDE / 2 / (1.15 * half[..., None])  # pixels read per pixel
  source = (_FROM_CENTRE - centre[..., None]) * ratio  # f64[n, 2, 28]
  width = np.maximum(1.0, ratio)[..., None]
  distance = np.abs(source[..., None] - _FROM_CENTRE)
  weights = np.maximum(0.0, 1 - distance / width) / width
  small = weights[:, 0] @ letters @ weights[:, 1].transpose(0, 2, 1)
  return np.minimum(2 * small, 1)


def generate(
  recipe: Recipe = Recipe(),
  *,
  progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
  """Draw all classes, a pure function of the recipe.

  Args:
    recipe: settings.
    progress: called now and then as progress(classes done, classes).

  Returns:
    uint8[1810, images, 28, 28, 3], by split and in it by attribute.

  Raises:
    core.BadInput: a setting is out of its range.
  """
  hyperparameters.check(recipe)
  characters = glyphs.generate(glyphs.Recipe(recipe.seed))
  images = np.empty((CLASSES, recipe.images, glyphs.SIDE, glyphs.SIDE, 3), 'u1')
  known = {split: read_values(split) for split in POINTS}
  for index, (split, attribute, value) in enumerate(_classes()):
    images[index] = _draw_class(
      (recipe, index), characters, known[split], attribute, value
    )
    if progress and ((index + 1) % 100 == 0 or index + 1 == CLASSES):
      progress(index + 1, CLASSES)
  return images


def _classes():
  """Yield (split, attribute, number of the value) of each class."""
  for split in POINTS:
    for attribute in ATTRIBUTES:
      count = (LETTERS if attribute == 'letter' else POINTS)[split]
      yield from ((split, attribute, value) for value in range(count))


def _draw_class(source, characters, values, attribute, value):
  """Draw the images of a class; `source` is (recipe, number of the class)."""
  recipe, index = source
  count = len(ATTRIBUTES) + 1
  # Streams below this one are those of `glyphs`.
  draws = glyphs.uniforms(
    recipe.seed, 2**33 + index, (recipe.images, count + _LIGHTNESS)
  )
  pick = lambda place, size: np.floor(draws[:, place] * size).astype(int)
  sizes = {'letter': len(values.letters)} | {
    name: len(points) for name, points in values.points.items()
  }
  chosen = {name: pick(i, sizes[name]) for i, name in enumerate(ATTRIBUTES)}
  chosen[attribute] = np.full(recipe.images, value)
  drawers = pick(count - 1, _DRAWERS)
  letters = characters[values.letters[chosen['letter']], drawers] / 255
  points = {name: p[chosen[name]] for name, p in values.points.items()}
  return draw_scenes(letters, points, draws[:, count:])


def describe_classes() -> dict[str, np.ndarray]:
  """Return class_names, alphabets (attributes) and split, each str[1810]."""
  letters = glyphs.describe_classes()['class_names']
  known = {split: read_values(split) for split in POINTS}
  splits, attributes, numbers = zip(*_classes())
  names = []
  for split, attribute, value in zip(splits, attributes, numbers):
    if attribute == 'letter':
      names.append(letters[known[split].letters[value]])
    else:
      first, second = known[split].points[attribute][value]
      names.append(f'{attribute} {first:.3f} {second:.3f}')
  arrays = {'class_names': names, 'alphabets': attributes, 'split': splits}
  return {name: np.array(array) for name, array in arrays.items()}
