"""Builds the strokes of `data/datasets/glyphs.py` from the font DejaVu Sans.

  pip install matplotlib
  python tools/build_glyph_skeletons.py [OUTPUT.npz]

It reads `DejaVuSans.ttf` (version 2.35) from matplotlib; Pillow, which renders
the characters, comes with matplotlib. The result is part of the repository, so
it need not be run again. Another version of the font, FreeType or Pillow may
give other skeletons: then update `CHECKSUM` in
`hyperudl/data/datasets/glyphs.py`.

A class is one character, an alphabet is one script. A character is rendered,
scaled to one size, thinned to a line one pixel wide (Zhang and Suen, 1984), and
kept if it looks drawn with a pen and differs from all those kept before it.
"""

import os
import sys
import unicodedata

from absl import logging
import matplotlib
from matplotlib import ft2font
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from scipy import ndimage

CLASSES = 1623  # as many as Omniglot has
FRAME = 64  # side of a skeleton's frame in pixels
LONGER_SIDE = 48  # of every character, so that its size is no clue
POINTS = 64  # size at which the font is rendered
CANVAS = 4 * POINTS
SIDES = (10, 118)  # shortest short side and longest long side, pixels
MAX_PEN = 13  # area over length of the line: more is a shape, not a stroke
MIN_LENGTH = 18  # pixels of line: less is a dot
MAX_COSINE = 0.9  # of pooled bitmaps: more is the same class
POOL = 4  # pooling of the drawings that are compared, pixels
PEN = 2.5  # half the width of the usual stroke of `glyphs.py`, pixels

SCRIPTS = (
  'ARABIC',
  'ARMENIAN',
  'CANADIAN SYLLABICS',
  'COPTIC',
  'CYRILLIC',
  'GEORGIAN',
  'GREEK',
  'HEBREW',
  'LAO',
  'LATIN',
  'LISU',
  'NKO',
  'OGHAM',
  'OLD ITALIC',
  'TIFINAGH',
)

# Groups of pictures, of characters that look alike, and of filled areas.
LEFT_OUT = (
  'BRAILLE',
  'BOX DRAWINGS',
  'DOMINO',
  'PLAYING CARD',
  'CIRCLED',
  'BLOCK',
  'COMBINING',
  'SHADE',
  ' FILL',
)


def alphabet_of(character):
  """Return the script in the character's name, or MATH, ARROWS or SYMBOL."""
  name = unicodedata.name(character)
  for script in SCRIPTS:
    if script in name:
      return script
  if 'ARROW' in name or 'HARPOON' in name:
    return 'ARROWS'
  return 'MATH' if unicodedata.category(character) == 'Sm' else 'SYMBOL'


def list_characters(path):
  """Return the characters that may become a class, letters first."""
  kept = []
  for code in ft2font.FT2Font(path).get_charmap():
    character = chr(code)
    name = unicodedata.name(character, '')
    wanted = unicodedata.category(character)[0] in 'LNS'
    if not name or not wanted or unicodedata.decomposition(character):
      continue
    if not any(part in name for part in LEFT_OUT):
      kept.append(character)
  order = lambda c: 'LNS'.index(unicodedata.category(c)[0])
  picture = lambda c: unicodedata.category(c) == 'So'
  return sorted(kept, key=lambda c: (order(c), picture(c), c))


