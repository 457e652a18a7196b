"""Training episodes of any number of classes and shots are what they claim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.data.episodes import spec as spec_lib
from hyperudl.data.episodes import varying
from tests.testing import episodes as helpers
from tests.testing import errors

RANGES = {'way_range': (2, 4), 'shot_range': (1, 3)}
SIZES = {**RANGES, 'query': 2, 'unlabelled': 1}


def read(**fields):
  """The spec of training with these fields."""
  return spec_lib.read(helpers.make_config(**fields), train=True)


@pytest.mark.parametrize('proportions', ['balanced', 'dirichlet'])
def test_every_row_is_an_image_of_its_class_or_left_out(proportions):
  episode = helpers.draw(train=True, proportions=proportions, **SIZES)
  episode = jax.tree.map(np.array, episode)
  y, query_y = episode.support.y, episode.query.y
  ways = np.array([len(set(labels[labels >= 0])) for labels in y])
  assert set(ways) == {2, 3, 4}
  assert y.shape == (60, 4 * 3 + 4) and query_y.shape == (60, 8)
  no_image = y == core.NO_IMAGE
  assert (episode.support.x[no_image] == 0).all()
  episode.support.x[no_image] = episode.query.x[0, 0]  # to look rows up
  rows = helpers.rows_of(episode.support.x)
  query_rows = helpers.rows_of(episode.query.x)[..., 0]
  for i, way in enumerate(ways):
    labels, shown = y[i], rows[i, :, 0]
    shots = np.bincount(labels[labels >= 0], minlength=4)
    assert (shots[:way] >= 1).all() and (shots[way:] == 0).all()
    assert (labels == -1).sum() == way  # unlabelled images
    scored = query_y[i] >= 0
    assert scored.sum() == 2 * way
    if proportions == 'balanced':
      assert (np.bincount(query_y[i][scored]) == 2).all()
    ids = episode.extra['class_ids'][i]
    hidden = episode.extra['unlabelled_y'][i]
    true = np.where(labels[12:] == -1, hidden, core.NO_IMAGE)
    np.testing.assert_array_equal(hidden, true)
    claimed = np.concatenate([labels[:12], true, query_y[i]])
    seen = np.concatenate([shown, query_rows[i]])[claimed >= 0]
    assert len(set(seen)) == len(seen)  # no image twice
    np.testing.assert_array_equal(
      helpers.class_of(seen), ids[claimed[claimed >= 0]]
    )
    # Queries that are not scored repeat others.
    assert set(query_rows[i]) == set(query_rows[i][scored])


def test_an_evaluation_has_the_way_and_shot_of_the_config():
  helpers.assert_same(helpers.draw(**RANGES), helpers.draw())
  assert set(np.unique(helpers.draw(**RANGES).support.y)) == {-1, 0, 1, 2}


def shots_of(spec, counts, draws=6_000):
  keys = jax.random.split(jax.random.key(0), draws)
  draw = jax.jit(jax.vmap(lambda key: varying.draw_shots(key, spec, counts)))
  return np.asarray(draw(keys))


@pytest.mark.parametrize('shots_per', ['episode', 'class'])
def test_numbers_have_the_stated_distributions(shots_per):
  spec = read(**RANGES, shots_per=shots_per, query=1, unlabelled=0)
  shots = shots_of(spec, jnp.full(4, 50))
  ways = (shots > 0).sum(axis=1)
  for way in (2, 3, 4):
    assert abs((ways == way).mean() - 1 / 3) < 0.02
  per_class = {k: sum(1 / m for m in range(k, 4)) / 3 for k in (1, 2, 3)}
  for k in (1, 2, 3):
    expected = per_class[k] if shots_per == 'class' else 1 / 3
    assert abs((shots[:, 0] == k).mean() - expected) < 0.02
  alike = (shots[:, 0] == shots[:, 1]).all()
  assert alike == (shots_per == 'episode')


def test_a_class_keeps_images_for_its_queries():
  spec = read(way_range=(2, 3), shot_range=(1, 9), query=2, unlabelled=1)
  shots = shots_of(spec, jnp.array([4, 8, 30]), 300)
  assert shots.max(axis=0).tolist() == [1, 5, 9]


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'tasks': 2}, 'need tasks=0, not 2'),
    ({'support_query': 'joint', 'unlabelled': 0}, "support_query='disjoint'"),
    ({'emit_from': 'other'}, "need emit_from='own', not 'other'"),
  ],
)
def test_what_needs_full_episodes_is_refused_in_training_alone(fields, words):
  config = helpers.make_config(**{**RANGES, **fields})
  assert words in errors.refusal(spec_lib.read, config, True)
  spec_lib.read(config, False)


def test_a_set_must_fill_the_largest_way_and_the_smallest_shot():
  check = lambda **fields: spec_lib.check(
    read(**fields), helpers.DATASET, 'the set'
  )
  check(way_range=(2, 6), shot_range=(2, 20), query=3, unlabelled=2)
  message = errors.refusal(check, way_range=(2, 7))
  assert message.startswith(
    'the set: episode.way_range=(2, 7) takes 7 classes, there are 6'
  )
  message = errors.refusal(check, shot_range=(3, 9), query=3, unlabelled=2)
  assert 'episode.shot_range=(3, 9) + episode.query=3' in message
