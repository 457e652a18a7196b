"""Scenes, questions and answers of the built-in tasks with language."""

import functools

import jax
import numpy as np
import pytest

from configs import contrastive as contrastive_config
from configs import hyperclip as clip_config
from configs import hypernet as hypernet_config
from hyperudl.data import episodes
from hyperudl.data.language import episodes as language_episodes
from hyperudl.data.language import glyphvqa
from hyperudl.data.language import glyphvqa_words
from hyperudl.data.language import glyphvqa_world
from hyperudl.data.language import task_set
from hyperudl.evaluation import evaluator
from hyperudl.ops import losses
from tests.testing import errors

DIR = 'data_numpy_dir'


LEVELS = ('wording', 'semantic')


@functools.cache
def load(split, level='wording', answers='bare', seed=0):
  config = task_set.LanguageConfig('tiny', level, answers, seed)
  return glyphvqa.load(split, DIR, config)


@functools.cache
def world():
  return glyphvqa_world.World(DIR, 'tiny', 0)


def test_values_of_a_scene_are_all_different_and_visible_in_its_pixels():
  values, pixels = world().scenes('train')
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
  w, tasks = world(), load('train')
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


@pytest.mark.parametrize('level', LEVELS)
def test_held_out_pairs_and_wordings_are_in_no_training_string(level):
  w = world()
  pairs = {s: {p for p, _ in w.tasks(s, level)} for s in ('train', 'test')}
  wordings = {s: {q for _, q in w.tasks(s, level)} for s in ('train', 'test')}
  mixed = load('train', level, 'mixed')
  texts = {text for names in mixed.names for text in [names]}
  words = {i + 1: word for i, word in enumerate(mixed.words)}
  for prompts in mixed.answers.reshape(-1, mixed.answers.shape[-1]):
    texts.add(' '.join(words[i] for i in prompts if i))
  test_questions = set(load('test', level).names)
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
  w = world()
  _, train = w.scenes('train')
  _, test = w.scenes('test')
  known = {image.tobytes() for image in train}
  assert not any(image.tobytes() in known for image in test)
  assert len(test) == 500


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
  again = glyphvqa.load('train', DIR, task_set.LanguageConfig('tiny'))
  jax.tree.map(np.testing.assert_array_equal, load('train'), again)
  other = load('train', seed=1)
  assert (other.images != again.images).any()


@pytest.mark.parametrize(
  'choice',
  [{'size': 'huge'}, {'level': 'words'}, {'answers': 'all'}],
)
def test_an_unknown_choice_is_refused(choice):
  ((name, value),) = choice.items()
  message = errors.refusal(task_set.LanguageConfig, **choice)
  assert message.startswith(f'config.language.{name} = {value!r} is none of ')


def test_an_unknown_split_is_refused():
  message = errors.refusal(
    glyphvqa.load, 'training', DIR, task_set.LanguageConfig('tiny')
  )
  assert "split='training'; expected one of train, valid, test" in message


def config_of(**changes):
  config = hypernet_config.get_config('set=tiny').unlock()
  config.episode.update(changes)
  return config


def test_an_evaluation_asks_each_task_once_with_its_own_images():
  tasks = load('test')
  draw = episodes.make_draw(config_of(), tasks, train=False)
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
  tasks = load('test', 'semantic')
  wordings = [w.split() for w in tasks.names]
  assert len(np.unique(tasks.groups)) == len(world().pairs_of_split['test'])
  for group in np.unique(tasks.groups):
    here = np.flatnonzero(tasks.groups == group)
    assert len(here) == len(glyphvqa_words.WORDINGS)
    assert len({tasks.answer_names[i] for i in here}) == 1
    assert len({tuple(wordings[i]) for i in here}) == len(here)
  draw = episodes.make_draw(config_of(), tasks, train=False)
  numbers = np.arange(9)
  episode = draw(episodes.eval_keys('test', 0, 9), numbers)
  np.testing.assert_array_equal(episode.extra['group'], tasks.groups[numbers])


@pytest.mark.parametrize('train', [True, False])
def test_an_episode_depends_on_its_key_alone_and_never_repeats_an_image(train):
  tasks = load('train')
  draw = episodes.make_draw(config_of(), tasks, train=train)
  keys = episodes.train_keys(0, 3, 6)
  all_of_them, one = draw(keys), draw(keys[4:5])
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[4], b[0]), all_of_them, one
  )
  x = np.concatenate([one.support.x[0], one.query.x[0]])
  assert len({image.tobytes() for image in x}) == len(x)


def test_rows_that_a_task_lacks_have_no_label():
  tasks = load('test')
  short = tasks._replace(
    query=np.where(np.arange(tasks.query.shape[1]) < 5, tasks.query, -1),
    query_y=np.where(np.arange(tasks.query.shape[1]) < 5, tasks.query_y, -1),
  )
  draw = episodes.make_draw(config_of(), short, train=False)
  episode = draw(episodes.eval_keys('test', 0, 2), np.arange(2))
  assert ((episode.query.y >= 0).sum(axis=1) == 5).all()
  # A perfect answer to the five is a perfect answer.
  logits = jax.nn.one_hot(episode.query.y[0], 4)
  assert losses.accuracy(logits, episode.query.y[0]) == 1


