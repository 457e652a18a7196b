"""Draws of episodes: random proportions, control images, refused configs."""

import functools

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import episodes
from tests.testing import episodes as helpers


def capped_dirichlet(rng, total, capacity, concentrations):
  """Class counts with a cap, by loops, one image at a time."""
  weights = rng.dirichlet([rng.choice(concentrations)] * len(capacity))
  counts = rng.multinomial(total, weights)
  while (counts > capacity).any():
    excess = int(np.maximum(counts - capacity, 0).sum())
    counts = np.minimum(counts, capacity)
    room = np.where(counts < capacity, weights, 0)
    for _ in range(excess):
      counts[rng.choice(len(counts), p=room / room.sum())] += 1
  return counts


@pytest.mark.parametrize('name', ['dirichlet', 'dirichlet_0.7'])
def test_dirichlet_counts_have_their_distribution_and_caps(name):
  # Query and unlabelled rows take 15 of the 6 + 5 + 40 left by the support.
  dataset = helpers.make_dataset([6 + 2, 5 + 2, 40 + 2])
  config = helpers.make_config(proportions=name)
  keys = episodes.train_keys(3, 0, 3000)
  episode = episodes.make_draw(config, dataset, train=False)(keys)
  episode = helpers.to_numpy(episode)
  assert episode.query.y.shape == (3000, 9)
  assert episode.extra['unlabelled_y'].shape == (3000, 6)
  helpers.assert_rows_and_labels_agree(episode, dataset)
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
    frequencies = [
      np.bincount(n[:, c], minlength=16) / 3000 for n in (counts, expected)
    ]
    np.testing.assert_allclose(*frequencies, atol=0.045)
  # Queries and unlabelled rows follow the same proportions.
  halves = [(y[:, part] == 2).mean(axis=1) for part in (slice(9), slice(9, 15))]
  assert np.corrcoef(halves)[0, 1] > 0.3


def test_controls_come_beside_the_unlabelled_images():
  episode = helpers.draw(
    shift='noise', inner_data='noise', cond_data='other', emit_from='mean'
  )
  context = episode.support.context
  assert set(context) == {'inner', 'cond', 'emit_from'}
  assert context['inner'].shape == context['cond'].shape == (60, 6, 3, 3, 1)
  noise = context['inner']
  assert noise.min() == 0 and noise.max() == 1
  assert abs((noise == 0).mean() - 0.159) < 0.03
  supports = context['emit_from']
  assert supports.x.shape == (60, 64, 12, 3, 3, 1)
  assert supports.y.shape == (60, 64, 12)
  assert (supports.y == episode.support.y[:, None]).all()
  rows = helpers.rows_of(supports.x[:2, :, :6], helpers.TRAINING_SET)[..., 0]
  classes = helpers.class_of(rows, helpers.TRAINING_SET)
  assert len(np.unique(classes.reshape(128, 6), axis=0)) > 20


def test_other_data_are_those_of_another_episode():
  episode = helpers.draw(inner_data='other', emit_from='other')
  context = episode.support.context
  assert set(context) == {'inner', 'emit_from'}
  rows = helpers.rows_of(context['inner'])[..., 0]
  assert all(len(set(r)) == len(r) for r in rows)
  classes = np.sort(helpers.class_of(rows), axis=1)
  assert (classes >= 0).all()
  # Two of each of three classes, drawn without regard to those of the episode.
  assert (classes[:, ::2] == classes[:, 1::2]).all()
  support_classes = np.sort(episode.extra['class_ids'], axis=1)
  assert 0 < (classes[:, ::2] == support_classes).all(axis=1).mean() < 0.2
  supports = context['emit_from']
  assert supports.x.shape == (60, 1, 12, 3, 3, 1)
  rows = helpers.rows_of(supports.x, helpers.TRAINING_SET)[..., 0]
  assert (helpers.class_of(rows, helpers.TRAINING_SET) >= 0).all()


def test_other_data_have_another_shift():
  episode = helpers.draw(
    shift='polarity', inner_data='other', cond_data='other'
  )
  context = episode.support.context
  np.testing.assert_array_equal(context['inner'], context['cond'])
  brightest = [
    (1 - x).max(axis=(1, 2, 3, 4)) for x in (episode.query.x, context['inner'])
  ]
  assert abs(np.corrcoef(brightest)[0, 1]) < 0.5


