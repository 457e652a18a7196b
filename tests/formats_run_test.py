"""Sets in the public formats train through the command line."""

import os
import pickle
import zipfile

import numpy as np
from PIL import Image
import pytest

from tests import runs_helper as runs

STEPS = 20


def pixels(classes, per_class, channels=None, seed=0):
  """Random classes with noise: uint8[classes, per_class, 14, 14(, C)]."""
  random = np.random.default_rng(seed)
  tail = (14, 14) if channels is None else (14, 14, channels)
  images = random.integers(0, 256, (classes, 1, *tail))
  images = images + random.normal(0, 40, (classes, per_class, *tail))
  return np.clip(images, 0, 255).astype(np.uint8)


def write_npy(folder):
  """HyperTransformer's cache: [classes, per_class, H, W]."""
  np.save(folder / 'blocks.npy', pixels(12, 8))


def write_tree(folder):
  """<class>/<image>.png."""
  for c, images in enumerate(pixels(12, 8, seed=1)):
    os.makedirs(folder / 'tree' / f'class{c:02d}')
    for i, image in enumerate(images):
      path = folder / 'tree' / f'class{c:02d}' / f'{i}.png'
      Image.fromarray(image).save(path)


def write_mini(folder):
  """mini-ImageNet's three pickles."""
  for seed, tag in enumerate(('train', 'val', 'test')):
    images = pixels(4, 8, 3, seed).reshape(-1, 14, 14, 3)
    rows = {f'{tag}{c}': list(range(8 * c, 8 * c + 8)) for c in range(4)}
    content = {'image_data': images, 'class_dict': rows}
    with open(folder / f'mini-imagenet-cache-{tag}.pkl', 'wb') as file:
      pickle.dump(content, file, 2)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
  """A folder with one set of each format; `digits` is converted from TFDS."""
  folder = tmp_path_factory.mktemp('sets')
  write_npy(folder)
  write_tree(folder)
  write_mini(folder)
  fixture = runs.ROOT / 'tests' / 'fixtures' / 'tiny_digits.zip'
  with zipfile.ZipFile(fixture) as archive:
    archive.extractall(folder / 'prepared')
  converted = runs.call(
    'data.convert',
    '--kind=tfds',
    '--name=digits',
    f'--source={folder}/prepared/tiny_digits',
    f'--out={folder}',
  )
  assert (converted.code, converted.err) == (0, '')
  return folder


NAMES = ('blocks', 'tree', 'miniimagenet', 'digits')


@pytest.fixture(scope='module')
def trained(sets):
  """Result by name of twenty steps on each set."""
  commands = [
    [
      f'--config=configs/vae.py:{name},way=2,shot=2,query=2,steps={STEPS}',
      f'--workdir={sets}/runs/{name}',
      f'--config.data.dir={sets}',
      '--config.data.augment=none',
      '--config.learner.hidden=(8,)',
      '--config.learner.latent=2',
      '--config.log_steps=5',
    ]
    for name in NAMES
  ]
  return dict(zip(NAMES, runs.forks('train', commands)))


@pytest.mark.parametrize('name', NAMES)
def test_a_set_in_a_public_format_trains(sets, trained, name):
  assert trained[name].code == 0, trained[name].err
  assert runs.logged(sets / 'runs' / name) == list(range(5, STEPS + 1, 5))
