"""Sets prepared by tensorflow-datasets convert without TensorFlow."""

import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from hyperudl.data.datasets import tfds
from tests.data.datasets import omniglot_test
from tests.testing import image_sets

FIXTURES = str(pathlib.Path(__file__).parents[2] / 'fixtures')


def unpack(tmp_path, name):
  with zipfile.ZipFile(os.path.join(FIXTURES, f'{name}.zip')) as archive:
    archive.extractall(tmp_path)
  return tmp_path / name


def test_prepared_set_with_shared_classes(tmp_path):
  source = unpack(tmp_path, 'tiny_digits')
  out = image_sets.converted(tmp_path, 'tfds', source)
  assert '12 classes, 96 images (8 to 8 per class), 14x14x1' in out
  assert 'no split' in out
  dataset = image_sets.load_converted(tmp_path)
  assert dataset.class_names == tuple(f'digit{n}' for n in range(12))
  first = [image_sets.rows(dataset, index)[0].tobytes() for index in range(12)]
  assert len(set(first)) == 12
  # The strokes of a class lie closer together than those of two classes.
  blocks = dataset.images.reshape(12, 8, -1).astype(float)
  centres = blocks.mean(axis=1)
  distances = ((blocks[:, :, None] - centres) ** 2).sum(axis=-1)
  assert (distances.argmin(axis=-1) == np.arange(12)[:, None]).mean() > 0.9
  assert image_sets.converted(tmp_path, 'tfds', source / '1.0.0', name='same')
  folder = tmp_path / 'out'
  assert (folder / 'set.npz').read_bytes() == (folder / 'same.npz').read_bytes()


def test_prepared_omniglot(tmp_path):
  out = image_sets.converted(tmp_path, 'tfds', unpack(tmp_path, 'omniglot'))
  assert '12 classes, 36 images (3 to 3 per class), 28x28x1' in out
  assert '6 alphabets\ntrain: 6 classes, 18 images\nvalid: 2 classes' in out
  test = image_sets.load_converted(tmp_path, 'test')
  assert set(test.alphabets) == {'He', 'Waw'}
  assert test.class_names == ('He_0', 'He_1', 'Waw_0', 'Waw_1')
  assert (
    image_sets.load_converted(tmp_path).images.mean() < 80
  )  # ink is bright on black


def test_splits_may_have_their_other_usual_names(tmp_path):
  folder = unpack(tmp_path, 'omniglot') / '1.0.0'
  info = folder / 'dataset_info.json'
  text = info.read_text()
  for ours, theirs in (('train', 'training'), ('test', 'testing')):
    text = text.replace(f'"{ours}"', f'"{theirs}"')
    for file in folder.glob(f'omniglot-{ours}.*'):
      file.rename(folder / file.name.replace(ours, theirs))
  info.write_text(text)
  out = image_sets.converted(tmp_path, 'tfds', folder)
  assert '12 classes, 36 images' in out  # without `small1`, a part of train
  assert set(image_sets.load_converted(tmp_path, 'test').alphabets) == {
    *('He', 'Waw')
  }


def spoil(folder, fault):
  shard = folder / 'tiny_digits-train.array_record-00000-of-00001'
  info = folder / 'dataset_info.json'
  if fault == 'missing':
    shard.unlink()
  elif fault == 'cut':
    shard.write_bytes(shard.read_bytes()[:70000])
  elif fault == 'byte':
    data = bytearray(shard.read_bytes())
    data[500] ^= 0xFF
    shard.write_bytes(data)
  elif fault == 'tfrecord':
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  elif fault == 'metadata':
    info.write_text(info.read_text()[:30])
  elif fault == 'features':
    (folder / 'features.json').unlink()
  elif fault == 'unprepared':
    info.unlink()


@pytest.mark.parametrize(
  'fault, words, data_dir',
  [
    ('missing', '1.0.0 (train): cannot be read', 'x_array_record'),
    ('cut', '1.0.0 (train): cannot be read', 'x_array_record'),
    ('byte', '1.0.0 (train): cannot be read', 'x_array_record'),
    ('tfrecord', 'prepared as tfrecord, which only Tens', 'x_array_record'),
    ('metadata', 'dataset_info.json is damaged', 'x_array_record'),
    ('features', '1.0.0: cannot be read', 'x_array_record'),
    ('unprepared', 'so nothing is prepared there', 'x'),
  ],
)
def test_an_unreadable_prepared_set_says_the_command(
  tmp_path, fault, words, data_dir
):
  folder = unpack(tmp_path / 'x', 'tiny_digits') / '1.0.0'
  spoil(folder, fault)
  line = image_sets.refused(tmp_path, 'tfds', folder)
  assert words in line
  command = (
    "python -c \"import tensorflow_datasets as t; t.builder('tiny_digits', "
    f"data_dir='{tmp_path}/{data_dir}', file_format='array_record')"
    '.download_and_prepare()"'
  )
  assert command in line


def test_two_classes_of_one_name_are_refused_by_name(tmp_path):
  folder = unpack(tmp_path, 'tiny_digits') / '1.0.0'
  labels = folder / 'label.labels.txt'
  labels.write_text(labels.read_text().replace('digit3\n', 'digit2\n'))
  line = image_sets.refused(tmp_path, 'tfds', folder)
  assert 'digit2' in line and 'Traceback' not in line


def test_modules_that_a_prepared_set_names_are_not_imported(tmp_path):
  folder = unpack(tmp_path, 'tiny_digits') / '1.0.0'
  path = folder / 'features.json'
  name = 'tensorflow_datasets.core.features.image_feature.Image'
  path.write_text(path.read_text().replace(name, 'antigravity.Image'))
  line = image_sets.refused(tmp_path, 'tfds', folder)
  assert "the feature 'antigravity.Image' is not one of tensorflow-data" in line
  assert 'antigravity' not in sys.modules


def test_images_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
  folder = unpack(tmp_path, 'tiny_digits')
  monkeypatch.setattr(tfds, 'SPARE_BYTES', -(10**7))
  line = image_sets.refused(tmp_path, 'tfds', folder)
  assert '8 times as much memory as their files; set --image_size' in line
  monkeypatch.setattr(tfds, 'MAX_PIXELS', 100)
  line = image_sets.refused(tmp_path, 'tfds', folder)
  assert 'an image of 14x14 pixels; at most 100 are read' in line


def test_without_tensorflow_datasets_it_says_what_to_install(
  tmp_path, monkeypatch
):
  source = unpack(tmp_path, 'tiny_digits')
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  line = image_sets.refused(tmp_path, 'tfds', source)
  assert 'pip install tensorflow-datasets importlib_resources' in line


def test_only_a_tfds_conversion_imports_tensorflow_datasets(tmp_path):
  omniglot_test.write_omniglot(
    tmp_path / 'zips', 'background', range(3), drawers=1
  )
  program = (
    'import sys\n'
    'from hyperudl.data import convert, datasets\n'
    'assert convert.main(sys.argv) == 0\n'
    f'datasets.load("set", "train", {str(tmp_path)!r})\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
    'assert "tensorflow" not in sys.modules\n'
  )
  flags = f'--kind=omniglot --name=set --source={tmp_path}/zips'.split()
  command = [sys.executable, '-c', program, *flags, f'--out={tmp_path}']
  subprocess.run(command, check=True, capture_output=True)
