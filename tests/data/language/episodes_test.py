"""Episodes of tasks with language: what is drawn, asked and refused."""

import jax
import numpy as np
import pytest

from configs import contrastive as contrastive_config
from configs import hyperclip as clip_config
from hyperudl.data import episodes
from hyperudl.data.language import episodes as language_episodes
from hyperudl.data.language import glyphvqa_words
from hyperudl.data.language import glyphvqa_world
from hyperudl.evaluation import evaluator
from hyperudl.ops import losses
from tests.testing import errors
from tests.testing import glyphvqa as helper


def test_an_evaluation_asks_each_task_once_with_its_own_images():
  tasks = helper.load('test')
  draw = episodes.make_draw(helper.config_of(), tasks, train=False)
  count = len(tasks.names)
  keys = episodes.eval_keys('test', 0, count)
  episode = draw(keys, np.arange(count))
  np.testing.assert_array_equal(episode.support.context['mask'], tasks.mask)
  chosen = episode.extra['task'].argmax(axis=1)
  np.testing.assert_array_equal(chosen, tasks.ids)
  for number in (0, 5, count - 1):
    pool = {tasks.images[r].tobytes() for r in tasks.query[number] if r >= 0}
    drawn = np.rint(np.asarray(episode.query.x[number]) * 255).astype(np.uint8)
    assert {image.tobytes() for image in drawn} <= pool
    assert len({image.tobytes() for image in drawn}) == len(drawn)


def test_wordings_of_one_question_are_one_group_of_the_evaluation():
  tasks = helper.load('test', 'semantic')
  wordings = [w.split() for w in tasks.names]
  assert len(np.unique(tasks.groups)) == len(
    helper.world().pairs_of_split['test']
  )
  for group in np.unique(tasks.groups):
    here = np.flatnonzero(tasks.groups == group)
    assert len(here) == len(glyphvqa_words.WORDINGS)
    assert len({tasks.answer_names[i] for i in here}) == 1
    assert len({tuple(wordings[i]) for i in here}) == len(here)
  draw = episodes.make_draw(helper.config_of(), tasks, train=False)
  numbers = np.arange(9)
  episode = draw(episodes.eval_keys('test', 0, 9), numbers)
  np.testing.assert_array_equal(episode.extra['group'], tasks.groups[numbers])


@pytest.mark.parametrize('train', [True, False])
def test_an_episode_depends_on_its_key_alone_and_never_repeats_an_image(train):
  tasks = helper.load('train')
  draw = episodes.make_draw(helper.config_of(), tasks, train=train)
  keys = episodes.train_keys(0, 3, 6)
  all_of_them, one = draw(keys), draw(keys[4:5])
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[4], b[0]), all_of_them, one
  )
  x = np.concatenate([one.support.x[0], one.query.x[0]])
  assert len({image.tobytes() for image in x}) == len(x)


def test_rows_that_a_task_lacks_have_no_label():
  tasks = helper.load('test')
  short = tasks._replace(
    query=np.where(np.arange(tasks.query.shape[1]) < 5, tasks.query, -1),
    query_y=np.where(np.arange(tasks.query.shape[1]) < 5, tasks.query_y, -1),
  )
  draw = episodes.make_draw(helper.config_of(), short, train=False)
  episode = draw(episodes.eval_keys('test', 0, 2), np.arange(2))
  assert ((episode.query.y >= 0).sum(axis=1) == 5).all()
  # A perfect answer to the five is a perfect answer.
  logits = jax.nn.one_hot(episode.query.y[0], 4)
  assert losses.accuracy(logits, episode.query.y[0]) == 1


def test_a_task_of_few_images_has_queries_in_training():
  tasks = helper.load('train')
  few = np.arange(tasks.support.shape[1]) < 6
  cut = {
    name: np.where(few, getattr(tasks, name), -1)
    for name in ('support', 'support_y', 'query', 'query_y')
  }
  small = tasks._replace(**cut)
  draw = episodes.make_draw(
    helper.config_of(shot=4, query=2), small, train=True
  )
  episode = draw(episodes.train_keys(0, 0, 20))
  # 12 images for 16 support rows and 8 queries.
  np.testing.assert_array_equal((episode.support.y >= 0).sum(axis=1), 8)
  np.testing.assert_array_equal((episode.query.y >= 0).sum(axis=1), 4)
  support = episode.support.x[0][episode.support.y[0] >= 0]
  query = episode.query.x[0][episode.query.y[0] >= 0]
  images = np.concatenate([support, query])
  assert len({image.tobytes() for image in images}) == 12


