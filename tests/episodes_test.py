"""Draws of episodes: every pixel is traced back to its row of the set."""

import functools
import itertools
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import arrays
from hyperudl.data import episodes
from hyperudl.data import mapped
from hyperudl.data import sampling
from hyperudl.data import shifts
from hyperudl.data import whole_episode

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
  return arrays.Dataset(images, starts, counts, names, None)


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


def test_rows_are_disjoint_and_of_the_class_they_claim():
  episode = draw()
  assert episode.support.x.shape == (60, 3 * 2 + 3 * 2, 3, 3, 1)
  assert episode.query.x.shape == (60, 3 * 3, 3, 3, 1)
  assert episode.support.context is None and episode.query.context is None
  for leaf in (episode.support.y, episode.query.y, *episode.extra.values()):
    assert leaf.dtype == np.int32
  assert_rows_and_labels_agree(episode)
  for y, each in ((episode.extra['unlabelled_y'], 2), (episode.query.y, 3)):
    np.testing.assert_array_equal(
      np.sort(y, axis=1), np.tile(np.repeat(range(3), each), (60, 1))
    )


def test_classes_labels_and_rows_are_uniform():
  parts = [draw(episodes.train_keys(0, step, 60)) for step in range(50)]
  episode = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  # Each ordered triple of the 6 classes has probability 1 / 120.
  triples = np.unique(episode.extra['class_ids'], axis=0, return_counts=True)[1]
  assert len(triples) == 120
  chi_square = ((triples - 25) ** 2 / 25).sum()
  assert 75 < chi_square < 175  # 119 degrees of freedom
  shot, query = episode.support.x[:, :6], episode.query.x
  for x, each in ((shot, 2), (query, 3)):
    row, times = np.unique(rows_of(x)[..., 0], return_counts=True)
    assert len(row) == DATASET.counts.sum()
    expected = 3000 / 2 * each / DATASET.counts[class_of(row)]
    assert (np.abs(times - expected) < 5 * np.sqrt(expected)).all()
  # The place of a query or an unlabelled row does not tell its class.
  for y in (episode.query.y, episode.extra['unlabelled_y']):
    assert np.abs(y.mean(axis=0) - 1).max() < 0.08


def test_an_episode_depends_on_its_key_alone():
  batch = draw(train=True, **MIXED)
  for i in (0, 7, 59):
    alone = draw(KEYS[i : i + 1], train=True, **MIXED)
    assert_same(jax.tree.map(lambda leaf: leaf[i : i + 1], batch), alone)


def test_colours_depend_on_the_key_alone():
  # XLA rounds this one otherwise in loops of one and of two steps.
  dataset = make_dataset([9, 9, 9], size=20, channels=3)
  config = make_config(augment='images')
  draw = episodes.make_draw(config, dataset, train=True)
  batch = to_numpy(draw(KEYS[:6]))
  for i, j in ((0, 1), (4, 5), (0, 2), (3, 5)):
    some = jax.tree.map(lambda leaf: leaf[i:j], batch)
    assert_same(some, to_numpy(draw(KEYS[i:j])))


@pytest.mark.parametrize(
  'train,config',
  [(True, MIXED), (False, {'inner_data': 'other', 'emit_from': 'other'})],
)
def test_host_and_device_give_the_same_bytes(train, config, tmp_path):
  device = draw(train=train, **config)
  assert_same(device, draw(train=train, device_mb=0, **config))
  images = np.lib.format.open_memmap(
    tmp_path / 'images.npy', 'w+', np.uint8, DATASET.images.shape
  )
  images[:] = DATASET.images
  config = make_config(**config, device_mb=0)
  mapped = episodes.make_draw(
    config, DATASET._replace(images=images), train=train, others=OTHERS
  )
  assert_same(device, to_numpy(mapped(KEYS)))


def test_tasks_of_an_episode_share_no_class():
  episode = draw(train=True, **MIXED)
  assert episode.support.x.shape == (60, 2, 12, 3, 3, 1)
  assert episode.query.y.shape == (60, 2, 9)
  ids = episode.extra['class_ids'].reshape(60, 6)
  assert (np.sort(ids, axis=1) == np.arange(6)).all()
  family = episode.extra['family']
  assert family.shape == (60, 2)
  assert (family[:, 0] != family[:, 1]).any()


