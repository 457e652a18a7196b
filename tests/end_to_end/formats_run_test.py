"""Data sets in the public formats train through the command line."""

import os
import pickle
import zipfile

import numpy as np
from PIL import Image
import pytest

from tests.testing import runs

STEPS = 20


def pixels(classes, per_class, channels=None, seed=0):
  """Return noisy classes: uint8[classes, per_class, 14, 14(, C)]."""
  random = np.random.default_rng(seed)
  tail = (14, 14) if channels is None else (14, 14, channels)
  images = random.integers(0, 256, (classes, 1, *tail))
  images = images + random.normal(0, 40, (classes, per_class, *tail))
  return np.clip(images, 0, 255).astype(np.uint8)


def write_npy(folder):
  """Write HyperTransformer's cache: [classes, per_class, H, W]."""
  np.save(folder / 'blocks.npy', pixels(12, 8))


def write_tree(folder):
  """Write a folder of images: <class>/<image>.png."""
  for c, images in enumerate(pixels(12, 8, seed=1)):
    os.makedirs(folder / 'tree' / f'class{c:02d}')
    for i, image in enumerate(images):
      path = folder / 'tree' / f'class{c:02d}' / f'{i}.png'
      Image.fromarray(image).save(path)


def write_mini(folder):
  """Write mini-ImageNet's three pickles."""
  for seed, tag in enumerate(('train', 'val', 'test')):
    images = pixels(4, 8, 3, seed).reshape(-1, 14, 14, 3)
    rows = {f'{tag}{c}': list(range(8 * c, 8 * c + 8)) for c in range(4)}
    content = {'image_data': images, 'class_dict': rows}
    with open(folder / f'mini-imagenet-cache-{tag}.pkl', 'wb') as file:
      pickle.dump(content, file, 2)


def write_tiered(folder):
  """Write tieredImageNet: images and labels of each split, in a folder."""
  (folder / 'tieredimagenet').mkdir()
  for seed, tag in enumerate(('train', 'val', 'test')):
    images = pixels(3, 8, 3, seed).reshape(-1, 14, 14, 3)
    stem = folder / 'tieredimagenet' / tag
    np.savez(f'{stem}_images.npz', images=images)
    with open(f'{stem}_labels.pkl', 'wb') as file:
      pickle.dump({'labels': np.repeat(np.arange(3), 8).tolist()}, file, 2)


def write_chunks(folder):
  """Write HyperTransformer's chunks: lists of classes of different sizes."""
  (folder / 'chunked').mkdir()
  images = pixels(12, 8, 3)
  for chunk in range(3):
    classes = np.empty(4, object)
    for i in range(4):
      classes[i] = images[4 * chunk + i][: 8 - i % 2]
    np.save(folder / 'chunked' / f'chunk_{chunk}.npy', classes)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
  """Write one set of each format; `digits` is converted from TFDS."""
  folder = tmp_path_factory.mktemp('sets')
  write_npy(folder)
  write_tree(folder)
  write_mini(folder)
  write_tiered(folder)
  write_chunks(folder)
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


NAMES = (
  'blocks',
  'tree',
  'miniimagenet',
  'tieredimagenet',
  'chunked',
  'digits',
)


@pytest.fixture(scope='module')
def trained(sets):
  """Train twenty steps on each set; return {name: result}."""
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
  return dict(zip(NAMES, runs.call_many('train', commands)))


@pytest.mark.parametrize('name', NAMES)
def test_a_set_in_a_public_format_trains(sets, trained, name):
  assert trained[name].code == 0, trained[name].err
  assert runs.logged_steps(sets / 'runs' / name) == list(range(5, STEPS + 1, 5))
