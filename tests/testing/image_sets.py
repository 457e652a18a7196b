"""Small image sets for the tests of data: writing, loading, converting them."""

import contextlib
import io
import os
import pickle

import numpy as np
from PIL import Image

from hyperudl.data import convert
from hyperudl.data import datasets
from tests.testing import errors


def pixels(classes=10, per_class=4, size=6, channels=None, seed=0):
  """uint8[classes, per_class, size, size(, channels)], all rows different."""
  tail = (size, size) if channels is None else (size, size, channels)
  return np.random.default_rng(seed).integers(
    0, 256, (classes, per_class, *tail), np.uint8
  )


def save(folder, name='set', **content):
  np.savez(os.path.join(folder, f'{name}.npz'), **content)
  return str(folder)


def load(folder, split='all', name='set', **options):
  return datasets.load(name, split, str(folder), **options)


def refusal(folder, split='all', name='set', **options):
  return errors.refusal(load, folder, split, name, **options)


def rows(dataset, index):
  """The images of a class."""
  start = dataset.starts[index]
  return dataset.images[start : start + dataset.counts[index]]


def write_mini(folder, protocol=2):
  """mini-ImageNet's class_dict form; returns the images per split."""
  folder.mkdir(parents=True, exist_ok=True)
  images = {}
  for seed, tag in enumerate(('train', 'val', 'test')):
    images[tag] = pixels(1, 6, channels=3, seed=seed)[0]
    rows = {f'n{seed}0': [0, 1, 2], f'n{seed}1': np.array([5, 3, 4])}
    with open(folder / f'mini-imagenet-cache-{tag}.pkl', 'wb') as stream:
      content = {'image_data': images[tag], 'class_dict': rows}
      pickle.dump(content, stream, protocol)
  return images


def draw(path, pixels_or_size, mode='L'):
  """Writes an image file with these pixels, or a white one of this size."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(pixels_or_size, tuple):
    Image.new(mode, pixels_or_size, 'white').save(path)
  else:
    Image.fromarray(pixels_or_size).save(path)


def run(*flags):
  """(exit code, stdout, stderr) of the converter."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = convert.main(['convert', *flags])
  return code, out.getvalue(), err.getvalue()


def converted(tmp_path, kind, source, *flags, name='set'):
  """The report of a conversion that must succeed, to tmp_path/out."""
  code, out, err = run(
    f'--kind={kind}',
    f'--source={source}',
    f'--name={name}',
    f'--out={tmp_path / "out"}',
    *flags,
  )
  assert (code, err) == (0, '')
  return out


def refused(tmp_path, kind, source, *flags, code=2):
  """The one line of a conversion that must fail and write nothing."""
  exit_code, out, err = run(
    f'--kind={kind}',
    f'--source={source}',
    '--name=set',
    f'--out={tmp_path / "out"}',
    *flags,
  )
  assert (exit_code, out) == (code, '')
  assert err.startswith('convert: ') and err.count('\n') == 1
  assert not list(tmp_path.glob('out/*'))
  return err


def load_converted(tmp_path, split='all', **options):
  return datasets.load('set', split, str(tmp_path / 'out'), **options)