def test_transductive_copies_the_queries_shift_and_all():
  episode = draw(transductive=True, shift='noise')
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
    mapped.take(images, [[3, 699], [0, 3]]), np.full((2, 2, 64, 64, 3), 7)
  )
  assert resident() < 100
  dataset = make_dataset([300, 300])._replace(images=images)
  config = make_config(way=2, device_mb=0)
  draw = episodes.make_draw(config, dataset, train=True)
  np.testing.assert_allclose(draw(KEYS).query.x, 7 / 255, rtol=1e-5)
  assert resident() < 100


def assert_same_episodes(first, second):
  """To the bit as users compile it; conftest's flags round otherwise."""
  if 'fusion_emitters=false' not in os.environ.get('XLA_FLAGS', ''):
    assert_same(first, second)
    return
  near = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
  jax.tree.map(near, first, second)


@pytest.mark.slow
def test_bytes_are_those_of_users_compilation():
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-m', 'not slow', __file__],
    env={**os.environ, 'XLA_FLAGS': ''},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-2000:]


def test_learners_and_overrides_meet_the_same_episodes():
  plain = draw(shift='noise')
  fewer = draw(shift='noise', unlabelled=0)
  copied = draw(shift='noise', transductive=True)
  for episode in (fewer, copied):
    assert_same_episodes(episode.query, plain.query)
    assert_same_episodes(episode.support.x[:, :6], plain.support.x[:, :6])
  assert fewer.extra['unlabelled_y'].shape == (60, 0)
  overridden = draw(
    shift='noise', inner_data='noise', cond_data='other', emit_from='mean'
  )
  support = overridden.support._replace(context=None)
  assert_same_episodes(overridden._replace(support=support), plain)
  clean = draw()
  np.testing.assert_array_equal(
    clean.extra['class_ids'], plain.extra['class_ids']
  )
  np.testing.assert_array_equal(clean.query.y, plain.query.y)
  np.testing.assert_array_equal(clean.support.x[:, :6], plain.support.x[:, :6])


def test_a_shift_hits_queries_and_unlabelled_rows_alike():
  clean, shifted = draw(), draw(shift='polarity')
  rows_of(shifted.support.x[:, :6])  # labelled rows are pixels of the set
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
    spread = np.abs(strength - mean[:, None, None, None, None])[bright]
    assert spread.max() < 1e-5
    strengths.append(mean)
  np.testing.assert_allclose(*strengths, atol=1e-5)
  assert strengths[0].std() > 0.1


def test_augmentation_is_for_training_and_turns_whole_classes():
  plain = draw()
  assert_same(draw(augment='rot90'), plain)
  episode = draw(train=True, augment='rot90')
  support, query = rows_of(episode.support.x), rows_of(episode.query.x)
  np.testing.assert_array_equal(query[..., 0], rows_of(plain.query.x)[..., 0])
  turns = support[:, :6:2, 1]
  assert (np.bincount(turns.ravel(), minlength=4) > 20).all()
  for found, y in (
    (support[:, :6], episode.support.y[:, :6]),
    (support[:, 6:], episode.extra['unlabelled_y']),
    (query, episode.query.y),
  ):
    expected = np.take_along_axis(turns, y, axis=1)
    np.testing.assert_array_equal(found[..., 1], expected)
  changed = draw(train=True, augment='images')
  assert_same(draw(augment='images'), plain)
  assert changed.query.x.min() >= 0 and changed.query.x.max() <= 1
  share = (changed.query.x == plain.query.x).mean()
  assert share < 0.05


def capped_dirichlet(rng, total, capacity, concentrations):
  """The rule of the data layer by loops, one image at a time."""
  share = rng.dirichlet([rng.choice(concentrations)] * len(capacity))
  held = rng.multinomial(total, share)
  while (held > capacity).any():
    excess = int(np.maximum(held - capacity, 0).sum())
    held = np.minimum(held, capacity)
    room = np.where(held < capacity, share, 0)
    for _ in range(excess):
      held[rng.choice(len(held), p=room / room.sum())] += 1
  return held


