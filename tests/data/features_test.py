"""A file of features is a data set: read, checked, split, drawn, refused."""

import jax
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import episodes
from hyperudl.data.datasets import class_table
from hyperudl.data.datasets import npz_file
from hyperudl.data.datasets import resolve
from tests.testing import episodes as episodes_lib
from tests.testing import errors
from tests.testing import image_sets


def features(classes=10, per_class=4, size=3, seed=0):
  """f32[classes, per_class, size], all rows different."""
  random = np.random.default_rng(seed)
  return random.normal(size=(classes, per_class, size)).astype(np.float32)


def test_blocks_and_labelled_rows_are_the_same_set(tmp_path):
  x = features(3)
  image_sets.save(tmp_path, 'blocks', features=x)
  order = np.random.default_rng(1).permutation(12)
  labels = np.repeat(np.arange(3), 4)[order]
  rows = x.reshape(12, 3)[order].astype(np.float64)
  image_sets.save(tmp_path, 'rows', features=rows, labels=labels)
  blocks = image_sets.load(tmp_path, name='blocks')
  grouped = image_sets.load(tmp_path, name='rows')
  assert blocks.images.dtype == grouped.images.dtype == np.float32
  np.testing.assert_array_equal(blocks.images, x.reshape(12, 3))
  for c in range(3):
    expected = rows[labels == c].astype(np.float32)
    np.testing.assert_array_equal(image_sets.rows(grouped, c), expected)


def test_splits_are_those_of_the_file_or_by_class(tmp_path):
  split = np.array(['train'] * 4 + ['valid'] * 2 + ['test'] * 4)
  x = features()
  image_sets.save(tmp_path, features=x, split=split)
  test = image_sets.load(tmp_path, 'test')
  np.testing.assert_array_equal(test.images, x[6:].reshape(-1, 3))
  image_sets.save(tmp_path, features=x)
  parts = [image_sets.load(tmp_path, s).images for s in class_table.SPLITS]
  together = np.concatenate(parts)
  assert [len(part) // 4 for part in parts] == [6, 2, 2]
  np.testing.assert_array_equal(np.sort(together.ravel()), np.sort(x.ravel()))


def test_a_row_that_is_in_two_splits_stays_in_one(tmp_path):
  x = features(3, 8)
  x[2, 0] = x[0, 0]
  image_sets.save(tmp_path, features=x, split=['train', 'valid', 'test'])
  assert len(image_sets.load(tmp_path, 'train').images) == 7
  assert len(image_sets.load(tmp_path, 'test').images) == 8


BAD = features()
BAD[2, 1, 0] = np.nan
HUGE = features().astype(np.float64)
HUGE[0, 3, 2] = 1e300


@pytest.mark.parametrize(
  'content, words',
  [
    ({'features': BAD}, '[features]: element [2, 1, 0] is nan; features must'),
    ({'features': HUGE}, '[features]: element [0, 3, 2] is 1e+300'),
    ({'features': np.ones((4, 3, 2), int)}, 'int64 values; expected floats'),
    ({'features': features()[0]}, 'wrong rank 2, shape (4, 3); expected [cl'),
    (
      {'features': features(), 'labels': np.arange(10)},
      'wrong rank 3, shape (10, 4, 3); expected [n, D] beside labels',
    ),
    ({'features': np.zeros((3, 2, 0), np.float32)}, 'empty, shape (3, 2, 0)'),
    (
      {'features': features(), 'images': image_sets.pixels()},
      'it has images and features; make a file of each',
    ),
    (
      {'features': features()[0], 'labels': np.arange(3)},
      '4 features but 3 labels',
    ),
    ({'features': features(), 'splits': ['train'] * 10}, "did you mean 'split"),
  ],
)
def test_a_fault_is_named_in_one_line(tmp_path, content, words):
  image_sets.save(tmp_path, **content)
  assert words in image_sets.refusal(tmp_path)


def test_a_big_file_stays_on_the_disk_and_is_checked(tmp_path, monkeypatch):
  monkeypatch.setattr('hyperudl.data.datasets.npy.MAP_BYTES', 100)
  image_sets.save(tmp_path, features=features())
  assert isinstance(image_sets.load(tmp_path).images.base, np.memmap)
  image_sets.save(tmp_path, features=BAD)
  assert 'element [2, 1, 0] is nan' in image_sets.refusal(tmp_path)


def test_a_written_table_is_read_again(tmp_path):
  x = features(4)
  blocks = [x[0], x[1], x[2][:2], x[3]]
  names = ('a', 'b', 'c', 'd')
  split = ('train', 'train', 'valid', 'test')
  table = class_table.Table('here', blocks, names, split=split)
  path = str(tmp_path / 'set.npz')
  digest = npz_file.write(table, path)
  again = resolve.read('set', str(tmp_path))
  assert again[2:5] == table[2:5]
  for one, other in zip(table.blocks, again.blocks):
    np.testing.assert_array_equal(one, other)
  report = npz_file.describe(again, path, digest)
  assert '4 classes, 14 features (2 to 4 per class), 3, from' in report


def dataset():
  """Rows like those of `episodes_lib.DATASET`, but of features."""
  images = episodes_lib.DATASET.images
  rows = np.random.default_rng(0).normal(size=(len(images), 4))
  return episodes_lib.DATASET._replace(images=rows.astype(np.float32))


@pytest.mark.parametrize('device_mb', [0, 10])
def test_episodes_hold_rows_of_the_set_unchanged(device_mb):
  config = episodes_lib.make_config(augment='auto', device_mb=device_mb)
  data = dataset()
  draw = episodes.make_draw(config, data, train=True)
  episode = episodes_lib.to_numpy(draw(episodes_lib.KEYS[:4]))
  assert episode.support.x.shape == (4, 3 * (2 + 2), 4)
  np.testing.assert_array_equal(
    episode.query.x, data.images[episode.extra['query_rows']]
  )
  table = {row.tobytes(): index for index, row in enumerate(data.images)}
  for x, y, ids in zip(
    episode.support.x, episode.support.y, episode.extra['class_ids']
  ):
    rows = np.array([table[row.tobytes()] for row in x[:6]])
    np.testing.assert_array_equal(episodes_lib.class_of(rows), ids[y[:6]])


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'augment': 'rot90'}, "data.augment='rot90' changes or draws images"),
    ({'shift': 'shear'}, "data.shift='shear' changes or draws images"),
    ({'inner_data': 'noise'}, "episode.inner_data='noise' changes or draws"),
    ({'cond_data': 'noise'}, "set it to 'none', or save features of"),
  ],
)
def test_what_needs_images_is_refused(fields, words):
  config = episodes_lib.make_config(**fields)
  call = lambda: episodes.make_draw(config, dataset(), train=True)
  assert words in errors.refusal(call)


def test_features_have_no_size_in_pixels(tmp_path):
  image_sets.save(tmp_path, features=features())
  message = image_sets.refusal(tmp_path, image_size=8)
  assert 'data.image_size=8, but' in message and 'has features' in message


def test_quarter_turns_are_the_default_of_images_alone():
  config = episodes_lib.make_config(augment='auto')
  explicit = episodes_lib.make_config(augment='rot90')
  keys = episodes_lib.KEYS[:4]
  draws = [
    episodes.make_draw(c, episodes_lib.DATASET, train=True)(keys)
    for c in (config, explicit)
  ]
  jax.tree.map(np.testing.assert_array_equal, *draws)
  wide = episodes_lib.DATASET._replace(images=np.zeros((60, 3, 4, 1), np.uint8))
  with pytest.raises(core.BadInput, match='quarter turns'):
    episodes.make_draw(config, wide, train=True)
