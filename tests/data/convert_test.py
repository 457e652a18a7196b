"""Published sets become .npz files that load, through the command line."""

import hashlib
import os
import pickle

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import convert
from hyperudl.data import datasets
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npy
from tests.testing import image_sets


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
  assert '3x3x3' in out and image_sets.load_converted(
    tmp_path
  ).images.shape == (
    10,
    3,
    3,
    3,
  )


def test_images_are_turned_and_inverted(tmp_path):
  images = image_sets.pixels(3, 2)
  np.savez(tmp_path / 'raw.npz', images=images)
  np.save(tmp_path / 'raw.npy', images)
  flags = ['--transpose', '--invert']
  image_sets.converted(tmp_path, 'npy', tmp_path / 'raw.npy', *flags)
  dataset = image_sets.load_converted(tmp_path)
  wanted = 255 - np.swapaxes(images, 2, 3)
  assert np.array_equal(image_sets.rows(dataset, 1)[..., 0], wanted[1])


def write_mini(folder, protocol=2):
  """mini-ImageNet's class_dict form; returns the images per split."""
  folder.mkdir(parents=True, exist_ok=True)
  images = {}
  for seed, tag in enumerate(('train', 'val', 'test')):
    images[tag] = image_sets.pixels(1, 6, channels=3, seed=seed)[0]
    rows = {f'n{seed}0': [0, 1, 2], f'n{seed}1': np.array([5, 3, 4])}
    with open(folder / f'mini-imagenet-cache-{tag}.pkl', 'wb') as stream:
      content = {'image_data': images[tag], 'class_dict': rows}
      pickle.dump(content, stream, protocol)
  return images


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_mini_imagenet_with_class_dict(tmp_path, protocol):
  images = write_mini(tmp_path / 'mini', protocol)
  out = image_sets.converted(tmp_path, 'mini', tmp_path / 'mini')
  assert '6 classes, 18 images' in out and 'valid: 2 classes, 6 images' in out
  for split, tag in zip(class_table.SPLITS, images):
    dataset = image_sets.load_converted(tmp_path, split)
    assert dataset.class_names[0][0] == 'n'
    assert np.array_equal(image_sets.rows(dataset, 0), images[tag][:3])
    assert np.array_equal(image_sets.rows(dataset, 1), images[tag][[5, 3, 4]])


def test_mini_imagenet_loads_where_it_lies(tmp_path):
  images = write_mini(tmp_path)
  for folder, name in ((tmp_path, 'miniimagenet'), (tmp_path.parent, '')):
    name = name or tmp_path.name
    dataset = datasets.load(name, 'valid', str(folder))
    assert np.array_equal(image_sets.rows(dataset, 0), images['val'][:3])


def test_mini_imagenet_with_labels(tmp_path):
  folder = tmp_path / 'mini'
  folder.mkdir()
  images = image_sets.pixels(3, 5, channels=3)
  for index, tag in enumerate(('train_phase_train', 'val', 'test')):
    name = f'miniImageNet_category_split_{tag}.pickle'
    with open(folder / name, 'wb') as stream:
      labels = [7, 9, 7, 7, 9]
      pickle.dump({'data': images[index], 'labels': labels}, stream, 2)
  image_sets.converted(tmp_path, 'mini', folder)
  dataset = image_sets.load_converted(tmp_path, 'test')
  assert dataset.class_names == ('test/0007', 'test/0009')
  assert np.array_equal(image_sets.rows(dataset, 1), images[2][[1, 4]])


def write_tiered(folder):
  folder.mkdir()
  images = image_sets.pixels(3, 6, channels=3)
  for index, tag in enumerate(('train', 'val', 'test')):
    np.savez(folder / f'{tag}_images.npz', images=images[index])
    with open(folder / f'{tag}_labels.pkl', 'wb') as stream:
      pickle.dump({'labels': [0, 0, 0, 1, 1, 2]}, stream, 2)
  return images


def test_tiered_imagenet(tmp_path):
  images = write_tiered(tmp_path / 'tiered')
  out = image_sets.converted(tmp_path, 'tiered', tmp_path / 'tiered')
  assert '9 classes, 18 images (1 to 3 per class)' in out
  dataset = image_sets.load_converted(tmp_path, 'valid')
  assert dataset.counts.tolist() == [3, 2, 1]
  assert np.array_equal(dataset.images, images[1])


