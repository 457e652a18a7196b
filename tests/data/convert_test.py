"""Published sets become .npz files that load, through the command line."""

import hashlib
import os
import sys

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import convert
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from hyperudl.data.datasets import npz_file
from hyperudl.data.datasets import resolve
from tests.testing import image_sets
from tests.testing import runs


def test_folder(tmp_path):
  images = image_sets.pixels(4, 3, channels=3)
  for index in range(4):
    for row in range(3 - index % 2):
      path = tmp_path / 'tree' / f'bird{index}' / f'{row}.png'
      image_sets.draw(path, images[index, row])
  out = image_sets.converted(tmp_path, 'folder', tmp_path / 'tree')
  assert '4 classes, 10 images (2 to 3 per class), 6x6x3' in out
  assert 'no split' in out
  dataset = image_sets.load_converted(tmp_path)
  assert dataset.class_names == ('bird0', 'bird1', 'bird2', 'bird3')
  assert dataset.counts.tolist() == [3, 2, 3, 2]
  assert np.array_equal(image_sets.rows(dataset, 3), images[3, :2])
  out = image_sets.converted(
    tmp_path, 'folder', tmp_path / 'tree', '--overwrite', '--image_size=3'
  )
  assert '3x3x3' in out
  assert image_sets.load_converted(tmp_path).images.shape == (10, 3, 3, 3)


def test_images_are_turned_and_inverted(tmp_path):
  images = image_sets.pixels(3, 2)
  np.savez(tmp_path / 'raw.npz', images=images)
  np.save(tmp_path / 'raw.npy', images)
  flags = ['--transpose', '--invert']
  image_sets.converted(tmp_path, 'npy', tmp_path / 'raw.npy', *flags)
  dataset = image_sets.load_converted(tmp_path)
  wanted = 255 - np.swapaxes(images, 2, 3)
  assert np.array_equal(image_sets.rows(dataset, 1)[..., 0], wanted[1])


def test_hypertransformer_caches(tmp_path):
  images = image_sets.pixels(5, channels=3)
  np.save(tmp_path / 'a_ch_first.npy', np.moveaxis(images, -1, 2))
  image_sets.converted(tmp_path, 'npy', tmp_path / 'a_ch_first.npy')
  assert np.array_equal(
    image_sets.load_converted(tmp_path).images.reshape(images.shape), images
  )
  (tmp_path / 'chunks').mkdir()
  np.save(tmp_path / 'chunks' / '0.npy', images[:2])
  np.save(tmp_path / 'chunks' / '1.npy', images[2:])
  image_sets.converted(tmp_path, 'npy', tmp_path / 'chunks', '--overwrite')
  assert np.array_equal(
    image_sets.load_converted(tmp_path).images.reshape(images.shape), images
  )


def test_the_same_set_gives_the_same_bytes_and_their_checksum(tmp_path):
  image_sets.write_mini(tmp_path / 'mini')
  out = image_sets.converted(tmp_path, 'mini', tmp_path / 'mini')
  path = tmp_path / 'out' / 'set.npz'
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert f'sha256 {digest}\n' in out and f'wrote {path}' in out
  noted = (tmp_path / 'out' / 'set.npz.sha256').read_text()
  assert noted == f'{digest}  set.npz\n'
  image_sets.converted(tmp_path, 'mini', tmp_path / 'mini', name='again')
  again = (tmp_path / 'out' / 'again.npz').read_bytes()
  assert hashlib.sha256(again).hexdigest() == digest


def test_a_big_set_is_stored_so_that_it_stays_on_disk(tmp_path, monkeypatch):
  images = image_sets.write_mini(tmp_path / 'mini')
  monkeypatch.setattr(npy, 'MAP_BYTES', 1000)
  image_sets.converted(tmp_path, 'mini', tmp_path / 'mini')
  dataset = image_sets.load_converted(tmp_path, 'train')
  assert isinstance(dataset.images, np.memmap)
  assert np.array_equal(dataset.images[:3], images['train'][:3])


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--kindd=npy'], "Unknown command line flag 'kindd'"),
    (
      ['--kind=zip'],
      'should be one of <omniglot|folder|mini|tiered|npy|tfds|metavqa>',
    ),
    (['--kind=npy', '--image_size=big'], '--image_size=big'),
    (['--kind=npy', '--image_size=-1'], '--image_size=-1'),
    ([], '--kind is missing; --help explains all flags'),
    (['--kind=npy'], '--source is missing'),
    (['--kind=npy', '--source=.'], '--name is missing'),
    (['--kind=npy', '--source=.', '--name=a/b'], 'expected a name, not a path'),
    (['--kind=npy', '--source=.', '--name=glyphs'], 'name of a built-in set'),
    (
      ['--kind=npy', '--source=.', '--name=a', '--out=gs://b'],
      '--out=gs://b: only files and folders of this machine',
    ),
    (
      ['--kind=npy', '--source=.', '--name=a', '--image_size=100000'],
      '--image_size=100000',
    ),
    (['--kind=npy', '--source=nowhere', '--name=a'], 'does not exist'),
    (['npy'], "unexpected argument 'npy'"),
    (
      ['--kind=npy', '--source=.', '--name=a', '--download=http://x'],
      '--download is for --kind=omniglot',
    ),
  ],
)
def test_a_bad_flag_is_one_line(flags, words):
  code, out, err = image_sets.run(*flags)
  assert (code, out) == (2, '')
  assert words in err and err.count('\n') == 1


