"""Files of models and tasks are read as written, or refused in one line."""

import json
import zipfile

import numpy as np
import pytest

import hyperudl
from hyperudl import core
from hyperudl.models import bundle
from tests.testing import errors
from tests.testing import models

ARRAYS = {'params/a': np.arange(6, dtype=np.float32).reshape(2, 3)}
META = {'format': bundle.MODEL, 'note': 'ä'}


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / 'm.npz'
  bundle.write(path, ARRAYS, META)
  arrays, meta = bundle.read(path, bundle.MODEL)
  assert meta == {**META, 'version': 1}
  assert arrays.keys() == ARRAYS.keys()
  np.testing.assert_array_equal(arrays['params/a'], ARRAYS['params/a'])
  first = path.read_bytes()
  bundle.write(path, ARRAYS, META)
  assert path.read_bytes() == first
  assert [p.name for p in tmp_path.iterdir()] == ['m.npz']
  assert np.load(path, allow_pickle=False)['params/a'].shape == (2, 3)


def test_another_format_is_refused(tmp_path):
  path = tmp_path / 'm.npz'
  bundle.write(path, ARRAYS, META)
  assert 'hyperudl-task' in errors.refusal(bundle.read, path, bundle.TASK)
  np.savez(path, images=np.zeros(3))
  assert 'no model or task' in errors.refusal(bundle.read, path, bundle.MODEL)


@pytest.mark.parametrize('text', [b'{', b'[]', b'[' * 100_000, b'\xff'])
def test_a_description_that_is_none_is_refused(tmp_path, text):
  path = tmp_path / 'm.npz'
  np.savez(path, meta=np.frombuffer(text, np.uint8))
  assert 'no model or task' in errors.refusal(bundle.read, path, bundle.MODEL)


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path):
  path = tmp_path / 'm.npz'
  bundle.write(path, ARRAYS, META)
  content, changed = path.read_bytes(), 0
  for place in range(0, len(content), 7):
    damaged = bytearray(content)
    damaged[place] ^= 1 << place % 8
    path.write_bytes(damaged)
    try:
      arrays, meta = bundle.read(path, bundle.MODEL)
    except core.BadInput as error:
      assert '\n' not in str(error)
      changed += 1
    else:
      assert meta == {**META, 'version': 1}
      np.testing.assert_array_equal(arrays['params/a'], ARRAYS['params/a'])
  assert changed > 50


def rewritten(path, change):
  """Write a file of a model again with another description, well summed."""
  arrays, meta = bundle.read(path, bundle.MODEL)
  change(meta, arrays)
  bundle.write(path, arrays, meta)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda m, a: m.pop('config'), 'damaged description'),
    (lambda m, a: m.update(config=[]), 'not a config'),
    (lambda m, a: m['config'].update(learner={'name': 'os'}), 'os'),
    (lambda m, a: m['config']['episode'].update(way=10**9), 'way'),
    (lambda m, a: m.update(inputs={'height': -1}), 'damaged description'),
    (lambda m, a: m['inputs'].update(height=10**9), 'damaged description'),
    (lambda m, a: m['inputs'].update(channels=3), 'does not fit'),
    (lambda m, a: a.popitem(), 'missing'),
    (lambda m, a: a.update({'params/x': np.zeros(1)}), 'expected none'),
  ],
)
def test_a_hostile_description_is_refused(tmp_path, change, words):
  path = tmp_path / 'm.npz'
  models.make().save(path)
  rewritten(path, change)
  message = errors.refusal(hyperudl.load, path)
  assert words in message and message.startswith(str(path))


def test_a_file_holds_no_paths_of_the_machine_and_no_pickle(tmp_path):
  path = tmp_path / 'm.npz'
  models.make().save(path, licence='CC0', card='a test')
  with zipfile.ZipFile(path) as archive:
    assert all(b'hasobject' not in archive.read(n) for n in archive.namelist())
  with np.load(path, allow_pickle=False) as content:
    meta = json.loads(content['meta'].tobytes())
  assert meta['config']['data']['dir'] == '' and 'run' not in meta['config']
  assert meta['about']['licence'] == 'CC0' and meta['about']['card'] == 'a test'