class Bomb:
  """A pickle that would make a folder."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return os.mkdir, (str(self.target),)


def fault(tmp_path, content, file='mini-imagenet-cache-val.pkl'):
  write_mini(tmp_path / 'mini')
  with open(tmp_path / 'mini' / file, 'wb') as stream:
    pickle.dump(content, stream)
  return image_sets.refused(tmp_path, 'mini', tmp_path / 'mini')


@pytest.mark.parametrize(
  'content, words',
  [
    ([1, 2], "expected a dict with 'image_data', found list"),
    ({'data': 1}, "expected a dict with 'image_data', found ['data']"),
    (
      {'image_data': image_sets.pixels(1)[0, 0], 'class_dict': {}},
      '[image_data]: wrong rank 2',
    ),
    (
      {'image_data': np.full((4, 6, 6, 3), 9.5), 'class_dict': {}},
      '[image_data]: element [0, 0, 0, 0] is 9.5',
    ),
    (
      {'image_data': np.zeros((4, 6, 6, 3), np.uint8), 'class_dict': [0]},
      '[class_dict]: list; expected a dict',
    ),
    (
      {
        'image_data': np.zeros((4, 6, 6, 3), np.uint8),
        'class_dict': {'a': 'b'},
      },
      "[class_dict]['a']: expected a list of integers",
    ),
    (
      {
        'image_data': np.zeros((4, 6, 6, 3), np.uint8),
        'class_dict': {'a': [0, 4]},
      },
      "[class_dict]['a']: element 1 is 4; expected a row of the 4 images",
    ),
    (
      {'image_data': np.zeros((4, 6, 6, 3), np.uint8), 'class_dict': {'a': []}},
      "class 2 ('a') has 0 images",
    ),
  ],
)
def test_a_fault_in_a_cache_is_named(tmp_path, content, words):
  line = fault(tmp_path, content)
  assert words in line and 'mini' in line


def test_a_bomb_in_a_cache_does_not_go_off(tmp_path):
  for content in (
    Bomb(tmp_path / 'bang'),
    {'image_data': Bomb(tmp_path / 'bang'), 'class_dict': {}},
  ):
    assert 'forbidden global posix.mkdir' in fault(tmp_path, content)
  assert not (tmp_path / 'bang').exists()


def test_an_incomplete_cache_says_what_is_missing(tmp_path):
  write_mini(tmp_path / 'mini')
  os.remove(tmp_path / 'mini' / 'mini-imagenet-cache-val.pkl')
  line = image_sets.refused(tmp_path, 'mini', tmp_path / 'mini')
  assert 'mini-imagenet-cache-val.pkl: missing' in line
  line = image_sets.refused(tmp_path, 'tiered', tmp_path / 'mini')
  assert 'has none of the files of --kind=tiered' in line
  write_tiered(tmp_path / 'tiered')
  with open(tmp_path / 'tiered' / 'test_labels.pkl', 'wb') as stream:
    pickle.dump({'labels': [0, 1]}, stream)
  line = image_sets.refused(tmp_path, 'tiered', tmp_path / 'tiered')
  assert 'test_labels.pkl: 6 images but 2 labels' in line


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
  write_mini(tmp_path / 'mini')
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
  images = write_mini(tmp_path / 'mini')
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
  write_mini(tmp_path / 'mini')
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
  write_mini(tmp_path / 'mini')
  (tmp_path / 'out').write_text('a file, not a folder')
  line = image_sets.refused(tmp_path, 'mini', tmp_path / 'mini', code=5)
  assert 'set.npz: cannot be written (' in line


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
  data = class_table.from_arrays({'images': image_sets.pixels(3)}, 'here')

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(convert, '_write_images', full)
  with pytest.raises(core.Unwritable, match='No space left on device'):
    convert.write(data, str(tmp_path / 'set.npz'))
  assert not list(tmp_path.iterdir())


def test_help_explains_itself():
  code, out, _ = image_sets.run('--help')
  assert code == 0
  for word in (*convert.KINDS, '--source', '--image_size', 'Exit codes'):
    assert word in out