def test_a_task_of_few_images_has_queries_in_training():
  tasks = load('train')
  few = np.arange(tasks.support.shape[1]) < 6
  cut = {
    name: np.where(few, getattr(tasks, name), -1)
    for name in ('support', 'support_y', 'query', 'query_y')
  }
  small = tasks._replace(**cut)
  draw = episodes.make_draw(config_of(shot=4, query=2), small, train=True)
  episode = draw(episodes.train_keys(0, 0, 20))
  # 12 images for 16 support rows and 8 queries.
  np.testing.assert_array_equal((episode.support.y >= 0).sum(axis=1), 8)
  np.testing.assert_array_equal((episode.query.y >= 0).sum(axis=1), 4)
  support = episode.support.x[0][episode.support.y[0] >= 0]
  query = episode.query.x[0][episode.query.y[0] >= 0]
  images = np.concatenate([support, query])
  assert len({image.tobytes() for image in images}) == 12


@pytest.mark.parametrize('level', LEVELS)
def test_every_split_has_the_same_number_of_ways(level):
  for split in ('train', 'valid', 'test'):
    for seed in range(3):
      assert load(split, level, seed=seed).mask.shape[1] == 4


def test_an_episode_of_tasks_has_no_task_twice():
  tasks = load('test')
  count = len(tasks.names)
  draw = episodes.make_draw(config_of(tasks=9), tasks, train=False)
  drawn = draw(episodes.train_keys(0, 0, 5)).extra['task'].argmax(axis=-1)
  assert all(len(set(row)) == 9 for row in np.asarray(drawn))
  # An evaluation asks each once.
  keys = episodes.eval_keys('test', 0, count // 9)
  asked = draw(keys, np.arange(count // 9)).extra['task'].argmax(axis=-1)
  np.testing.assert_array_equal(np.sort(asked.ravel()), np.sort(tasks.ids))


def test_groups_of_tasks_and_pixels_on_disk_give_the_same_episodes():
  tasks = load('train')
  draw = episodes.make_draw(config_of(tasks=3), tasks, train=True)
  keys = episodes.train_keys(0, 0, 2)
  episode = draw(keys)
  assert episode.support.y.shape[:2] == (2, 3)
  assert episode.extra['unlabelled_y'].shape == (2, 3, 0)
  config = config_of(tasks=3)
  config.data.device_mb = 0
  on_disk = episodes.make_draw(config, tasks, train=True)
  jax.tree.map(np.testing.assert_array_equal, episode, on_disk(keys))


def test_images_are_asked_about_by_other_tasks():
  tasks, w = load('train', answers='mixed'), world()
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


def test_tasks_without_labels_get_those_of_their_own_images():
  tasks = load('train')
  own = task_set.with_labels(tasks._replace(labels=None, label_rows=None))
  whole = task_set.with_labels(tasks)
  assert whole is tasks
  labels = own.labels[own.label_rows]
  known = labels >= 0
  rows = np.concatenate([tasks.support, tasks.query], axis=1)
  np.testing.assert_array_equal(known.sum(axis=1), (rows >= 0).sum(axis=1))
  every = tasks.labels[tasks.label_rows]
  np.testing.assert_array_equal(labels[known], every[known])
  assert (every >= 0).sum() > known.sum()


def test_tasks_in_another_order_are_the_same_tasks():
  tasks = load('train')
  count = len(tasks.names)
  latents = np.arange(2.0 * count * 3).reshape(2, count, 3)
  tasks = tasks._replace(latents=latents)
  order = np.random.default_rng(0).permutation(count)
  moved = task_set.reordered(tasks, order)
  assert sorted(order) == list(range(count)) and list(order) != sorted(order)
  for new, old in enumerate(order):
    assert moved.names[new] == tasks.names[old]
    assert moved.answer_names[new] == tasks.answer_names[old]
  unmoved = {'images', 'total', 'words', 'labels', 'captions'}
  unmoved |= {'names', 'answer_names'}
  for name in {*tasks._fields} - unmoved - {'latents'}:
    values, expected = getattr(moved, name), getattr(tasks, name)[order]
    np.testing.assert_array_equal(values, expected, name)
  np.testing.assert_array_equal(moved.latents, latents[:, order])


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
  config = config_of(**{field: value})
  message = errors.refusal(
    language_episodes.check, config, load('test'), 'test'
  )
  assert message.startswith(f'config.episode.{field} = {value!r}')


@pytest.mark.parametrize('field', ['shot', 'query'])
def test_more_rows_than_any_task_has_are_reported(field, caplog):
  tasks = load('test')
  rows = tasks.support if field == 'shot' else tasks.query
  config = config_of(**{field: rows.shape[1] // tasks.mask.shape[1]})
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
