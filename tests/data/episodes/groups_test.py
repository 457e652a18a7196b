"""Episodes whose classes are of one alphabet."""

from absl import logging
import jax
import numpy as np
import pytest

from hyperudl.data import episodes
from hyperudl.data.episodes import groups
from tests.testing import episodes as helpers
from tests.testing import errors

ALPHABETS = ('b', 'a', 'c', 'b', 'a', 'c', 'b', 'a', 'c', 'c', 'd', 'd')
DATASET = helpers.make_dataset([9] * 12)._replace(alphabets=ALPHABETS)


def draw(dataset=DATASET, keys=helpers.KEYS, **fields):
  config = helpers.make_config(group='alphabet', **fields)
  make = episodes.make_draw
  return helpers.to_numpy(
    make(config, dataset, train=True, training_set=DATASET)(keys)
  )


def alphabets_of(class_ids):
  return np.array(ALPHABETS)[class_ids]


def refusal(dataset=DATASET, **fields):
  config = helpers.make_config(group='alphabet', **fields)
  return errors.refusal(episodes.check_fits, config, dataset, 'the set')


def test_all_classes_of_an_episode_are_of_one_alphabet():
  episode = draw()
  drawn = alphabets_of(episode.extra['class_ids'])
  assert (drawn == drawn[:, :1]).all()
  helpers.assert_rows_and_labels_agree(episode, DATASET)


def test_every_alphabet_that_suffices_is_drawn_equally_often():
  keys = episodes.train_keys(0, 0, 900)
  drawn = alphabets_of(draw(keys=keys).extra['class_ids'])[:, 0]
  names, counts = np.unique(drawn, return_counts=True)
  assert names.tolist() == ['a', 'b', 'c']  # d has two classes, and way is 3
  assert (np.abs(counts - 300) < 60).all()  # 4 standard deviations
  ids = draw(keys=keys).extra['class_ids'][drawn == 'c']
  counts = np.unique(ids, return_counts=True)[1]
  assert len(counts) == 4
  assert (np.abs(counts / counts.sum() - 1 / 4) < 0.05).all()


def test_alphabets_left_out_are_named(monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'info', lambda m, *a: lines.append(m % a))
  draw()
  (line,) = [line for line in lines if 'leaves out' in line]
  assert line.endswith('fewer than 3 classes: d')


def test_each_task_of_a_sequence_has_an_alphabet_and_no_class_comes_twice():
  ids = draw(tasks=3).extra['class_ids']
  drawn = alphabets_of(ids)
  assert (drawn == drawn[..., :1]).all()
  assert all(len(set(each.ravel())) == 9 for each in ids)
  assert {tuple(sorted(each[:, 0])) for each in drawn} == {('a', 'b', 'c')}
  ids = draw(tasks=4, way=2, query=1).extra['class_ids']
  # b and a have room for one task of two classes, c for two.
  assert all(len(set(each.ravel())) == 8 for each in ids)
  assert (alphabets_of(ids)[..., 0] == alphabets_of(ids)[..., 1]).all()


@pytest.mark.parametrize('other', [{'distractors': 1}, {}])
def test_distractors_and_other_classes_are_drawn_by_alphabet_too(other):
  fields = other or {'unlabelled_classes': 'other'}
  episode = draw(way=2, query=1, **fields)
  rows = helpers.rows_of(episode.support.x[:, 4:], DATASET)[..., 0]
  unlabelled = alphabets_of(helpers.class_of(rows, DATASET))
  own = alphabets_of(episode.extra['class_ids'])
  if other:
    assert (unlabelled == own[:, :1]).all()
  else:
    assert (unlabelled == unlabelled[:, :1]).all()
    assert (unlabelled[:, 0] != own[:, 0]).any()


def test_supports_of_other_episodes_are_of_one_alphabet():
  context = draw(emit_from='other').support.context['emit_from']
  labelled = helpers.rows_of(context.x[:, 0, :6], DATASET)[..., 0]
  drawn = alphabets_of(helpers.class_of(labelled, DATASET))
  assert (drawn == drawn[:, :1]).all()
  assert len(set(drawn[:, 0])) == 3


def test_draws_are_a_pure_function_of_the_key_and_the_same_under_jit():
  scores = jax.random.uniform(jax.random.key(3), (12,))
  group = groups.numbers(DATASET)
  assert group.tolist() == [1, 0, 2, 1, 0, 2, 1, 0, 2, 2, 3, 3]
  plain = groups.draw(jax.random.key(0), scores, group, 2, 3)
  jitted = jax.jit(lambda *call: groups.draw(*call, group, 2, 3))
  np.testing.assert_array_equal(jitted(jax.random.key(0), scores), plain)
  # Within a group, the highest scores first.
  for classes in np.asarray(plain):
    assert (np.diff(np.asarray(scores)[classes]) < 0).all()
  helpers.assert_same(
    draw(keys=helpers.KEYS[5:9]),
    jax.tree.map(lambda leaf: leaf[5:9], draw()),
  )


def test_excluded_classes_are_not_drawn():
  scores = jax.random.uniform(jax.random.key(3), (12,)).at[9].set(-1.0)
  for seed in range(20):
    key = jax.random.key(seed)
    classes = groups.draw(key, scores, groups.numbers(DATASET), 3, 3)
    assert len(set(np.ravel(classes))) == 9
    assert 9 not in np.ravel(classes)


def test_a_set_without_alphabets_or_with_small_ones_is_refused():
  assert 'have no alphabets' in refusal(helpers.make_dataset([9] * 12))
  message = refusal(way=5)
  assert 'takes 1 x 5 classes' in message
  assert "largest, 'c', has 4 classes" in message
  assert 'there are 3 x 3' in refusal(tasks=4)
