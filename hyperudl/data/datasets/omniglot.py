"""Reads Omniglot as its authors publish it: zip files of 105x105 drawings."""

import collections
import os
import zipfile

import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import image_folder
from hyperudl.data.datasets import splits

PARTS = ('background', 'evaluation')
# Of the 30 background alphabets 5 are valid; where the evaluation alphabets
# are missing, 5 more are test.
_SHARE = 1 / 6


def read(source, *, image_size=28, seed=0):
  """Reads one or both parts of Omniglot.

  Args:
    source: str, a folder with `images_background.zip` and/or
      `images_evaluation.zip`, or with what is in them, unpacked; or one of
      these files or folders.
    image_size: int, pixels per side after antialiased resizing.
    seed: int, of the split.

  Returns:
    A `table.Table`, ink = 255, drawers in the order of their numbers. The
    evaluation alphabets are test; of the background ones a sixth, chosen by
    the seed, is valid and the rest train. Without the evaluation part another
    sixth of the background alphabets is test.

  Raises:
    BadInput: nothing of Omniglot there, or a damaged file.
  """
  blocks, names, alphabets, parts = [], [], [], []
  for part, place in _find(source):
    for (alphabet, name), files in _characters(place).items():
      drawings = [
        image_folder.decode(
          data, where, gray=True, size=image_size, invert=True
        )
        for where, data in files
      ]
      _check_sizes(drawings, files)
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
  # -> list of (part, zip file or folder)
  stem = os.path.basename(os.path.normpath(source)).removesuffix('.zip')
  found = {}
  for part in PARTS:
    for name in (f'images_{part}.zip', f'images_{part}'):
      path = os.path.join(source, name)
      if os.path.exists(path):
        found.setdefault(part, path)
  if found:
    return list(found.items())
  for part in PARTS:
    if stem == f'images_{part}' and os.path.exists(source):
      return [(part, source)]
  raise BadInput(
    f'{source}: neither images_background nor images_evaluation (.zip or '
    'folder) is there; bash launch/data_omniglot.sh downloads both'
  )


def _characters(place):
  # -> dict (alphabet, character) -> list of (where, bytes), by drawer
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
  # -> iterator of (path inside, bytes)
  for folder, _, names in os.walk(place):
    for name in names:
      if name.endswith('.png'):
        path = os.path.join(folder, name)
        inside = os.path.relpath(path, os.path.dirname(os.path.abspath(place)))
        with open(path, 'rb') as stream:
          yield inside.replace(os.sep, '/'), stream.read()


def _read_zip(place):
  # -> list of (path inside, bytes)
  try:
    with zipfile.ZipFile(place) as archive:
      return [
        (name, archive.read(name))
        for name in archive.namelist()
        if name.endswith('.png')
      ]
  # zipfile and zlib raise a dozen types for damaged files.
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise BadInput(
      f'{place}: not a zip file, or damaged ({reason}); download it again'
    ) from None


def _check_sizes(drawings, files):
  for drawing, (where, _) in zip(drawings, files):
    if drawing.shape != drawings[0].shape:
      raise BadInput(
        f'{where}: {drawing.shape[1]}x{drawing.shape[0]} pixels, unlike '
        f'{files[0][0]}; set --image_size'
      )


def _split(alphabets, parts, seed):
  known = [a for a, part in zip(alphabets, parts) if part == 'background']
  evaluated = 'evaluation' in parts
  # So few alphabets as in a trial cannot spare any.
  share = _SHARE if len(set(known)) >= 3 else 0
  dealt = splits.by_group(known, seed, (share, 0 if evaluated else share))
  split = dict(zip(known, dealt))
  return tuple(
    split[alphabet] if part == 'background' else 'test'
    for alphabet, part in zip(alphabets, parts)
  )
