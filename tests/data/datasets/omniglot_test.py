"""Omniglot as its authors publish it becomes a set, drawers in order."""

import collections
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image
import pytest

from hyperudl import core
from hyperudl.data.datasets import class_table
from tests.testing import image_sets

SPLIT = (
  pathlib.Path(__file__).parents[3] / 'configs/splits/omniglot_background.txt'
)


def drawing(alphabet, character, drawer):
  """A PNG file like Omniglot's: a black bar, longer for later drawers."""
  ink = np.full((105, 105), 255, np.uint8)
  row = 15 + 45 * (character - 1)
  ink[row : row + 15, : 30 + 15 * drawer] = 0
  ink[90:, : 10 * (alphabet + 1)] = 0
  stream = io.BytesIO()
  Image.fromarray(ink).convert('1').save(stream, 'png')
  return stream.getvalue()


def write_omniglot(folder, part, alphabets, drawers=3):
  """Writes images_<part>.zip with two characters per alphabet."""
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'images_{part}.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('__MACOSX/images/a/b/._1.png', b'x')
    for alphabet in alphabets:
      for character in (2, 1):  # not sorted in the file
        for drawer in reversed(range(1, drawers + 1)):
          archive.writestr(
            f'images_{part}/Alphabet{alphabet}/character{character:02d}/'
            f'{alphabet:04d}_{drawer:02d}.png',
            drawing(alphabet, character, drawer),
          )
  return path


def check_omniglot(dataset):
  for index, name in enumerate(dataset.class_names):
    alphabet, character = int(name[8]), int(name[-1])
    assert name == f'Alphabet{alphabet}/character{character:02d}'
    assert dataset.alphabets[index] == f'Alphabet{alphabet}'
    images = image_sets.rows(dataset, index)[..., 0]
    assert images.shape == (3, 28, 28)
    for drawer in range(3):
      whole = Image.open(io.BytesIO(drawing(alphabet, character, drawer + 1)))
      ink = 255 - np.asarray(whole.convert('L'), float)
      # Antialiasing keeps the mean ink; turned or swapped images differ.
      assert abs(images[drawer].mean() - ink.mean()) < 2
      top = {1: 5, 2: 17}[character]
      assert images[drawer, top : top + 2, 2:8].min() > 200
    lengths = (images[:, :23].max(axis=1) > 127).sum(axis=1)
    assert (np.diff(lengths) >= 3).all()  # drawers in their order


def test_omniglot_from_both_zip_files(tmp_path):
  write_omniglot(tmp_path / 'zips', 'background', range(4))
  write_omniglot(tmp_path / 'zips', 'evaluation', range(4, 6))
  out = image_sets.converted(tmp_path, 'omniglot', tmp_path / 'zips')
  assert '12 classes, 36 images (3 to 3 per class), 28x28x1' in out
  assert '6 alphabets\ntrain: 6 classes, 18 images\nvalid: 2 classes' in out
  dataset = image_sets.load_converted(tmp_path)
  check_omniglot(dataset)
  parts = [
    image_sets.load_converted(tmp_path, split) for split in class_table.SPLITS
  ]
  train, valid, test = (set(part.alphabets) for part in parts)
  assert test == {'Alphabet4', 'Alphabet5'}
  assert len(valid) == 1 and len(train) == 3 and not train & valid
  archive = np.load(tmp_path / 'out' / 'set.npz')
  assert archive['images'].shape == (12, 3, 28, 28)


def test_omniglot_unpacked_is_the_same(tmp_path):
  for part, alphabets in (('background', range(4)), ('evaluation', (4, 5))):
    path = write_omniglot(tmp_path / 'zips', part, alphabets)
    with zipfile.ZipFile(path) as archive:
      archive.extractall(tmp_path / 'unpacked')
  image_sets.converted(tmp_path, 'omniglot', tmp_path / 'zips')
  zipped = (tmp_path / 'out' / 'set.npz').read_bytes()
  image_sets.converted(
    tmp_path, 'omniglot', tmp_path / 'unpacked', '--overwrite'
  )
  assert (tmp_path / 'out' / 'set.npz').read_bytes() == zipped


def test_omniglot_with_one_part(tmp_path):
  path = write_omniglot(tmp_path / 'zips', 'background', range(6))
  out = image_sets.converted(tmp_path, 'omniglot', path)
  assert 'train: 8 classes' in out and 'test: 2 classes' in out
  path = write_omniglot(tmp_path / 'eval', 'evaluation', range(2))
  out = image_sets.converted(
    tmp_path, 'omniglot', path, '--overwrite', '--image_size=35', '--seed=3'
  )
  assert 'test: 4 classes, 12 images' in out and '35x35x1' in out


