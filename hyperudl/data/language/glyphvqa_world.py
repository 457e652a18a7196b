"""Draws the scenes of `glyphvqa` and divides its questions into splits."""

import re
from typing import NamedTuple

import numpy as np

from hyperudl.data import datasets
from hyperudl.data.language import glyphvqa_words as words

ATTRIBUTES = ('position', 'tile', 'ink', 'letter')
TILE_SIDE = 14  # pixels
NOISE = 0.03
DRAWERS = 20  # of each letter
TRAIN_DRAWERS = 15  # valid and test use the other five


class Size(NamedTuple):
  """Numbers of letters, colours and images."""

  letters: int
  colours: int  # of tiles, and as many of inks
  scenes: int  # for training; valid and test have a third of it each
  rows: int  # images of a training task, half of them support


SIZES = {
  'tiny': Size(4, 4, 1_500, 512),
  'small': Size(8, 6, 12_000, 2_048),
  'large': Size(360, 8, 30_000, 512),
}


class World:
  """Attributes, pairs and scenes of one size and seed.

  Attributes:
    size: `Size`.
    seed: seed of the scenes, pairs and images of each task.
    values: {attribute: names of its values}.
    glyphs: f64[letters, drawers, side, side], ink in [0, 1].
    asks_for_letters: whether questions ask for letters too: only if there are
      at most 8, as each letter is an answer of the task.
    pairs: the pairs (`glyphvqa_words.Pair`) of all questions.
    pairs_of_split: {split: indices into `pairs`}, disjoint.
  """

  def __init__(self, dir: str, size: str, seed: int):
    self.size, self.seed = SIZES[size], seed
    glyphs = datasets.load('glyphs', 'all', dir)
    starts, letters = _letters(glyphs, self.size.letters)
    self.values = {
      'position': words.POSITIONS,
      'tile': tuple(words.TILES)[: self.size.colours],
      'ink': tuple(words.INKS)[: self.size.colours],
      'letter': letters,
    }
    # Halve the resolution by the mean of 2x2 pixels.
    ink = np.stack([glyphs.images[s : s + DRAWERS, :, :, 0] for s in starts])
    ink = ink.reshape(*ink.shape[:2], TILE_SIDE, 2, TILE_SIDE, 2)
    self.glyphs = ink.mean(axis=(3, 5)) / 255
    self.asks_for_letters = len(letters) <= 8
    self.pairs = self._pairs_about(
      ATTRIBUTES if self.asks_for_letters else ATTRIBUTES[:3]
    )
    order = np.random.default_rng([seed, 1]).permutation(len(self.pairs))
    train = round(0.75 * len(order))
    held_out = len(order) - train
    parts = np.split(order, [train, train + held_out // 3])
    self.pairs_of_split = dict(zip(('train', 'valid', 'test'), parts))

  def _pairs_about(self, attributes):
    return [
      (referent, value, asked)
      for referent in ATTRIBUTES
      for value in range(len(self.values[referent]))
      for asked in attributes
      if asked != referent
    ]

  def caption_pairs(self) -> list[words.Pair]:
    """Return pairs that ask for letters, for captions if no question does."""
    if self.asks_for_letters:
      return []
    pairs = self._pairs_about(['letter'])
    return [pair for pair in pairs if pair[0] != 'letter']

  def scenes(self, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scenes of a split.

    Returns:
      i64[n, 4, 4], value of each tile and attribute, and images
      uint8[n, 28, 28, 3].
    """
    number = ('train', 'valid', 'test').index(split)
    rng = np.random.default_rng([self.seed, 2, number])
    count = self.size.scenes if split == 'train' else self.size.scenes // 3
    pick = lambda n: rng.random((count, n)).argsort(axis=1)[:, :4]
    positions = np.tile(np.arange(4), (count, 1))
    others = [pick(len(self.values[a])) for a in ATTRIBUTES[1:]]
    values = np.stack([positions, *others], axis=-1)
    train = split == 'train'
    drawers = (0, TRAIN_DRAWERS) if train else (TRAIN_DRAWERS, DRAWERS)
    drawer = rng.integers(*drawers, size=(count, 4))
    ink = self.glyphs[values[..., 3], drawer][..., None]
    palette = lambda colours: np.array(list(colours.values()), np.float32) / 255
    back = palette(words.TILES)[values[..., 1]][:, :, None, None]
    front = palette(words.INKS)[values[..., 2]][:, :, None, None]
    tiles = (back + ink * (front - back)).astype(np.float32)
    side = TILE_SIDE
    tiles = tiles.reshape(count, 2, 2, side, side, 3)
    image = tiles.transpose(0, 1, 3, 2, 4, 5)
    image = image.reshape(count, 2 * side, 2 * side, 3)
    image += NOISE * rng.standard_normal(image.shape, np.float32)
    return values, np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)

  def tasks(self, split: str, level: str) -> list[tuple[int, int]]:
    """Return the tasks of a split as (number of a pair, number of a wording).

    Args:
      split: 'train', 'valid' or 'test'.
      level: what valid and test hold out, 'wording' or 'semantic'.
    """
    if split == 'train' or level == 'wording':
      pairs = self.pairs_of_split['train']
      wordings = words.SPLIT_WORDINGS[split]
    else:
      pairs = self.pairs_of_split[split]
      wordings = tuple(range(len(words.WORDINGS)))
    return [(int(pair), w) for pair in sorted(pairs) for w in wordings]

  def labels(self, scenes: np.ndarray, pair: words.Pair) -> np.ndarray:
    """Return i16[n], the answer to a pair in each scene, or -1 without one.

    Args:
      scenes: i64[n, 4, 4], from `scenes`.
      pair: one of `pairs` or `caption_pairs`.
    """
    attribute, value, asked = pair
    is_meant = scenes[..., ATTRIBUTES.index(attribute)] == value
    tiles = scenes[np.arange(len(scenes)), is_meant.argmax(axis=1)]
    answers = tiles[:, ATTRIBUTES.index(asked)]
    return np.where(is_meant.any(axis=1), answers, -1).astype(np.int16)


def _letters(glyphs, count):
  """Return (first rows, names) of letters: Latin capitals, then all others."""
  word = lambda name: re.sub(r'[^a-z0-9]+', '-', name.lower())
  is_latin = re.compile(r'LATIN CAPITAL LETTER [A-Z]$').match
  names = glyphs.class_names
  latin = [i for i, name in enumerate(names) if is_latin(name)]
  others = [i for i, name in enumerate(names) if not is_latin(name)]
  order = (latin + others)[:count]
  letters = [
    names[i][-1].lower() if is_latin(names[i]) else word(names[i])
    for i in order
  ]
  return [int(glyphs.starts[i]) for i in order], tuple(letters)
