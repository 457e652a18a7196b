"""Captions of scenes of many letters, and the contrast among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import contrastive as contrastive_config
from hyperudl.data import episodes
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import glyphvqa_world
from hyperudl.data.language import questions
from hyperudl.data.language import task_set
from hyperudl.learners import contrastive
from tests.testing import errors

DIR = 'data_numpy_dir'


def load(answers):
  return glyphvqa.load(
    'train', DIR, task_set.LanguageConfig('tiny', answers=answers)
  )


@pytest.fixture(name='captioned')
def captioned_tasks(monkeypatch):
  """(world, scenes, mixed tasks) of ten letters, too many to be asked for."""
  size = glyphvqa_world.Size(10, 4, 400, 32)
  monkeypatch.setitem(glyphvqa_world.SIZES, 'tiny', size)
  world = glyphvqa_world.World(DIR, 'tiny', 0)
  return world, world.scenes('train')[0], load('mixed')


def config_of(**language):
  config = contrastive_config.get_config('set=tiny')
  with config.unlocked():
    config.episode.query = 3
    config.language.update(language)
  return config


def text_of(tasks, ids):
  return ' '.join(tasks.words[i - 1] for i in ids if i)


def test_captions_say_which_letter_is_where(captioned):
  world, scenes, tasks = captioned
  captions = tasks.captions
  assert captions.strings.shape[:3] == (4 + 4 + 4, 5, 10)
  subjects = [(a, v) for a in range(3) for v in range(4)]
  count = 0
  for (attribute, value), strings, labels in zip(subjects, *captions):
    name = world.values[glyphvqa_world.ATTRIBUTES[attribute]][value]
    for number, form in enumerate(strings):
      for letter, ids in zip(world.values['letter'], form):
        words = text_of(tasks, ids).split()
        assert set(name.split()) <= set(words) and 'letter' in words
        assert letter in words if number == 0 else words[-1] == letter
    for scene, label in zip(scenes, labels):
      tile = np.flatnonzero(scene[:, attribute] == value)
      if label >= 0:
        assert scene[tile[0], 3] == label
        count += 1
  assert count > 1000


def test_no_caption_is_of_a_pair_that_is_held_out(captioned):
  world, scenes, tasks = captioned
  trained = {world.pairs[pair] for pair in world.pairs_of_split['train']}
  held_out, attributes = 0, [0] * 4 + [1] * 4 + [2] * 4
  for place, labels in zip(attributes, tasks.captions.labels):
    letters = set(labels[labels >= 0].tolist())
    allowed = {
      letter
      for letter in range(10)
      if ('letter', letter, glyphvqa_world.ATTRIBUTES[place]) in trained
    }
    assert letters == allowed
    held_out += 10 - len(allowed)
  assert held_out > 0
  assert len(scenes) == tasks.captions.labels.shape[1]


def test_an_episode_has_a_caption_of_each_query_and_where_it_is_true(captioned):
  _, _, tasks = captioned
  draw = episodes.make_draw(config_of(captions=True), tasks, train=True)
  episode = jax.device_get(draw(episodes.train_keys(0, 0, 4)))
  extra = episode.extra['captions']
  assert extra['true'].shape == (4, 12, 12)
  rows = {image.tobytes(): i for i, image in enumerate(tasks.images)}
  pixels = np.rint(255 * episode.query.x).astype(np.uint8)
  forms, several = set(), 0
  for image, strings, true in zip(pixels, extra['strings'], extra['true']):
    numbers = [rows[one.tobytes()] for one in image]
    for caption, ids in enumerate(strings):
      (subject, form, letter), *_ = np.argwhere(
        (tasks.captions.strings == ids).all(axis=-1)
      )
      forms.add(int(form))
      labels = tasks.captions.labels[subject][numbers]
      assert labels[caption] == letter
      np.testing.assert_array_equal(true[:, caption], labels == letter)
      several += true[:, caption].sum() > 1
  assert forms == set(range(5)) and several > 0
  # Not in evaluations.
  test = episodes.make_draw(config_of(captions=True), tasks, train=False)
  assert 'captions' not in test(episodes.eval_keys('test', 0, 2)).extra


def test_captions_where_there_are_none_are_refused(captioned):
  del captioned
  config = config_of(captions=True)
  bare = load('bare')
  message = errors.refusal(questions.make_extras, config.language, bare)
  assert 'the training set has none' in message
  config.learner.name, config.language.asked = 'hypernet', 0
  message = errors.refusal(episodes.check_fits, config, bare, 'train')
  assert 'captions = True is for the loss of contrastive' in message


def test_the_contrast_leaves_out_other_true_captions_and_images_without_one():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 4))
  true = np.eye(4, dtype=bool)
  true[2, 2] = False  # no caption is true of the third image
  true[0, 1] = True  # the caption of the second is true of the first
  value, accuracy = contrastive.caption_contrast(
    jnp.asarray(logits), jnp.asarray(true)
  )
  losses, hits = [], []
  for i in (0, 1, 3):
    captions = [j for j in (0, 1, 3) if j == i or not true[i, j]]
    images = [j for j in range(4) if j == i or not true[j, i]]
    losses.append(
      np.log(np.exp(logits[i, captions]).sum())
      + np.log(np.exp(logits[images, i]).sum())
      - 2 * logits[i, i]
    )
    hits.append(logits[i, i] == logits[i, captions].max())
  np.testing.assert_allclose(value, np.mean(losses) / 2, rtol=1e-5)
  np.testing.assert_allclose(accuracy, np.mean(hits))


@pytest.mark.slow
def test_the_loss_is_that_of_the_answers_and_that_of_the_captions(captioned):
  _, _, tasks = captioned
  learner = contrastive.make(
    contrastive.Config(4, width=10, hidden=(6,), inner=4)
  )
  draw = episodes.make_draw(config_of(captions=True), tasks, train=True)
  episode = jax.tree.map(
    lambda leaf: leaf[0], draw(episodes.train_keys(0, 0, 1))
  )
  params = learner.init(jax.random.key(0), episode)
  both, metrics = learner.loss(params, episode, jax.random.key(1), 0)
  extra = {k: v for k, v in episode.extra.items() if k != 'captions'}
  alone, fewer = learner.loss(
    params, episode._replace(extra=extra), jax.random.key(1), 0
  )
  task = learner.adapt(params, episode.support, None, train=True)
  strings = [
    learner.adapt(
      params,
      episode.support._replace(
        context={**episode.support.context, 'question': ids}
      ),
      None,
      train=True,
    ).question
    for ids in episode.extra['captions']['strings']
  ]
  every = task._replace(answers=jnp.stack(strings), mask=jnp.ones(len(strings)))
  logits = learner.predict(params, every, episode.query.x, None)
  contrast, _ = contrastive.caption_contrast(
    logits, episode.extra['captions']['true']
  )
  np.testing.assert_allclose(both, alone + contrast, rtol=1e-5)
  assert metrics.keys() - fewer.keys() == {'accuracy_captions'}