@pytest.mark.parametrize('name', ['dirichlet', 'dirichlet_0.7'])
def test_dirichlet_counts_have_their_distribution_and_caps(name):
  # Query and unlabelled rows take 15 of the 6 + 5 + 40 left by the support.
  dataset = make_dataset([6 + 2, 5 + 2, 40 + 2])
  config = make_config(proportions=name)
  keys = episodes.train_keys(3, 0, 3000)
  episode = episodes.make_draw(config, dataset, train=False)(keys)
  episode = to_numpy(episode)
  assert episode.query.y.shape == (3000, 9)
  assert episode.extra['unlabelled_y'].shape == (3000, 6)
  assert_rows_and_labels_agree(episode, dataset)
  y = [episode.query.y, episode.extra['unlabelled_y']]
  y = np.take_along_axis(
    episode.extra['class_ids'], np.concatenate(y, axis=1), axis=1
  )
  counts = (y[..., None] == np.arange(3)).sum(axis=1)
  capacity = np.array([6, 5, 40])
  assert (counts <= capacity).all()
  concentrations = (0.7,) if name == 'dirichlet_0.7' else (0.7, 2, 100)
  rng = np.random.default_rng(0)
  expected = np.array(
    [capped_dirichlet(rng, 15, capacity, concentrations) for _ in range(3000)]
  )
  np.testing.assert_allclose(counts.mean(0), expected.mean(0), atol=0.3)
  np.testing.assert_allclose(counts.std(0), expected.std(0), atol=0.3)
  for c in range(3):
    share = [
      np.bincount(n[:, c], minlength=16) / 3000 for n in (counts, expected)
    ]
    np.testing.assert_allclose(*share, atol=0.045)
  # Queries and unlabelled rows follow the same proportions.
  halves = [(y[:, part] == 2).mean(axis=1) for part in (slice(9), slice(9, 15))]
  assert np.corrcoef(halves)[0, 1] > 0.3


def test_placebos_replace_the_unlabelled_images():
  episode = draw(
    shift='noise', inner_data='noise', cond_data='other', emit_from='mean'
  )
  context = episode.support.context
  assert set(context) == {'inner', 'cond', 'emit_from'}
  assert context['inner'].shape == context['cond'].shape == (60, 6, 3, 3, 1)
  noise = context['inner']
  assert noise.min() == 0 and noise.max() == 1
  assert abs((noise == 0).mean() - 0.159) < 0.03
  others = context['emit_from']
  assert others.x.shape == (60, 64, 12, 3, 3, 1)
  assert others.y.shape == (60, 64, 12)
  assert (others.y == episode.support.y[:, None]).all()
  found = class_of(rows_of(others.x[:2, :, :6], OTHERS)[..., 0], OTHERS)
  assert len(np.unique(found.reshape(128, 6), axis=0)) > 20


def test_other_placebos_are_another_episode():
  episode = draw(inner_data='other', emit_from='other')
  context = episode.support.context
  assert set(context) == {'inner', 'emit_from'}
  rows = rows_of(context['inner'])[..., 0]
  assert all(len(set(r)) == len(r) for r in rows)
  classes = np.sort(class_of(rows), axis=1)
  assert (classes >= 0).all()
  # Two of each of three classes, drawn without regard to the own classes.
  assert (classes[:, ::2] == classes[:, 1::2]).all()
  own = np.sort(episode.extra['class_ids'], axis=1)
  assert 0 < (classes[:, ::2] == own).all(axis=1).mean() < 0.2
  emit = context['emit_from']
  assert emit.x.shape == (60, 1, 12, 3, 3, 1)
  assert (class_of(rows_of(emit.x, OTHERS)[..., 0], OTHERS) >= 0).all()


def test_other_placebos_have_a_shift_of_their_own():
  episode = draw(shift='polarity', inner_data='other', cond_data='other')
  context = episode.support.context
  np.testing.assert_array_equal(context['inner'], context['cond'])
  brightest = [
    (1 - x).max(axis=(1, 2, 3, 4)) for x in (episode.query.x, context['inner'])
  ]
  assert abs(np.corrcoef(brightest)[0, 1]) < 0.5


def test_none_is_no_image_at_all():
  context = draw(inner_data='none').support.context
  assert set(context) == {'inner'}
  assert context['inner'].shape == (60, 0, 3, 3, 1)