def test_another_seed_chooses_other_valid_alphabets(tmp_path):
  write_omniglot(tmp_path / 'zips', 'background', range(9), drawers=1)
  chosen = set()
  for seed in range(6):
    image_sets.converted(
      tmp_path, 'omniglot', tmp_path / 'zips', f'--seed={seed}', '--overwrite'
    )
    chosen.add(image_sets.load_converted(tmp_path, 'valid').alphabets)
  assert len(chosen) > 1


def test_omniglot_damaged_or_missing(tmp_path):
  (tmp_path / 'zips').mkdir()
  assert 'data/omniglot.sh' in image_sets.refused(
    tmp_path, 'omniglot', tmp_path / 'zips'
  )
  path = write_omniglot(tmp_path / 'zips', 'background', range(3))
  data = path.read_bytes()
  for size in (10, len(data) // 2, len(data) - 3):
    path.write_bytes(data[:size])
    line = image_sets.refused(tmp_path, 'omniglot', tmp_path / 'zips')
    assert 'images_background.zip: not a zip file, or damaged' in line
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('images_background/A/character01/1.png', b'no image')
  line = image_sets.refused(tmp_path, 'omniglot', tmp_path / 'zips')
  assert 'A/character01/1.png: not an image file' in line


def test_a_file_says_which_alphabet_is_in_which_split(tmp_path):
  zips = write_omniglot(tmp_path / 'zips', 'background', range(3))
  split = tmp_path / 'split.txt'
  split.write_text(
    '# three alphabets\n\nAlphabet0 test\n Alphabet1 train\nAlphabet2 valid\n'
    'Alphabet1/character02 test\n'
  )
  image_sets.converted(tmp_path, 'omniglot', zips, f'--split={split}')
  dataset = image_sets.load_converted(tmp_path, split='test')
  assert dataset.class_names == (
    'Alphabet0/character01',
    'Alphabet0/character02',
    'Alphabet1/character02',
  )
  dataset = image_sets.load_converted(tmp_path, split='valid')
  assert set(dataset.alphabets) == {'Alphabet2'}


def test_a_class_may_be_left_out_of_all_splits(tmp_path):
  zips = write_omniglot(tmp_path / 'zips', 'background', range(3))
  split = tmp_path / 'split.txt'
  split.write_text('Alphabet0 test\nAlphabet1 train\nAlphabet2 none\n')
  out = image_sets.converted(tmp_path, 'omniglot', zips, f'--split={split}')
  assert 'none: 2 classes' in out
  alphabets = {
    name: set(image_sets.load_converted(tmp_path, split=name).alphabets)
    for name in ('train', 'test', 'all')
  }
  assert alphabets['train'] == {'Alphabet1'} and alphabets['test'] == {
    'Alphabet0'
  }
  assert alphabets['all'] == {'Alphabet0', 'Alphabet1', 'Alphabet2'}
  with pytest.raises(core.BadInput, match='no class in split valid'):
    image_sets.load_converted(tmp_path, split='valid')


@pytest.mark.parametrize(
  'text, words',
  [
    ('Alphabet0 test\nAlphabet1 train\n', "class 'Alphabet2/character01'"),
    ('Alphabet0 tset\n', 'split.txt:1: expected the name of an alphabet'),
    ('Alphabet0 test\nAlphabet0 train\n', 'split.txt:2: expected the name'),
    ('test\n', 'split.txt:1: expected the name'),
    (b'\xff\xfe', 'give UTF-8 text'),
    (None, 'No such file'),
  ],
)
def test_a_split_file_with_a_fault_is_refused(tmp_path, text, words):
  zips = write_omniglot(tmp_path / 'zips', 'background', range(3))
  path = tmp_path / 'split.txt'
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  code, _, err = image_sets.run(
    '--kind=omniglot',
    f'--source={zips}',
    '--name=set',
    f'--out={tmp_path / "out"}',
    f'--split={path}',
  )
  assert code == 2 and words in err and err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_the_committed_split_has_the_background_alphabets_once():
  lines = [
    line.split()
    for line in SPLIT.read_text().splitlines()
    if not line.startswith('#')
  ]
  assert len({alphabet for alphabet, _ in lines}) == len(lines) == 30
  counts = collections.Counter(split for _, split in lines)
  assert counts == {'train': 20, 'valid': 5, 'test': 5}
