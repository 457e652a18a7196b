"""Data sets, images, configs and command lines, and random changes of them."""

import functools
import io
import json
import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
from PIL import Image

from tests.campaign import learners
from tests.testing import hostile
from tests.testing import image_sets

CONVERT, READ = 'hyperudl.data.convert', 'tests.testing.read_set'
TRAIN, EVALUATE = 'hyperudl.train', 'hyperudl.evaluate'
FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures'
CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
VALUES = (
  *('-1', '0', '1e999', 'nan', '-inf', '', ' ', '(', '(1,', "'", 'None', 'x,y'),
  *(
    '99999999999999999999',
    '1.5',
    'true',
    'é😀',
    '../..',
    '/dev/null',
    '=',
    '--',
  ),
)


class Bomb:
  """A pickle that would make a folder."""

  def __init__(self, target):
    self.target = str(target)

  def __reduce__(self):
    return os.mkdir, (self.target,)


def mutate(content, generator):
  """Return bytes with one to four random changes."""
  content = bytearray(content)
  for _ in range(generator.randint(1, 4)):
    size = len(content)
    start = generator.randrange(size + 1)
    end = min(size, start + generator.choice((1, 1, 2, 4, 8, 100)))
    piece = {
      'bits': bytes(
        byte ^ (1 << generator.randrange(8)) for byte in content[start:end]
      ),
      'bytes': generator.randbytes(end - start),
      'zeros': bytes(end - start),
      'ones': b'\xff' * (end - start),
      'gap': b'',
      'more': content[start:end] * generator.choice((2, 3, 50)),
      'cut': None,
      'moved': content[generator.randrange(size + 1) :][:50],
    }[generator.choice(_CHANGES)]
    if piece is None:
      del content[start:]
    else:
      content[start:end] = piece
  return bytes(content)


_CHANGES = (
  *('bits', 'bits', 'bytes', 'bytes', 'zeros', 'ones', 'gap', 'more', 'cut'),
  'moved',
)


def mutate_text(text, generator):
  """Return text in which a number or a piece is replaced."""
  if generator.random() < 0.3:
    return mutate(text.encode(), generator)
  places = [i for i, letter in enumerate(text) if letter in '0123456789"\'=,:']
  for _ in range(generator.randint(1, 2)):
    place = generator.choice(places)
    text = text[:place] + generator.choice(VALUES) + text[place + 1 :]
  return text.encode()


def _mini(canary, protocol, seed):
  images = image_sets.pixels(1, 6, channels=3, seed=seed)[0]
  rows = {f'{seed}a': [0, 1, 2], f'{seed}b': np.array([5, 3, 4])}
  value = {'image_data': images, 'class_dict': rows}
  if protocol == 5:
    value['more'] = [Bomb(canary), np.float32(1), 'text', None, (1, -2.5)]
  return pickle.dumps(value, protocol)


def write_mini(folder, generator, canary):
  """Pickles: good ones, some with a bomb, and hostile ones."""
  protocol = generator.choice((0, 2, 4, 5))
  contents = [_mini(canary, protocol, seed) for seed in range(3)]
  if generator.random() < 0.1:
    small = [c for c in hostile.pickles().values() if len(c) < 10**5]
    contents[0] = generator.choice(small)
  contents[0] = mutate(contents[0], generator)
  for tag, content in zip(('train', 'val', 'test'), contents):
    (folder / f'mini-imagenet-cache-{tag}.pkl').write_bytes(content)
  return _convert('mini', folder, folder)


def write_npy(folder, generator, canary):
  path = folder / 'set.npy'
  images = image_sets.pixels(6, 4, channels=3)
  if generator.random() < 0.5:
    blocks = np.empty(3, object)
    blocks[:] = [images[0], images[1][:2], images[2]]
    images = blocks
  del canary
  np.save(path, images, allow_pickle=True)
  path.write_bytes(mutate(path.read_bytes(), generator))
  return _convert('npy', path, folder)


def write_npz(folder, generator, canary):
  """Damage of the zip file, or of an array in a zip file that is whole."""
  del canary
  arrays = {
    'images': image_sets.pixels(6, 4),
    'class_names': np.array([f'class {i}' for i in range(6)]),
    'split': np.array(['train'] * 4 + ['valid', 'test']),
  }
  members = []
  for name, array in arrays.items():
    file = io.BytesIO()
    np.save(file, array)
    members.append([f'{name}.npy', file.getvalue()])
  whole = generator.random() < 0.5
  if whole:
    member = generator.choice(members)
    member[1] = mutate(member[1], generator)
  methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
  content = hostile.npz(members, generator.choice(methods))
  content = content if whole else mutate(content, generator)
  (folder / 'set.npz').write_bytes(content)
  return READ, [str(folder), 'set']


