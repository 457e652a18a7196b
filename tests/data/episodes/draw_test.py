"""Draws of episodes: every pixel is traced back to its row of the set."""

import functools
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hyperudl.data import episodes
from hyperudl.data.datasets import memmap
from hyperudl.data.episodes import sampling
from hyperudl.data.episodes import shifts
from tests.data.episodes import draw_context_test
from tests.testing import episodes as helpers


def test_rows_are_disjoint_and_of_the_class_they_claim():
  episode = helpers.draw()
  assert episode.support.x.shape == (60, 3 * 2 + 3 * 2, 3, 3, 1)
  assert episode.query.x.shape == (60, 3 * 3, 3, 3, 1)
  assert episode.support.context is None and episode.query.context is None
  for leaf in (episode.support.y, episode.query.y, *episode.extra.values()):
    assert leaf.dtype == np.int32
  helpers.assert_rows_and_labels_agree(episode)
  for y, each in ((episode.extra['unlabelled_y'], 2), (episode.query.y, 3)):
    np.testing.assert_array_equal(
      np.sort(y, axis=1), np.tile(np.repeat(range(3), each), (60, 1))
    )


def test_classes_labels_and_rows_are_uniform():
  parts = [helpers.draw(episodes.train_keys(0, step, 60)) for step in range(50)]
  episode = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  # Each ordered triple of the 6 classes has probability 1 / 120.
  triples = np.unique(episode.extra['class_ids'], axis=0, return_counts=True)[1]
  assert len(triples) == 120
  chi_square = ((triples - 25) ** 2 / 25).sum()
  assert 75 < chi_square < 175  # 119 degrees of freedom
  shot, query = episode.support.x[:, :6], episode.query.x
  for x, each in ((shot, 2), (query, 3)):
    row, times = np.unique(helpers.rows_of(x)[..., 0], return_counts=True)
    assert len(row) == helpers.DATASET.counts.sum()
    expected = 3000 / 2 * each / helpers.DATASET.counts[helpers.class_of(row)]
    assert (np.abs(times - expected) < 5 * np.sqrt(expected)).all()
  # The place of a query or an unlabelled row does not tell its class.
  for y in (episode.query.y, episode.extra['unlabelled_y']):
    assert np.abs(y.mean(axis=0) - 1).max() < 0.08


def test_an_episode_depends_on_its_key_alone():
  batch = helpers.draw(train=True, **helpers.MIXED)
  for i in (0, 7, 59):
    alone = helpers.draw(helpers.KEYS[i : i + 1], train=True, **helpers.MIXED)
    helpers.assert_same(
      jax.tree.map(lambda leaf: leaf[i : i + 1], batch), alone
    )


def test_colours_depend_on_the_key_alone():
  # XLA rounds this one otherwise in loops of one and of two steps.
  dataset = helpers.make_dataset([9, 9, 9], size=20, channels=3)
  config = helpers.make_config(augment='images')
  draw = episodes.make_draw(config, dataset, train=True)
  batch = helpers.to_numpy(draw(helpers.KEYS[:6]))
  for i, j in ((0, 1), (4, 5), (0, 2), (3, 5)):
    some = jax.tree.map(lambda leaf: leaf[i:j], batch)
    helpers.assert_same(some, helpers.to_numpy(draw(helpers.KEYS[i:j])))


@pytest.mark.parametrize(
  'train,config',
  [
    (True, helpers.MIXED),
    (False, {'inner_data': 'other', 'emit_from': 'other'}),
    (True, {'support_query': 'joint', 'unlabelled': 0, 'tasks': 2}),
  ],
)
def test_host_and_device_give_the_same_bytes(train, config, tmp_path):
  device = helpers.draw(train=train, **config)
  helpers.assert_same(device, helpers.draw(train=train, device_mb=0, **config))
  images = np.lib.format.open_memmap(
    tmp_path / 'images.npy', 'w+', np.uint8, helpers.DATASET.images.shape
  )
  images[:] = helpers.DATASET.images
  config = helpers.make_config(**config, device_mb=0)
  mapped = episodes.make_draw(
    config,
    helpers.DATASET._replace(images=images),
    train=train,
    training_set=helpers.TRAINING_SET,
  )
  helpers.assert_same(device, helpers.to_numpy(mapped(helpers.KEYS)))


def test_tasks_of_an_episode_share_no_class():
  episode = helpers.draw(train=True, **helpers.MIXED)
  assert episode.support.x.shape == (60, 2, 12, 3, 3, 1)
  assert episode.query.y.shape == (60, 2, 9)
  ids = episode.extra['class_ids'].reshape(60, 6)
  assert (np.sort(ids, axis=1) == np.arange(6)).all()
  family = episode.extra['family']
  assert family.shape == (60, 2)
  assert (family[:, 0] != family[:, 1]).any()


