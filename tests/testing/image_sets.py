"""Small image sets for the tests of data, and what loading them says."""

import contextlib
import io
import os

import numpy as np
from PIL import Image
import pytest

from hyperudl import core
from hyperudl.data import convert
from hyperudl.data import datasets


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
  with pytest.raises(core.BadInput) as caught:
    load(folder, split, name, **options)
  message = str(caught.value)
  assert '\n' not in message
  return message


def rows(dataset, index):
  start = dataset.starts[index]
  return dataset.images[start : start + dataset.counts[index]]


def draw(path, pixels_or_size, mode='L'):
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
  found, out, err = run(
    f'--kind={kind}',
    f'--source={source}',
    '--name=set',
    f'--out={tmp_path / "out"}',
    *flags,
  )
  assert (found, out) == (code, '')
  assert err.startswith('convert: ') and err.count('\n') == 1
  assert not list(tmp_path.glob('out/*'))
  return err


def load_converted(tmp_path, split='all', **options):
  return datasets.load('set', split, str(tmp_path / 'out'), **options)
