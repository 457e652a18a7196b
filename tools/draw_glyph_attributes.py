"""Draws the picture of `glyph_attributes`: two classes of each attribute.

python tools/draw_glyph_attributes.py [OUTPUT.png]
"""

import sys

from matplotlib.figure import Figure
import numpy as np

from hyperudl.data import datasets
from hyperudl.data.datasets import glyph_attributes
from hyperudl.plots import episode
from hyperudl.plots import figure as figures

IMAGES = 5  # of each class


def draw(dataset: datasets.Dataset) -> Figure:
  """Draw the first images of two classes of each attribute.

  Args:
    dataset: a split of `glyph_attributes`.
  """
  attributes = glyph_attributes.ATTRIBUTES
  figure = Figure(figsize=(7, 0.8 * len(attributes)))
  parts = figure.subfigures(len(attributes), 1)
  for part, attribute in zip(parts, attributes):
    classes = np.flatnonzero(np.array(dataset.alphabets) == attribute)[[0, 1]]
    rows = dataset.starts[classes][:, None] + np.arange(IMAGES)
    images = dataset.images[rows.ravel()] / 255
    episode.draw_images(part, attribute, images, np.repeat([0, 1], IMAGES))
  return figure


if __name__ == '__main__':
  path = sys.argv[1] if len(sys.argv) > 1 else 'docs/glyph_attributes.png'
  figures.save(
    draw(datasets.load('glyph_attributes', 'test', 'data_numpy_dir')), path
  )
