"""A small set whose every image is known again, and draws from it."""

import functools
import itertools

import jax
import ml_collections
import numpy as np

from hyperudl.data import datasets
from hyperudl.data import episodes
from hyperudl.data.episodes import episode_augment as whole_episode

EPISODE = {
  'way': 3,
  'shot': 2,
  'query': 3,
  'unlabelled': 2,
  'distractors': 0,
  'tasks': 0,
  'proportions': 'balanced',
  'transductive': False,
  'inner_data': 'true',
  'cond_data': 'true',
  'emit_from': 'own',
}
NO_AUGMENT = {
  **dict.fromkeys(whole_episode.PROBABILITIES, 0.0),
  'rot90': False,
  'angle': 180.0,
  'per_label': False,
}
MIXED = {'shift': 'phase2', 'augment': 'rot90', 'tasks': 2}
KEYS = episodes.train_keys(1, 7, 60)


def make_config(
  shift='none',
  augment='none',
  support_query='disjoint',
  augment_individually=False,
  augment_tests=False,
  episode_augment=(),
  device_mb=2048,
  **episode,
):
  assert set(episode) <= set(EPISODE)
  return ml_collections.ConfigDict(
    {
      'episode': {**EPISODE, **episode},
      'data': {
        'shift': shift,
        'augment': augment,
        'support_query': support_query,
        'augment_individually': augment_individually,
        'augment_tests': augment_tests,
        'device_mb': device_mb,
        'episode_augment': {**NO_AUGMENT, **dict(episode_augment)},
      },
    }
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
OTHERS = make_dataset([9] * 5, seed=1)


@functools.cache
def make_draw(*, train=False, **config):
  return episodes.make_draw(
    make_config(**config), DATASET, train=train, others=OTHERS
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
  found = np.array([table[image.tobytes()] for image in flat])
  return found.reshape(*x.shape[:-3], 2)


def class_of(rows, dataset=DATASET):
  """The class of each row; -1 for a row that belongs to none."""
  found = np.full(len(dataset.images), -1)
  for c, (start, count) in enumerate(zip(dataset.starts, dataset.counts)):
    found[start : start + count] = c
  return found[rows]


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
