"""Trees of class folders load as a set; every fault is one line."""

import sys

import numpy as np
from PIL import Image
import pytest

from hyperudl.data.datasets import image_folder
from tests.testing import errors
from tests.testing import image_sets
from tests.testing import runs


def test_class_folders(tmp_path):
  images = image_sets.pixels(4, 3, channels=3)
  for index, name in enumerate(['ant', 'bee', 'cat', 'dog']):
    for row in range(3):
      image_sets.draw(
        tmp_path / 'set' / name / f'{row}.png', images[index, row]
      )
    (tmp_path / 'set' / name / 'notes.txt').write_text('not an image')
  dataset = image_sets.load(tmp_path)
  assert dataset.class_names == ('ant', 'bee', 'cat', 'dog')
  assert np.array_equal(dataset.images.reshape(images.shape), images)


@pytest.mark.parametrize('valid', ['val', 'valid', 'validation'])
def test_split_folders_with_alphabets(tmp_path, valid):
  for split, classes in (('train', 'ab'), (valid, 'cd'), ('test', 'e')):
    for letter in classes:
      path = tmp_path / 'set' / split / letter.upper() / letter / '1.png'
      image_sets.draw(path, image_sets.pixels()[ord(letter) - 97, 0])
  assert image_sets.load(tmp_path, 'train').class_names == ('a', 'b')
  assert image_sets.load(tmp_path, 'valid').alphabets == ('C', 'D')
  test = image_sets.load(tmp_path, 'test')
  assert test.images.shape == (1, 6, 6, 1)
  assert np.array_equal(test.images[0, ..., 0], image_sets.pixels()[4, 0])


def test_images_of_different_sizes_need_a_size(tmp_path):
  for index, size in enumerate([(6, 6), (9, 4), (6, 6)]):
    image_sets.draw(tmp_path / 'set' / f'c{index}' / '1.jpg', size, 'RGB')
  message = image_sets.refusal(tmp_path)
  assert 'is 6x6' in message and 'is 9x4' in message
  assert 'set data.image_size' in message
  assert image_sets.load(tmp_path, image_size=5).images.shape == (3, 5, 5, 3)


def test_gray_and_coloured_files_together_become_coloured(tmp_path):
  image_sets.draw(tmp_path / 'set' / 'a' / '1.png', (6, 6), 'L')
  image_sets.draw(tmp_path / 'set' / 'b' / '1.png', (6, 6), 'RGB')
  clear = Image.new('RGBA', (6, 6), (255, 0, 0, 0))
  (tmp_path / 'set' / 'c').mkdir()
  clear.save(tmp_path / 'set' / 'c' / '1.png')
  dataset = image_sets.load(tmp_path)
  assert dataset.images.shape == (3, 6, 6, 3)
  assert (dataset.images == 255).all()  # what is transparent is white


def test_images_are_resized_while_reading_with_the_same_bits(tmp_path):
  """As `image_folder.resize` resizes the decoded images of a set."""
  images = image_sets.pixels(3, 2, 20, channels=3)
  for index, name in enumerate('abc'):
    for row in range(2):
      path = tmp_path / 'set' / name / f'{row}.png'
      image_sets.draw(path, images[index, row])
  wanted = image_folder.resize(images.reshape(6, 20, 20, 3), 7)
  assert np.array_equal(image_sets.load(tmp_path, image_size=7).images, wanted)
  # One of another size, and a gray one among colours.
  image_sets.draw(tmp_path / 'set' / 'd' / '1.png', (9, 4), 'RGB')
  image_sets.draw(tmp_path / 'set' / 'e' / '1.png', images[0, 0, ..., 0])
  mixed = image_sets.load(tmp_path, image_size=7).images
  assert np.array_equal(mixed[:6], wanted)
  gray = np.broadcast_to(wanted[0, ..., :1], wanted[0].shape)
  assert np.array_equal(mixed[7], gray)


PEAK = r"""
import pathlib, re, sys
from hyperudl.data import datasets
images = datasets.load('set', 'all', sys.argv[1], image_size=32).images
# Unlike ru_maxrss this says nothing of the process that started this one.
status = pathlib.Path('/proc/self/status').read_text()
print(len(images), int(re.search(r'VmHWM:\s+(\d+)', status)[1]) // 1024)
"""