def render(character, font):
  """Render a character as bool[FRAME, FRAME], or None if it is odd."""
  image = Image.new('L', (CANVAS, CANVAS))
  ImageDraw.Draw(image).text((POINTS, POINTS), character, 255, font)
  box = image.getbbox()
  if box is None:
    return None
  width, height = box[2] - box[0], box[3] - box[1]
  if min(width, height) < SIDES[0] or max(width, height) > SIDES[1]:
    return None
  ratio = LONGER_SIDE / max(width, height)
  size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
  small = image.crop(box).resize(size, Image.Resampling.BILINEAR)
  frame = Image.new('L', (FRAME, FRAME))
  frame.paste(small, ((FRAME - size[0]) // 2, (FRAME - size[1]) // 2))
  return np.asarray(frame) > 127


def neighbours(stack):
  """Return the eight neighbours of each pixel, clockwise from above."""
  padded = np.pad(stack, ((0, 0), (1, 1), (1, 1)))
  offsets = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
  rows, columns = stack.shape[1:]
  return [padded[:, r : r + rows, c : c + columns] for r, c in offsets]


def thin(stack):
  """Thin bool[n, H, W] by Zhang and Suen, all images at once."""
  stack = stack.copy()
  active = np.arange(len(stack))
  while len(active):
    before = stack[active]
    current = before
    for odd in (False, True):
      ring = neighbours(current)
      north, _, east, _, south, _, west, _ = ring
      count = sum(part.astype(np.int8) for part in ring)
      rises = sum(
        (~a & b).astype(np.int8) for a, b in zip(ring, ring[1:] + ring[:1])
      )
      if odd:
        corner = ~(north & east & west) & ~(north & south & west)
      else:
        corner = ~(north & east & south) & ~(east & south & west)
      edge = (count >= 2) & (count <= 6) & (rises == 1) & corner
      current = current & ~edge
    stack[active] = current
    active = active[(current != before).any((1, 2))]
  return stack


def count_parts(bitmap):
  """Count the pieces of ink and of background of a bool[H, W]."""
  ink = ndimage.label(bitmap, np.ones((3, 3)))[1]
  return ink, ndimage.label(~bitmap)[1]


def choose(skeletons):
  """Return the indices of the first CLASSES skeletons that are legible and new.

  Skeletons are compared as drawn with the usual pen, not as the font's own
  bitmaps: a filled and an empty disc may have the same skeleton. A drawing in
  which strokes merge or holes close because the pen is too wide is left out.

  Args:
    skeletons: bool[n, FRAME, FRAME].
  """
  side = FRAME // POOL
  kept, vectors = [], np.zeros((0, side * side))
  for index, skeleton in enumerate(skeletons):
    distance = ndimage.distance_transform_edt(~skeleton)
    if count_parts(distance <= PEN) != count_parts(skeleton):
      continue
    blurred = distance <= PEN + 0.5  # the grey rim counts as well
    vector = blurred.reshape(side, POOL, side, POOL).mean((1, 3)).ravel()
    vector /= np.linalg.norm(vector)
    if not kept or np.max(vectors @ vector) < MAX_COSINE:
      kept.append(index)
      vectors = np.vstack([vectors, vector])
  logging.info('%d of %d characters are usable', len(kept), len(skeletons))
  if len(kept) < CLASSES:
    raise ValueError(f'{len(kept)} usable characters, {CLASSES} are needed.')
  return kept[:CLASSES]


def build(path):
  """Return the skeletons of a font.

  Args:
    path: of a TrueType font.

  Returns:
    dict(skeletons: uint8[CLASSES, FRAME * FRAME / 8], packed bits;
    codes: i32[CLASSES]; alphabets: str[CLASSES]), sorted by alphabet.
  """
  font = ImageFont.truetype(path, POINTS, layout_engine=ImageFont.Layout.BASIC)
  characters = list_characters(path)
  rendered = [(c, render(c, font)) for c in characters]
  characters = [c for c, bitmap in rendered if bitmap is not None]
  bitmaps = np.stack([bitmap for _, bitmap in rendered if bitmap is not None])
  skeletons = thin(bitmaps)
  length = skeletons.sum((1, 2))
  area = bitmaps.sum((1, 2))
  written = (length >= MIN_LENGTH) & (area < MAX_PEN * length)
  written = np.flatnonzero(written)
  kept = written[choose(skeletons[written])]
  alphabets = {i: alphabet_of(characters[i]) for i in kept}
  kept = sorted(kept, key=lambda i: (alphabets[i], characters[i]))
  return {
    'skeletons': np.packbits(skeletons[kept].reshape(len(kept), -1), axis=1),
    'codes': np.array([ord(characters[i]) for i in kept], np.int32),
    'alphabets': np.array([alphabets[i] for i in kept]),
  }


def main(arguments):
  logging.set_verbosity(logging.INFO)
  fonts = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf')
  arrays = build(os.path.join(fonts, 'DejaVuSans.ttf'))
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  default = os.path.join(root, 'hyperudl/data/datasets/glyph_skeletons.npz')
  output = arguments[1] if len(arguments) > 1 else default
  np.savez_compressed(output, **arrays)
  names, counts = np.unique(arrays['alphabets'], return_counts=True)
  logging.info('%s: %d bytes', output, os.path.getsize(output))
  logging.info('%s', dict(zip(names.tolist(), counts.tolist())))


if __name__ == '__main__':
  main(sys.argv)