def test_unlabelled_images_of_other_classes_share_only_the_shift():
  own = helpers.draw()
  episode = helpers.draw(unlabelled_classes='other')
  np.testing.assert_array_equal(own.query.x, episode.query.x)
  np.testing.assert_array_equal(own.query.y, episode.query.y)
  np.testing.assert_array_equal(own.support.x[:, :6], episode.support.x[:, :6])
  assert (episode.extra['unlabelled_y'] >= 3).all()
  rows = helpers.rows_of(episode.support.x[:, 6:])[..., 0]
  classes = np.sort(helpers.class_of(rows), axis=1)
  assert (classes >= 0).all()
  for drawn, of_episode in zip(classes, episode.extra['class_ids']):
    assert not set(drawn) & set(of_episode)
  shifted = helpers.draw(shift='polarity', unlabelled_classes='other')
  brightest = [
    (1 - x).max(axis=(1, 2, 3, 4))
    for x in (shifted.query.x, shifted.support.x[:, 6:])
  ]
  assert np.corrcoef(brightest)[0, 1] > 0.95


def test_phi_from_another_episode_brings_its_images_with_their_shift():
  episode = helpers.draw(shift='polarity', phi_from='other', inner_data='other')
  context = episode.support.context
  np.testing.assert_array_equal(context['phi'], context['inner'])
  assert set(helpers.draw(phi_from='other').support.context) == {'phi'}


def test_without_inner_data_there_is_no_image():
  context = helpers.draw(inner_data='none').support.context
  assert set(context) == {'inner'}
  assert context['inner'].shape == (60, 0, 3, 3, 1)


@pytest.mark.parametrize(
  'config,message',
  [
    ({'way': 7}, 'the split: episode.way=7 takes 7 classes, there are 6'),
    (
      {'way': 4, 'unlabelled_classes': 'other'},
      'episode.way=4 and as many other classes takes 8 classes, there are 6',
    ),
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
    ({'way': 1}, 'episode.way = 1 is below its minimum 2'),
    ({'unlabelled': -1}, 'episode.unlabelled = -1 is below its minimum 0'),
    ({'proportions': 'even'}, "'even' is none of balanced, dirichlet"),
    (
      {'unlabelled_classes': 'other', 'distractors': 1},
      'leaves no unlabelled image of an own class, so set episode.distractors',
    ),
    ({'inner_data': 'fake'}, "inner_data = 'fake' is none of true, noise"),
    ({'emit_from': 'all'}, "emit_from = 'all' is none of own, mean, other"),
    ({'augment': 'flip'}, "data.augment = 'flip' is none of auto, none, rot90"),
    ({'shift': 'snow'}, "unknown shift 'snow'"),
  ],
)
def test_a_config_that_does_not_fit_is_refused_before_tracing(config, message):
  config = helpers.make_config(**config)
  with pytest.raises(core.BadInput, match=message):
    episodes.check_fits(config, helpers.DATASET, 'the split')
  with pytest.raises(core.BadInput):
    episodes.make_draw(config, helpers.DATASET, train=True)


def test_a_config_that_just_fits_is_drawn():
  for config in (
    {'way': 6, 'query': 3},
    {'query': 3, 'unlabelled': 0, 'proportions': 'dirichlet_0.7', 'shot': 4},
  ):
    episodes.check_fits(
      helpers.make_config(**config), helpers.DATASET, 'the split'
    )
    x = helpers.draw(**config).query.x
    assert (helpers.class_of(helpers.rows_of(x)[..., 0]) >= 0).all()


def test_a_data_set_that_does_not_fit_the_config_is_refused():
  oblong = helpers.DATASET._replace(images=np.zeros((80, 2, 3, 1), np.uint8))
  with pytest.raises(core.BadInput, match='square images, got 2x3'):
    episodes.make_draw(helpers.make_config(augment='rot90'), oblong, train=True)
  config = helpers.make_config(emit_from='mean')
  make = functools.partial(
    episodes.make_draw, config, helpers.DATASET, train=False
  )
  with pytest.raises(core.BadInput, match="emit_from='mean' needs the train"):
    make()
  with pytest.raises(core.BadInput, match=r'data\.image_size'):
    make(training_set=oblong)
  with pytest.raises(core.BadInput, match=r'training set: episode\.way=3'):
    make(training_set=helpers.make_dataset([9, 9]))