def test_transductive_copies_the_queries_shift_and_all():
  episode = helpers.draw(transductive=True, shift='noise')
  assert episode.support.x.shape == (60, 6 + 9, 3, 3, 1)
  np.testing.assert_array_equal(episode.support.x[:, 6:], episode.query.x)
  assert (episode.support.y[:, 6:] == -1).all()
  np.testing.assert_array_equal(episode.extra['unlabelled_y'], episode.query.y)


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/smaps').exists(), reason='needs Linux'
)
def test_a_mapped_set_takes_no_memory(tmp_path):
  path = tmp_path / 'images.npy'
  written = np.lib.format.open_memmap(path, 'w+', np.uint8, (800, 64, 64, 3))
  written[:] = 7
  del written
  images = np.load(path, mmap_mode='r')[100:]  # a view, as splits are

  def resident():
    text = pathlib.Path('/proc/self/smaps').read_text()
    after = text.partition(str(path))[2]
    return int(re.search(r'Rss:\s+(\d+) kB', after)[1])

  assert int(images.sum(dtype=np.int64)) == 7 * images.size
  assert resident() > 8000
  np.testing.assert_array_equal(
    memmap.take(images, [[3, 699], [0, 3]]), np.full((2, 2, 64, 64, 3), 7)
  )
  assert resident() < 100
  dataset = helpers.make_dataset([300, 300])._replace(images=images)
  config = helpers.make_config(way=2, device_mb=0)
  draw = episodes.make_draw(config, dataset, train=True)
  np.testing.assert_allclose(draw(helpers.KEYS).query.x, 7 / 255, rtol=1e-5)
  assert resident() < 100


def assert_same_episodes(first, second):
  """To the bit as users compile it; conftest's flags round otherwise."""
  if 'fusion_emitters=false' not in os.environ.get('XLA_FLAGS', ''):
    helpers.assert_same(first, second)
    return
  near = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
  jax.tree.map(near, first, second)


@pytest.mark.slow
def test_bytes_are_equal_without_the_flags_of_the_tests():
  files = [__file__, draw_context_test.__file__]
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-m', 'not slow', *files],
    env={**os.environ, 'XLA_FLAGS': ''},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-2000:]


def test_controls_do_not_change_the_episodes():
  plain = helpers.draw(shift='noise')
  fewer = helpers.draw(shift='noise', unlabelled=0)
  copied = helpers.draw(shift='noise', transductive=True)
  for episode in (fewer, copied):
    assert_same_episodes(episode.query, plain.query)
    assert_same_episodes(episode.support.x[:, :6], plain.support.x[:, :6])
  assert fewer.extra['unlabelled_y'].shape == (60, 0)
  overridden = helpers.draw(
    shift='noise', inner_data='noise', cond_data='other', emit_from='mean'
  )
  support = overridden.support._replace(context=None)
  assert_same_episodes(overridden._replace(support=support), plain)
  clean = helpers.draw()
  np.testing.assert_array_equal(
    clean.extra['class_ids'], plain.extra['class_ids']
  )
  np.testing.assert_array_equal(clean.query.y, plain.query.y)
  np.testing.assert_array_equal(clean.support.x[:, :6], plain.support.x[:, :6])


def test_queries_and_unlabelled_rows_get_the_same_shift():
  clean, shifted = helpers.draw(), helpers.draw(shift='polarity')
  helpers.rows_of(
    shifted.support.x[:, :6]
  )  # labelled rows are pixels of the set
  assert set(shifted.extra['family']) == {shifts.family_index('polarity')}
  pairs = (
    (clean.query.x, shifted.query.x),
    (clean.support.x[:, 6:], shifted.support.x[:, 6:]),
  )
  strengths = []
  for before, after in pairs:
    bright = before > 0.5
    strength = (1 - after) / np.where(bright, before, 1)
    mean = np.array([s[b].mean() for s, b in zip(strength, bright)])
    deviation = np.abs(strength - mean[:, None, None, None, None])[bright]
    assert deviation.max() < 1e-5
    strengths.append(mean)
  np.testing.assert_allclose(*strengths, atol=1e-5)
  assert strengths[0].std() > 0.1


def test_rot90_turns_whole_classes_in_training_alone():
  plain = helpers.draw()
  helpers.assert_same(helpers.draw(augment='rot90'), plain)
  episode = helpers.draw(train=True, augment='rot90')
  support, query = (
    helpers.rows_of(episode.support.x),
    helpers.rows_of(episode.query.x),
  )
  np.testing.assert_array_equal(
    query[..., 0], helpers.rows_of(plain.query.x)[..., 0]
  )
  turns = support[:, :6:2, 1]
  assert (np.bincount(turns.ravel(), minlength=4) > 20).all()
  for rows, y in (
    (support[:, :6], episode.support.y[:, :6]),
    (support[:, 6:], episode.extra['unlabelled_y']),
    (query, episode.query.y),
  ):
    expected = np.take_along_axis(turns, y, axis=1)
    np.testing.assert_array_equal(rows[..., 1], expected)
  changed = helpers.draw(train=True, augment='images')
  helpers.assert_same(helpers.draw(augment='images'), plain)
  assert changed.query.x.min() >= 0 and changed.query.x.max() <= 1
  assert (changed.query.x == plain.query.x).mean() < 0.05


def test_one_compilation_serves_all_keys_shifts_and_places_of_the_data(
  monkeypatch,
):
  traces = []

  def count_traces(*args):
    traces.append(1)
    return draw_plan(*args)

  draw_plan = sampling.draw_plan
  monkeypatch.setattr(sampling, 'draw_plan', count_traces)
  counts = {'shot': 1, 'query': 4, 'unlabelled': 1}  # of no other test
  for changes in (
    {'device_mb': 0},
    {'device_mb': 2048},
    {'device_mb': 2048, 'shift': 'blur', 'inner_data': 'noise'},
  ):
    config = helpers.make_config(**counts, **changes)
    draw = episodes.make_draw(config, helpers.DATASET, train=True)
    ids = [
      tuple(np.asarray(draw(keys).extra['class_ids']).ravel())
      for keys in (episodes.train_keys(0, step, 60) for step in range(6))
    ]
    assert len(set(ids)) > 3
  assert len(traces) == 1
