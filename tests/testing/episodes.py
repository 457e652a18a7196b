"""A small set whose every image can be recognised, and draws from it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import config as config_lib
from hyperudl.data import datasets
from hyperudl.data import episodes

SIZES = {'way': 3, 'shot': 2, 'query': 3, 'unlabelled': 2}
MIXED = {'shift': 'phase2', 'augment': 'rot90', 'tasks': 2}
KEYS = episodes.train_keys(1, 7, 60)


def make_config(**fields):
  """A config with small episodes; `fields` of `episode` and `data`."""
  config = config_lib.base()
  config.data.episode_augment.update(dict(fields.pop('episode_augment', ())))
  for name, value in {**SIZES, 'augment': 'none', **fields}.items():
    section = config.episode if name in config.episode else config.data
    assert name in section, name
    section[name] = value
  return config


def episode_of(way=3, shot=1, query=2, unlabelled=0, size=8, seed=0):
  """A random episode, labels in the order 0, 1, ..., 0, 1, ..."""
  keys = jax.random.split(jax.random.key(seed), 2)
  draw = lambda key, rows: jax.random.uniform(key, (rows, size, size, 1))
  labels = jnp.tile(jnp.arange(way), shot)
  y = jnp.concatenate([labels, jnp.full(unlabelled, -1)])
  return core.Episode(
    core.Examples(draw(keys[0], len(y)), y),
    core.Examples(draw(keys[1], way * query), jnp.tile(jnp.arange(way), query)),
  )


def make_dataset(counts, seed=0, size=3, channels=1):
  """Images unlike any other; rows between the classes belong to none."""
  counts = np.array(counts)
  starts = 1 + np.cumsum(counts + 1) - (counts + 1)
  shape = (int((counts + 1).sum()) + 1, size, size, channels)
  images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
  names = tuple(f'class{i}' for i in range(len(counts)))
  return datasets.Dataset(images, starts, counts, names, None)


DATASET = make_dataset([7, 9, 8, 12, 7, 10])
TRAINING_SET = make_dataset([9] * 5, seed=1)


@functools.cache
def make_draw(*, train=False, **config):
  return episodes.make_draw(
    make_config(**config), DATASET, train=train, training_set=TRAINING_SET
  )


def to_numpy(tree):
  return jax.tree.map(np.asarray, tree)


def draw(keys=KEYS, **config):
  return to_numpy(make_draw(**config)(keys))


def rows_of(x, dataset=DATASET):
  """The rows of the set that f32[..., H, W, 1] shows, and quarter turns."""
  table = {}
  for row, k in itertools.product(range(len(dataset.images)), range(4)):
    table[np.rot90(dataset.images[row], k).tobytes()] = row, k
  pixels = np.round(x * 255).astype(np.uint8)
  # XLA multiplies by 1 / 255, which may differ in the last bit.
  np.testing.assert_allclose(x, pixels / 255, rtol=2e-7)
  flat = pixels.reshape(-1, *x.shape[-3:])
  rows = np.array([table[image.tobytes()] for image in flat])
  return rows.reshape(*x.shape[:-3], 2)


def class_of(rows, dataset=DATASET):
  """The class of each row; -1 for a row that belongs to none."""
  classes = np.full(len(dataset.images), -1)
  for c, (start, count) in enumerate(zip(dataset.starts, dataset.counts)):
    classes[start : start + count] = c
  return classes[rows]


def assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_rows_and_labels_agree(episode, dataset=DATASET):
  """No row twice in an episode, and each of the class that it claims."""
  support = rows_of(episode.support.x, dataset)
  query = rows_of(episode.query.x, dataset)
  assert (support[..., 1] == 0).all() and (query[..., 1] == 0).all()
  rows = np.concatenate([support[..., 0], query[..., 0]], axis=1)
  assert all(len(set(r)) == len(r) for r in rows)
  labels = np.concatenate(
    [episode.support.y[:, :6], episode.extra['unlabelled_y'], episode.query.y],
    axis=1,
  )
  claimed = np.take_along_axis(episode.extra['class_ids'], labels, axis=1)
  np.testing.assert_array_equal(class_of(rows, dataset), claimed)
  assert all(len(set(ids)) == 3 for ids in episode.extra['class_ids'])
  np.testing.assert_array_equal(
    episode.support.y, np.tile([0, 0, 1, 1, 2, 2] + 6 * [-1], (len(rows), 1))
  )