def test_photographs_of_one_size_are_not_held_at_full_size(tmp_path):
  """Of 4000x3000, 34 MB each; five more take no more memory."""
  smooth = np.add.outer(np.arange(3000), np.arange(4000)).astype(np.uint8)
  (tmp_path / 'set' / 'a').mkdir(parents=True)
  first = tmp_path / 'set' / 'a' / '0.jpg'
  Image.fromarray(np.stack([smooth] * 3, -1)).save(first, quality=30)
  peaks = []
  for count in (3, 8):
    for number in range(1, count):
      path = first.with_name(f'{number}.jpg')
      path.unlink(missing_ok=True)
      path.hardlink_to(first)
    command = [sys.executable, '-c', PEAK, str(tmp_path)]
    done = runs.finish(runs.launch(command))
    assert done.code == 0, done.err
    images, megabytes = map(int, done.out.split())
    assert images == count
    peaks.append(megabytes)
  assert peaks[1] - peaks[0] < 100 and peaks[1] < 500, peaks


def test_images_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
  image_sets.draw(tmp_path / 'set' / 'a' / '1.png', (60, 60), 'RGB')
  monkeypatch.setattr(image_folder.os, 'sysconf', lambda name: 100)
  assert 'set a smaller data.image_size' in image_sets.refusal(tmp_path)
  few = image_sets.pixels(1, channels=1)[0]
  assert 'set a smaller' in errors.refusal(image_folder.resize, few, 50)


def test_what_was_passed_over_is_a_warning(tmp_path, warnings):
  image_sets.draw(tmp_path / 'set' / 'a' / '1.png', (6, 6))
  (tmp_path / 'set' / 'a' / 'notes.txt').write_text('no image')
  image_sets.load(tmp_path)
  assert 'passed over 1 entries: 1 .txt (such as a/notes.txt)' in warnings[0]


def spoil_tree(folder, fault):
  if fault == 'text':
    (folder / 'a' / '1.png').write_text('no image')
  elif fault == 'cut':
    data = (folder / 'a' / '1.png').read_bytes()
    (folder / 'a' / '1.png').write_bytes(data[: len(data) * 2 // 3])
  elif fault == 'empty':
    (folder / 'c').mkdir()
  elif fault == 'twice':
    image_sets.draw(
      folder / 'train' / 'dog' / '1.png', image_sets.pixels()[0, 0]
    )
    image_sets.draw(
      folder / 'test' / 'dog' / '1.png', image_sets.pixels()[1, 0]
    )
  elif fault == 'beside':
    image_sets.draw(
      folder / 'train' / 'dog' / '1.png', image_sets.pixels()[0, 0]
    )
  elif fault == 'deep':
    image_sets.draw(
      folder / 'x' / 'y' / 'z' / '1.png', image_sets.pixels()[0, 0]
    )
  elif fault == 'bits':
    floats = Image.fromarray(np.zeros((6, 6), np.float32))
    floats.save(folder / 'a' / '1.png', 'TIFF')


@pytest.mark.parametrize(
  'fault, words',
  [
    ('text', '/set/a/1.png: not an image file'),
    ('cut', '/set/a/1.png: a damaged image'),
    ('empty', '/set/c: class folder with 0 images'),
    ('beside', '/set/a: not under train, valid or test'),
    ('deep', '/set/x/y/z: images at an unexpected level'),
    ('bits', '/set/a/1.png: pixels of mode F, whose range is not'),
  ],
)
def test_a_fault_in_a_folder_is_named(tmp_path, fault, words):
  for name in 'ab':
    image_sets.draw(
      tmp_path / 'set' / name / '1.png',
      image_sets.pixels(size=20)[ord(name) - 97, 0],
    )
  spoil_tree(tmp_path / 'set', fault)
  assert words in image_sets.refusal(tmp_path)


def test_a_class_folder_in_train_and_test_is_named(tmp_path):
  spoil_tree(tmp_path / 'set', 'twice')
  words = "classes 0 and 1 (test and train) have the same name 'dog'"
  assert words in image_sets.refusal(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
  (tmp_path / 'set').mkdir()
  assert 'set: no class folders with images in it' in image_sets.refusal(
    tmp_path
  )


def test_a_set_of_tensorflow_datasets_says_how_to_convert_it(tmp_path):
  path = tmp_path / 'set' / '1.0.0'
  path.mkdir(parents=True)
  (path / 'dataset_info.json').write_text('{}')
  words = 'python -m hyperudl.data.convert --kind=tfds --source='
  assert words in image_sets.refusal(tmp_path)