def test_an_existing_set_is_not_replaced_unasked(tmp_path):
  image_sets.write_mini(tmp_path / 'mini')
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'set.npz').write_text('mine')
  code, _, err = image_sets.run(
    '--kind=mini',
    f'--source={tmp_path / "mini"}',
    '--name=set',
    f'--out={tmp_path / "out"}',
  )
  assert code == 2 and 'exists; give --overwrite' in err
  assert (tmp_path / 'out' / 'set.npz').read_text() == 'mine'


def test_an_unwritable_place_is_exit_code_5(tmp_path):
  image_sets.write_mini(tmp_path / 'mini')
  (tmp_path / 'out').write_text('a file, not a folder')
  line = image_sets.refused(tmp_path, 'mini', tmp_path / 'mini', code=5)
  assert 'cannot write' in line and 'set.npz: ' in line


def test_a_name_of_any_language_is_converted(tmp_path):
  image_sets.write_mini(tmp_path / 'mini')
  image_sets.converted(tmp_path, 'mini', tmp_path / 'mini', name='vögel')
  names = sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert names == ['vögel.npz', 'vögel.npz.sha256']
  digest = hashlib.sha256((tmp_path / 'out/vögel.npz').read_bytes()).hexdigest()
  noted = (tmp_path / 'out/vögel.npz.sha256').read_text('utf-8')
  assert noted == f'{digest}  vögel.npz\n'


# Writes a set of its own over and over.
WRITER = """
import sys
from hyperudl.data.datasets import class_table, npz_file
from tests.testing import image_sets
images = image_sets.pixels(3, 200, seed=int(sys.argv[2]))
table = class_table.from_arrays({'images': images}, 'here')
for _ in range(40):
  npz_file.write(table, sys.argv[1])
"""


def test_two_writers_of_one_name_leave_a_whole_file_and_its_checksum(tmp_path):
  path = str(tmp_path / 'set.npz')
  writers = [
    runs.launch([sys.executable, '-c', WRITER, path, seed]) for seed in '01'
  ]
  assert [runs.finish(writer).code for writer in writers] == [0, 0]
  assert sorted(os.listdir(tmp_path)) == ['set.npz', 'set.npz.sha256']
  digest = hashlib.sha256((tmp_path / 'set.npz').read_bytes()).hexdigest()
  assert (tmp_path / 'set.npz.sha256').read_text() == f'{digest}  set.npz\n'
  assert resolve.read('set', str(tmp_path)).blocks[0].shape == (200, 6, 6, 1)


def test_a_tilde_in_out_and_source_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  image_sets.write_mini(tmp_path / 'mini')
  flags = ['--kind=mini', '--source=~/mini', '--name=set', '--out=~/out']
  assert image_sets.run(*flags)[0] == 0
  assert len(image_sets.load_converted(tmp_path).counts) == 6


def test_images_of_one_value_and_copies_are_told(tmp_path):
  for name in 'ab':
    image_sets.draw(tmp_path / 'tree' / name / '1.png', (6, 6))
  line = image_sets.refused(tmp_path, 'folder', tmp_path / 'tree')
  assert 'all pixels of all images are 255' in line
  for name in 'cde':
    image_sets.draw(
      tmp_path / 'tree' / name / '1.png', image_sets.pixels()[0, 0]
    )
  (tmp_path / 'tree' / 'c' / 'x.txt').write_text('')
  out = image_sets.converted(tmp_path, 'folder', tmp_path / 'tree')
  assert '2 images are copies of others' in out
  assert 'passed over 1 entries: 1 .txt (such as c/x.txt)' in out


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
  table = class_table.from_arrays({'images': image_sets.pixels(3)}, 'here')

  def fail(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(core.Unwritable, match='No space left on device'):
    npz_file.write(table, str(tmp_path / 'set.npz'))
  assert not list(tmp_path.iterdir())


def test_help_explains_itself():
  code, out, _ = image_sets.run('--help')
  assert code == 0
  for word in (*convert.KINDS, '--source', '--image_size', 'Exit codes'):
    assert word in out