def test_an_episode_of_tasks_has_no_task_twice():
  tasks = helper.load('test')
  count = len(tasks.names)
  draw = episodes.make_draw(helper.config_of(tasks=9), tasks, train=False)
  drawn = draw(episodes.train_keys(0, 0, 5)).extra['task'].argmax(axis=-1)
  assert all(len(set(row)) == 9 for row in np.asarray(drawn))
  # An evaluation asks each once.
  keys = episodes.eval_keys('test', 0, count // 9)
  asked = draw(keys, np.arange(count // 9)).extra['task'].argmax(axis=-1)
  np.testing.assert_array_equal(np.sort(asked.ravel()), np.sort(tasks.ids))


def test_groups_of_tasks_and_pixels_on_disk_give_the_same_episodes():
  tasks = helper.load('train')
  draw = episodes.make_draw(helper.config_of(tasks=3), tasks, train=True)
  keys = episodes.train_keys(0, 0, 2)
  episode = draw(keys)
  assert episode.support.y.shape[:2] == (2, 3)
  assert episode.extra['unlabelled_y'].shape == (2, 3, 0)
  config = helper.config_of(tasks=3)
  config.data.device_mb = 0
  on_disk = episodes.make_draw(config, tasks, train=True)
  jax.tree.map(np.testing.assert_array_equal, episode, on_disk(keys))


def test_images_are_asked_about_by_other_tasks():
  tasks, w = helper.load('train', answers='mixed'), helper.world()
  scenes, _ = w.scenes('train')
  config = contrastive_config.get_config('set=tiny')
  with config.unlocked():
    config.episode.query, config.language.asked = 6, 9
  draw = episodes.make_draw(config, tasks, train=True)
  episode = jax.device_get(draw(episodes.train_keys(0, 0, 3)))
  asked, pairs = episode.extra['asked'], set()
  assert asked['y'].shape == (3, 9, 24)
  rows = {tasks.images[i].tobytes(): i for i in range(len(tasks.images))}
  pixels = np.rint(255 * episode.query.x).astype(np.uint8)
  strings = {task.tobytes(): i for i, task in enumerate(tasks.answers)}
  for one in range(3):
    queries = [scenes[rows[image.tobytes()]] for image in pixels[one]]
    for answers, y in zip(asked['answers'][one], asked['y'][one]):
      pair = tasks.groups[strings[answers.tobytes()]]
      attribute, value, wanted = w.pairs[pair]
      a, b = (glyphvqa_world.ATTRIBUTES.index(x) for x in (attribute, wanted))
      for scene, label in zip(queries, y):
        (tile,) = np.flatnonzero(scene[:, a] == value) if label >= 0 else [-1]
        assert label == (scene[tile, b] if label >= 0 else -1)
        assert (label >= 0) == (value in scene[:, a])
      pairs.add(pair)
  assert len(pairs) > 8
  # Evaluations and other learners have none of it.
  test = episodes.make_draw(config, tasks, train=False)
  assert 'asked' not in test(episodes.eval_keys('test', 0, 2)).extra
  config.learner.name = 'hypernet'
  message = errors.refusal(episodes.check_fits, config, tasks, 'train')
  assert 'asked = 9 is for the loss of contrastive, not of hypernet' in message


def test_tasks_that_are_evaluated_together_are_of_all_kinds():
  config = clip_config.get_config('set=tiny').unlock()
  config.episode.tasks = 12
  tester = evaluator.Evaluator(config, 'test', 2)
  group = np.asarray(tester.batch(0, 2)[0].extra['group'])
  assert group.shape == (2, 12)
  # In the order of their pairs there would be 6 or 7 in twelve.
  assert min(len(set(row)) for row in group) >= 8


@pytest.mark.parametrize(
  ('field', 'value'),
  [('way', 5), ('unlabelled', 2), ('proportions', 'dirichlet')],
)
def test_a_setting_that_is_not_for_tasks_with_language_is_refused(field, value):
  config = helper.config_of(**{field: value})
  message = errors.refusal(
    language_episodes.check, config, helper.load('test'), 'test'
  )
  assert message.startswith(f'config.episode.{field} = {value!r}')


@pytest.mark.parametrize('field', ['shot', 'query'])
def test_more_rows_than_any_task_has_are_reported(field, caplog):
  tasks = helper.load('test')
  rows = tasks.support if field == 'shot' else tasks.query
  config = helper.config_of(**{field: rows.shape[1] // tasks.mask.shape[1]})
  with caplog.at_level('WARNING', logger='absl'):
    episodes.make_draw(config, tasks, train=False)
    config.episode[field] += 1
    # Training draws from all images of a task.
    episodes.make_draw(config, tasks, train=True)
    assert not caplog.records
    draw = episodes.make_draw(config, tasks, train=False)
  (record,) = caplog.records
  assert f'episode.{field} = ' in record.getMessage()
  assert f'the largest brings {rows.shape[1]}' in record.getMessage()
  episode = draw(episodes.eval_keys('test', 0, 2), np.arange(2))
  part = episode.support if field == 'shot' else episode.query
  assert ((part.y >= 0).sum(axis=1) == rows.shape[1]).all()
