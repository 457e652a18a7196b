"""Reads a data set as training does: `python -m tests.testing.read_set`."""

import sys

from hyperudl import core
from hyperudl.core import cli
from hyperudl.data import datasets

if __name__ == '__main__':
  folder, name = sys.argv[1:]
  try:
    datasets.load(name, 'train', folder, image_size=8)
  except core.Error as error:
    cli.fail(error.exit_code, error)
