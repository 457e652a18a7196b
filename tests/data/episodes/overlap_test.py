"""Draws of HyperTransformer, where a query may be an image of the support."""

import numpy as np
import pytest

from hyperudl import core
from tests.testing import episodes as helpers


def overlap(**settings):
  """(fraction of queries in the support, rows of both, episode)."""
  episode = helpers.draw(unlabelled=0, shot=3, query=2, **settings)
  support = helpers.rows_of(episode.support.x)[..., 0]
  query = helpers.rows_of(episode.query.x)[..., 0]
  fraction = [np.isin(q, s).mean() for q, s in zip(query, support)]
  return np.array(fraction), support, query, episode


def test_queries_are_drawn_independently_of_the_support():
  fraction, support, query, episode = overlap(support_query='reference')
  # 3 of the 7 to 12 images of a class are in the support: a third, about.
  assert 0.2 < fraction.mean() < 0.5
  ids, y = episode.extra['class_ids'], episode.query.y
  classes = helpers.class_of(query)
  np.testing.assert_array_equal(
    classes, np.take_along_axis(ids, y.astype(np.int64), axis=1)
  )
  for rows in (*support, *query):
    assert len(set(rows)) == len(rows)
  assert overlap()[0].max() == 0


@pytest.mark.parametrize('proportions', ['balanced', 'dirichlet'])
def test_the_support_holds_no_image_twice(proportions):
  sizes = {'shot': 3, 'query': 2, 'unlabelled': 2, 'proportions': proportions}
  episode = helpers.draw(support_query='reference', **sizes)
  support = helpers.rows_of(episode.support.x)[..., 0]
  assert all(len(set(rows)) == len(rows) for rows in support)
  query = helpers.rows_of(episode.query.x)[..., 0]
  assert all(len(set(rows)) == len(rows) for rows in query)
  # Labelled and unlabelled images are among the queries alike.
  overlaps = lambda part: np.mean(
    [np.isin(q, s).mean() for q, s in zip(query, part)]
  )
  assert overlaps(support[:, :9]) > 0.1 and overlaps(support[:, 9:]) > 0.1
  ids, y = episode.extra['class_ids'], episode.extra['unlabelled_y']
  np.testing.assert_array_equal(
    helpers.class_of(support[:, 9:]),
    np.take_along_axis(ids, y.astype(np.int64), axis=1),
  )


def test_the_support_is_that_of_disjoint_episodes():
  one, other = overlap(support_query='reference')[1], overlap()[1]
  np.testing.assert_array_equal(one, other)


def test_reference_draws_need_fewer_images_of_a_class():
  sizes = {'shot': 6, 'query': 7, 'unlabelled': 0}
  helpers.draw(support_query='reference', **sizes)
  with pytest.raises(core.BadInput, match='takes 13 images per class'):
    helpers.draw(**sizes)
  with pytest.raises(core.BadInput, match='disjoint, reference'):
    helpers.draw(support_query='overlap')


def test_a_joint_draw_is_divided_whatever_the_class():
  sizes = {'shot': 2, 'query': 3, 'unlabelled': 0}
  episode = helpers.draw(support_query='joint', **sizes)
  support = helpers.rows_of(episode.support.x)[..., 0]
  query = helpers.rows_of(episode.query.x)[..., 0]
  counts = []
  for i in range(len(support)):
    rows = np.concatenate([support[i], query[i]])
    assert len(set(rows)) == 3 * 5
    y = np.concatenate([episode.support.y[i], episode.query.y[i]])
    np.testing.assert_array_equal(np.bincount(y), [5, 5, 5])
    ids = episode.extra['class_ids'][i]
    np.testing.assert_array_equal(helpers.class_of(rows), ids[y])
    counts += np.bincount(episode.support.y[i], minlength=3).tolist()
  # 6 of 15 rows, 5 of the class: a variance of 6 (1/3) (2/3) (9/14) = .857.
  assert 0.6 < np.var(counts) < 1.15
  place = np.array(episode.support.y).mean(axis=0)
  assert np.abs(place - 1).max() < 0.45  # in random order


@pytest.mark.parametrize(
  'settings', [{'unlabelled': 1}, {'proportions': 'dirichlet'}], ids=str
)
def test_a_joint_draw_needs_labelled_images_alone(settings):
  with pytest.raises(core.BadInput, match='divides labelled images at random'):
    helpers.draw(support_query='joint', **{'unlabelled': 0, **settings})
