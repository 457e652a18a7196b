"""No header of a .npy or .npz file is believed before it is checked."""

import pickle
import zipfile

import numpy as np
import pytest

from hyperudl.data.datasets import npy
from tests.testing import image_sets


def npy_header(shape, kind='|u1'):
  header = {'descr': kind, 'fortran_order': False, 'shape': shape}
  return (
    b'\x93NUMPY\x01\x00'
    + (118).to_bytes(2, 'little')
    + repr(header).encode().ljust(117)
    + b'\n'
  )


@pytest.mark.parametrize(
  'data, words',
  [
    (b'', 'the file is empty'),
    (b'hello, I am text\n', "not a .npy file but text (it begins with 'hello"),
    (b'\x00\x01\x02\x03\x04\x05\x06\x07', 'not a .npy file (it begins with b'),
    (b'PK\x03\x04xxxxxxxx', 'not a .npy file but a .npz archive: rename it'),
    (pickle.dumps([1, 2]), 'not a .npy file but a pickle'),
    (b'\x93NUMPY', 'not a .npy file'),
    (b'\x93NUMPY\x09\x00' + b'x' * 40, '.npy format 9.0'),
    (b'\x93NUMPY\x01\x00\x10\x00garbage', 'damaged .npy header'),
    (npy_header((4, 2, 6, 6)), 'needs 288 bytes, the file holds 0'),
    (
      npy_header((4, 2, 6, 6)) + b'x' * 287,
      'the file holds 287; copy it again',
    ),
    (npy_header((10**6, 20, 84, 84, 3)), 'false header: shape (1000000, 20'),
    (npy_header((-4, 2, 6, 6)) + b'x' * 99, 'false header'),
    (npy_header((2,), '|O') + pickle.dumps(3), 'the pickle inside int'),
    (npy_header((2,), '|O') + b'\x80\x04junk', 'not a readable pickle'),
    (npy_header((1,), '<f8') + b'\0' * 8, 'wrong rank 1'),
  ],
)
def test_a_damaged_npy_file_is_named(tmp_path, data, words):
  path = tmp_path / 'set.npy'
  path.write_bytes(data)
  message = image_sets.refusal(tmp_path)
  assert message.startswith(str(path)) and words in message


def test_a_damaged_npz_file_is_named_wherever_it_is_cut(tmp_path):
  image_sets.save(
    tmp_path, images=image_sets.pixels(3), split=np.array(['train'] * 3)
  )
  path = tmp_path / 'set.npz'
  data = path.read_bytes()
  for size in [0, 1, 10, *range(100, len(data), 97)]:
    path.write_bytes(data[:size])
    assert str(path) in image_sets.refusal(tmp_path)


def test_a_flipped_byte_in_a_npz_file_is_found(tmp_path):
  np.savez_compressed(tmp_path / 'set.npz', images=image_sets.pixels(3))
  path = tmp_path / 'set.npz'
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x55
  path.write_bytes(data)
  assert '[images]: damaged' in image_sets.refusal(tmp_path)


def test_a_giant_header_in_a_npz_file_takes_no_memory(tmp_path):
  path = tmp_path / 'set.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('images.npy', npy_header((10**9, 20, 84, 84, 3)) + b'x')
  assert '[images]: truncated, or a false header' in image_sets.refusal(
    tmp_path
  )


def test_big_arrays_stay_on_disk(tmp_path, monkeypatch):
  images = image_sets.pixels(channels=3)
  split = np.array(['train'] * 6 + ['valid', 'test', 'valid', 'test'])
  np.save(tmp_path / 'plain.npy', images)
  np.save(tmp_path / 'port_ch_first.npy', np.moveaxis(images, -1, 2))
  image_sets.save(tmp_path, 'stored', images=images, split=split)
  names = ('plain', 'port', 'stored')
  wanted = [image_sets.load(tmp_path, name=name) for name in names]
  monkeypatch.setattr(npy, 'MAP_BYTES', 1000)
  for name, dataset in zip(names, wanted):
    mapped = image_sets.load(tmp_path, name=name)
    assert isinstance(mapped.images, np.memmap)
    assert not mapped.images.flags.writeable
    assert not isinstance(dataset.images, np.memmap)
    assert np.array_equal(mapped.images, dataset.images)
    assert np.array_equal(mapped.images.reshape(images.shape), images)
  train = image_sets.load(tmp_path, 'train', name='stored')
  assert isinstance(train.images, np.memmap)
  assert np.array_equal(train.images.reshape(6, 4, 6, 6, 3), images[:6])
  test = image_sets.load(tmp_path, 'test', name='stored')  # classes 7 and 9
  assert np.array_equal(test.images.reshape(2, 4, 6, 6, 3), images[[7, 9]])