def write_records(folder, generator, canary):
  """A set of tensorflow-datasets: array_record and JSON."""
  del canary
  with zipfile.ZipFile(FIXTURES / 'tiny_digits.zip') as archive:
    archive.extractall(folder)
  place = folder / 'tiny_digits' / '1.0.0'
  path = generator.choice(sorted(place.iterdir()))
  content = path.read_bytes()
  if path.suffix in ('.json', '.txt'):
    path.write_bytes(mutate_text(content.decode(), generator))
  else:
    # Most of the file is padding.
    used = generator.choice((200, 10_000, len(content)))
    path.write_bytes(mutate(content[:used], generator) + content[used:])
  return _convert('tfds', place, folder)


def write_images(folder, generator, canary):
  del canary
  form = generator.choice(('png', 'jpeg', 'gif', 'bmp', 'webp', 'tiff'))
  mode = generator.choice(('L', 'RGB', 'RGBA', 'P'))
  if form in ('jpeg', 'bmp') and mode in ('RGBA', 'P'):
    mode = 'RGB'
  for name in 'ab':
    for number in range(3):
      path = folder / 'photos' / name / f'{number}.{form}'
      path.parent.mkdir(parents=True, exist_ok=True)
      pixels = image_sets.pixels(1, 1, 12, 3, seed=number)[0, 0]
      Image.fromarray(pixels).convert(mode).save(path)
  path = generator.choice(sorted((folder / 'photos').rglob('*.*')))
  path.write_bytes(mutate(path.read_bytes(), generator))
  return _convert('folder', folder / 'photos', folder)


def _convert(kind, source, folder):
  flags = [f'--kind={kind}', f'--source={source}', '--name=set']
  return CONVERT, [*flags, f'--out={folder}/out']


def write_config(folder, generator, good_run):
  """A copy of a config file in which a value is changed."""
  shutil.copytree(CONFIGS, folder / 'configs')
  path = folder / 'configs' / generator.choice(('protonet.py', 'common.py'))
  path.write_bytes(mutate_text(path.read_text(), generator))
  flags = learners.train_flags('protonet', folder / 'run', good_run.parent)
  flags[0] = flags[0].replace('configs/', f'{folder}/configs/')
  return TRAIN, [*flags, '--config.steps=1']


def write_command(folder, generator, good_run):
  """A command line in which words are changed, missing, or given twice."""
  flags = learners.train_flags('protonet', folder / 'run', good_run.parent)
  flags += ['--config.steps=1', '--config.episode.shot=1', '--cpu_devices=1']
  # Commands run in `folder`, where a changed --workdir may lie.
  flags[0] = flags[0].replace('configs/', f'{CONFIGS}/')
  for _ in range(generator.randint(1, 2)):
    place = generator.randrange(len(flags))
    name, _, value = flags[place].partition('=')
    cut = generator.randrange(len(value) + 1)
    flags[place : place + 1] = generator.choice(
      (
        [],
        [flags[place]] * 2,
        [name],
        [f'{name}={generator.choice(VALUES)}'],
        [f'{name}={value[:cut]}{generator.choice(VALUES)}{value[cut:]}'],
        [f'{name[: cut + 3]}={value}'],
        [generator.choice(VALUES), flags[place]],
      )
    )
  return TRAIN, flags


def write_config_json(folder, generator, good_run):
  """A run whose config.json is changed."""
  shutil.copytree(good_run, folder / 'run')
  path = folder / 'run' / 'config.json'
  text = path.read_text()
  if generator.random() < 0.5:
    path.write_bytes(mutate_text(text, generator))
  else:
    value = json.loads(text)
    place = value if generator.random() < 0.4 else value['learner']
    key = generator.choice(sorted(place))
    wrong = generator.choice((None, -1, 'x', [], {}, 1e300, 0, [None], True))
    place[key] = wrong
    path.write_text(json.dumps(value))
  return EVALUATE, [f'--workdir={folder}/run', '--once']


def write_checkpoint(folder, generator, good_run):
  """A run with a damaged checkpoint."""
  shutil.copytree(good_run, folder / 'run')
  files = (folder / 'run' / 'checkpoints').rglob('*')
  path = generator.choice([p for p in sorted(files) if p.is_file()])
  path.write_bytes(mutate(path.read_bytes() or b'0', generator))
  return EVALUATE, [f'--workdir={folder}/run', '--once']


# Function -> (how often it is called, in proportion; exit codes).
DATA = {
  write_mini: 30,
  write_npy: 20,
  write_npz: 20,
  write_records: 12,
  write_images: 12,
}
RUNS = {
  write_config: 2,
  write_command: 2,
  write_config_json: 1,
  write_checkpoint: 1,
}


@functools.cache
def _weights():
  table = {**DATA, **RUNS}
  return list(table), list(table.values())


def choose(generator):
  """Return one of the functions above."""
  functions, weights = _weights()
  return generator.choices(functions, weights)[0]
