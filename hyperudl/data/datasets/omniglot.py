"""Reads Omniglot as published by its authors: zip files of 105x105 drawings."""

import collections
import os
import pathlib

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import checks
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import splits

PARTS = ('background', 'evaluation')
# Of the 30 background alphabets 5 are valid; where the evaluation alphabets
# are missing, 5 more are test.
_FRACTION = 1 / 6
_EXPANSION = 4  # most bytes of images for each byte of a zip file


def read(source: str, image_size: int = 28, seed: int = 0) -> class_table.Table:
  """Read one or both parts of Omniglot.

  Args:
    source: a folder with `images_background.zip` and/or
      `images_evaluation.zip`, zipped or unpacked; or one of these files or
      folders.
    image_size: pixels per side after antialiased resizing.
    seed: seed of the split.

  Returns:
    A `class_table.Table`, ink = 255, drawers in the order of their numbers. The
    evaluation alphabets are test; a sixth of the background alphabets, chosen
    by the seed, is valid and the rest train. Without the evaluation part
    another sixth of the background alphabets is test. With fewer than three
    background alphabets all of them are train.

  Raises:
    BadInput: no Omniglot files, or a damaged one.
  """
  blocks, names, alphabets, parts = [], [], [], []
  for part, place in _find(source):
    for (alphabet, name), files in _characters(place).items():
      drawings = [
        image_file.decode(data, where, gray=True, size=image_size, invert=True)
        for where, data in files
      ]
      blocks.append(np.stack(drawings))
      names.append(f'{alphabet}/{name}')
      alphabets.append(alphabet)
      parts.append(part)
  return class_table.check(
    class_table.Table(
      source,
      blocks,
      tuple(names),
      tuple(alphabets),
      _split(alphabets, parts, seed),
    )
  )


def _find(source):
  """Return a list of (part, zip file or folder)."""
  stem = os.path.basename(os.path.normpath(source)).removesuffix('.zip')
  places = []
  for part in PARTS:
    name = f'images_{part}'
    paths = [os.path.join(source, end) for end in (f'{name}.zip', name)]
    paths += [source] * (stem == name)
    places += [(part, path) for path in paths if os.path.exists(path)][:1]
  if not places:
    raise BadInput(
      f'{source}: neither images_background nor images_evaluation (.zip or '
      'folder) is there; bash launch/data/omniglot.sh downloads both'
    )
  return places


def _characters(place):
  """Return dict (alphabet, character) -> list of (where, bytes), by drawer."""
  files = collections.defaultdict(list)
  members = _read_folder(place) if os.path.isdir(place) else _read_zip(place)
  for path, data in sorted(members):
    parts = path.split('/')
    if len(parts) >= 3 and '__MACOSX' not in parts and parts[-1][0] != '.':
      files[parts[-3], parts[-2]].append((f'{place}: {path}', data))
  if not files:
    raise BadInput(f'{place}: no <alphabet>/<character>/<drawing>.png in it')
  return files


def _read_folder(place):
  """Yield (path inside, bytes) of every PNG file."""
  root = pathlib.Path(place).absolute()
  for path in root.rglob('*.png'):
    yield path.relative_to(root.parent).as_posix(), path.read_bytes()


def _read_zip(place):
  """Return a list of (path inside, bytes) of every PNG file."""
  fault = 'not a zip file, or damaged'
  with (
    checks.reading(place, fault, 'download it again'),
    npy.open_zip(place) as archive,
  ):
    infos = [i for i in archive.infolist() if i.filename.endswith('.png')]
    size, file_size = sum(i.file_size for i in infos), os.path.getsize(place)
    if size > _EXPANSION * file_size:  # PNG is compressed already
      raise BadInput(f'{place}: {file_size} bytes cannot hold {size} of images')
    return [(info.filename, archive.read(info)) for info in infos]


def _split(alphabets, parts, seed):
  background = [a for a, p in zip(alphabets, parts) if p == 'background']
  # One or two alphabets, as in a small trial, all stay in train.
  fraction = _FRACTION if len(set(background)) >= 3 else 0
  test_fraction = 0 if 'evaluation' in parts else fraction
  split = splits.by_group(background, seed, (fraction, test_fraction))
  split_of = dict(zip(background, split))
  return tuple(
    split_of[alphabet] if part == 'background' else 'test'
    for alphabet, part in zip(alphabets, parts)
  )
