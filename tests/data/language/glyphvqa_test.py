"""Scenes, questions and answers of the built-in tasks with language."""

import jax
import numpy as np
import pytest

from hyperudl.data.language import glyphvqa
from hyperudl.data.language import glyphvqa_words
from hyperudl.data.language import glyphvqa_world
from hyperudl.data.language import task_set
from tests.testing import errors
from tests.testing import glyphvqa as helper


def test_values_of_a_scene_are_all_different_and_visible_in_its_pixels():
  values, pixels = helper.world().scenes('train')
  assert values.shape == (1500, 4, 4) and pixels.shape == (1500, 28, 28, 3)
  for attribute in range(4):
    ordered = np.sort(values[..., attribute], axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
  # The corners of a tile have its colour; the ink is the darkest or so.
  tiles = np.array(list(glyphvqa_words.TILES.values()))
  for number in range(50):
    for tile in range(4):
      row, column = divmod(tile, 2)
      corner = pixels[number, 14 * row, 14 * column].astype(int)
      nearest = np.abs(tiles - corner).sum(axis=1)[:4].argmin()
      assert nearest == values[number, tile, 1]


def test_answers_are_those_of_the_tile_that_the_question_means():
  w, tasks = helper.world(), helper.load('train')
  values, _ = w.scenes('train')
  checked = 0
  for number, (pair, _) in enumerate(w.tasks('train', 'wording')):
    attribute, value, asked = w.pairs[pair]
    a, b = (glyphvqa_world.ATTRIBUTES.index(x) for x in (attribute, asked))
    for row, y in zip(tasks.support[number][:5], tasks.support_y[number][:5]):
      (tile,) = np.flatnonzero(values[row, :, a] == value)
      assert values[row, tile, b] == y
      checked += 1
    name = str(w.values[attribute][value])
    assert name in tasks.names[number]
    bare, full = (
      glyphvqa_words.statements(w.values, w.pairs[pair], full=full)
      for full in (False, True)
    )
    assert f' {name} ' not in f' {" ".join(bare)} '
    assert name in full[0]
  assert checked > 500


@pytest.mark.parametrize('level', helper.LEVELS)
def test_held_out_pairs_and_wordings_are_in_no_training_string(level):
  w = helper.world()
  pairs = {s: {p for p, _ in w.tasks(s, level)} for s in ('train', 'test')}
  wordings = {s: {q for _, q in w.tasks(s, level)} for s in ('train', 'test')}
  mixed = helper.load('train', level, 'mixed')
  texts = {text for names in mixed.names for text in [names]}
  words = {i + 1: word for i, word in enumerate(mixed.words)}
  for prompts in mixed.answers.reshape(-1, mixed.answers.shape[-1]):
    texts.add(' '.join(words[i] for i in prompts if i))
  test_questions = set(helper.load('test', level).names)
  assert not texts & test_questions
  if level == 'wording':
    assert pairs['test'] == pairs['train']
    assert not wordings['test'] & wordings['train']
    return
  assert not pairs['test'] & pairs['train']
  # Neither a statement nor a question puts a held-out pair together.
  for pair in pairs['test']:
    asked = w.pairs[pair][2]
    start = glyphvqa_words.STATEMENTS[asked].split(' {}')[0]
    for text in texts:
      has_referent = glyphvqa_words.referent(w.values, w.pairs[pair]) in text
      has_attribute = (
        text.startswith(start) or f'the {glyphvqa_words.NAMED[asked]}' in text
      )
      assert not (has_referent and has_attribute), (text, w.pairs[pair])


def test_valid_and_test_have_scenes_and_drawers_of_their_own():
  w = helper.world()
  _, train = w.scenes('train')
  _, test = w.scenes('test')
  known = {image.tobytes() for image in train}
  assert not any(image.tobytes() in known for image in test)
  assert len(test) == 500


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
  again = glyphvqa.load('train', helper.DIR, task_set.LanguageConfig('tiny'))
  jax.tree.map(np.testing.assert_array_equal, helper.load('train'), again)
  other = helper.load('train', seed=1)
  assert (other.images != again.images).any()


def test_an_unknown_split_is_refused():
  message = errors.refusal(
    glyphvqa.load, 'training', helper.DIR, task_set.LanguageConfig('tiny')
  )
  assert "split='training'; expected one of train, valid, test" in message


@pytest.mark.parametrize('level', helper.LEVELS)
def test_every_split_has_the_same_number_of_ways(level):
  for split in ('train', 'valid', 'test'):
    for seed in range(3):
      assert helper.load(split, level, seed=seed).mask.shape[1] == 4