@pytest.mark.parametrize(
  'config,message',
  [
    ({'way': 7}, 'the split: episode.way=7 takes 7 classes, there are 6'),
    ({'way': 3, 'tasks': 3}, 'episode.way=3 x episode.tasks=3 takes 9 classes'),
    (
      {'query': 4},
      r'episode.shot=2 \+ episode.query=4 \+ episode.unlabelled=2 takes 8 '
      'images per class, the smallest class has 7: lower',
    ),
    ({'shot': 5, 'transductive': True}, 'episode.query=3 takes 8 images'),
    (
      {'shot': 8, 'proportions': 'dirichlet'},
      'episode.shot=8 takes 8 images per class, the smallest class has 7',
    ),
    (
      {'query': 4, 'proportions': 'dirichlet'},
      'takes 24 images, the 3 smallest classes together have 22',
    ),
    ({'way': 0}, 'episode.way=0: it must be at least 1'),
    ({'unlabelled': -1}, 'episode.unlabelled=-1: it must be at least 0'),
    ({'proportions': 'even'}, "'even': choose one of balanced, dirichlet"),
    ({'inner_data': 'fake'}, "inner_data='fake': choose one of true, noise"),
    ({'emit_from': 'all'}, "emit_from='all': choose one of own, mean, other"),
    ({'augment': 'flip'}, "data.augment='flip': choose one of none, rot90"),
    ({'shift': 'snow'}, "unknown shift 'snow'"),
  ],
)
def test_what_does_not_fit_is_said_before_tracing(config, message):
  config = make_config(**config)
  with pytest.raises(core.BadInput, match=message):
    episodes.check_fits(config, DATASET, 'the split')
  with pytest.raises(core.BadInput):
    episodes.make_draw(config, DATASET, train=True)


def test_what_just_fits_is_drawn():
  for config in (
    {'way': 6, 'query': 3},
    {'query': 3, 'unlabelled': 0, 'proportions': 'dirichlet_0.7', 'shot': 4},
  ):
    episodes.check_fits(make_config(**config), DATASET, 'the split')
    x = draw(**config).query.x
    assert (class_of(rows_of(x)[..., 0]) >= 0).all()


def test_misfits_between_sets_are_refused():
  oblong = DATASET._replace(images=np.zeros((80, 2, 3, 1), np.uint8))
  with pytest.raises(core.BadInput, match='square images, got 2x3'):
    episodes.make_draw(make_config(augment='rot90'), oblong, train=True)
  config = make_config(emit_from='mean')
  make = functools.partial(episodes.make_draw, config, DATASET, train=False)
  with pytest.raises(core.BadInput, match="emit_from='mean' needs the train"):
    make()
  with pytest.raises(core.BadInput, match=r'data\.image_size'):
    make(others=oblong)
  with pytest.raises(core.BadInput, match=r'training set: episode\.way=3'):
    make(others=make_dataset([9, 9]))


def test_keys_name_the_seed_the_stream_and_the_place():
  data = lambda keys: [tuple(k) for k in np.asarray(jax.random.key_data(keys))]
  first = data(episodes.train_keys(0, 0, 4))
  assert data(episodes.train_keys(0, 0, 9))[:4] == first
  fixed = data(episodes.eval_keys('test', 0, 10))
  assert data(episodes.eval_keys('test', 6, 4)) == fixed[6:]
  streams = [
    first,
    fixed,
    data(episodes.train_keys(0, 1, 4)),
    data(episodes.train_keys(1, 0, 4)),
    data(episodes.train_keys(2023, 0, 4)),
    data(episodes.eval_keys('valid', 0, 10)),
    data(episodes.eval_keys('train', 0, 10)),
    data(episodes.eval_keys('all', 0, 10)),
  ]
  assert len(set(itertools.chain(*streams))) == sum(map(len, streams))
  traced = jax.jit(lambda step: episodes.train_keys(0, step, 4))(jnp.int32(0))
  assert data(traced) == first
  with pytest.raises(core.BadInput, match="'dev': choose one of train, valid"):
    episodes.eval_keys('dev', 0, 1)


def test_one_compilation_serves_all_keys(monkeypatch):
  traces = []

  def draw_tasks(*args):
    traces.append(1)
    return sampling_draw_tasks(*args)

  sampling_draw_tasks = sampling.draw_tasks
  monkeypatch.setattr(sampling, 'draw_tasks', draw_tasks)
  for size in (0, 2048):
    traces.clear()
    config = make_config(device_mb=size)
    draw = episodes.make_draw(config, DATASET, train=True)
    ids = [
      tuple(np.asarray(draw(keys).extra['class_ids']).ravel())
      for keys in (episodes.train_keys(0, step, 60) for step in range(6))
    ]
    assert len(set(ids)) > 3
    assert len(traces) == 1
