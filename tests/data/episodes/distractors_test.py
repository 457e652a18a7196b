"""Distractors: classes that only unlabelled rows have."""

import numpy as np
import pytest

from hyperudl import core
from hyperudl.data import episodes
from tests.testing import episodes as helpers


@pytest.mark.parametrize('proportions', ['balanced', 'dirichlet'])
def test_distractors_are_other_classes_among_the_unlabelled(proportions):
  settings = {'proportions': proportions, 'unlabelled': 3, 'query': 1}
  episode = helpers.draw(distractors=2, **settings)
  plain = helpers.draw(**settings)
  support, query = episode.support, episode.query
  assert support.x.shape[1] == 3 * 2 + 3 * 3 + 2 * 3
  y = episode.extra['unlabelled_y']
  for label in (3, 4):
    np.testing.assert_array_equal((y == label).sum(axis=1), 3)
  assert query.y.max() == 2
  classes = helpers.class_of(helpers.rows_of(support.x[:, 6:])[..., 0])
  rows = helpers.rows_of(support.x)[..., 0]
  for i in range(len(y)):
    ids = [*episode.extra['class_ids'][i]]
    others = [set(classes[i][y[i] == label]) for label in (3, 4)]
    assert all(len(other) == 1 for other in others)
    assert len(set.union(set(ids), *others)) == 5
    known = y[i] < 3
    np.testing.assert_array_equal(np.array(ids)[y[i][known]], classes[i][known])
    assert len(set(rows[i])) == len(rows[i])
  assert plain.support.x.shape[1] == 3 * 2 + 3 * 3


def test_distractors_come_at_random_places():
  episode = helpers.draw(distractors=2, unlabelled=3, query=1)
  fraction = (episode.extra['unlabelled_y'] >= 3).mean(axis=0)
  assert np.abs(fraction - 0.4).max() < 0.25


def test_rot90_turns_a_distractor_as_one_class():
  episode = helpers.draw(
    distractors=2, unlabelled=3, query=1, augment='rot90', train=True
  )
  turns = helpers.rows_of(episode.support.x[:, 6:])[..., 1]
  y = episode.extra['unlabelled_y']
  for label in range(5):
    for row_turns, labels in zip(turns, y):
      assert len(set(row_turns[labels == label])) == 1
  assert len({tuple(r[np.argsort(of)]) for r, of in zip(turns, y)}) > 10


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'distractors': -1}, 'episode.distractors = -1'),
    ({'distractors': 1, 'unlabelled': 0}, 'set episode.unlabelled >= 1'),
    ({'distractors': 1, 'transductive': True}, 'transductive=False'),
    ({'distractors': 4}, r'\(episode.way=3 \+ episode.distractors=4\) takes 7'),
    ({'distractors': 1, 'unlabelled': 8, 'way': 2}, 'the smallest class has 7'),
  ],
)
def test_impossible_distractors_are_refused(settings, message):
  with pytest.raises(core.BadInput, match=message):
    config = helpers.make_config(**{'query': 1, **settings})
    episodes.check_fits(config, helpers.DATASET, 'the set')
