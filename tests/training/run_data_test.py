"""A run remembers the classes of its data and is held to them."""

import json

import numpy as np
import pytest

from configs import protonet
from hyperudl.training import run_data
from hyperudl.training import setup
from tests.testing import errors
from tests.testing import image_sets
from tests.testing import runs


def save(folder, letters, channels=None, per_class=8, **more):
  images = np.stack(
    [
      image_sets.pixels(1, per_class, 16, channels, seed=ord(letter))[0]
      for letter in letters
    ]
  )
  image_sets.save(folder, images=images, class_names=list(letters), **more)


def config_of(folder, **data):
  config = protonet.get_config('set,way=2,shot=1,query=2').unlock()
  config.data.update({'dir': str(folder), 'augment': 'none', **data})
  return config


def stored(tmp_path, config):
  """The config as a command reads it that goes on with its run."""
  _, record = run_data.load_training(config)
  run_data.write(tmp_path, record)
  return run_data.attach(config, tmp_path, False)


LETTERS = 'abcdefghijkl'


def test_classes_per_split_and_the_shape_of_images_are_stored(tmp_path):
  save(tmp_path, LETTERS)
  stored(tmp_path, config_of(tmp_path))
  record = json.loads((tmp_path / run_data.FILE).read_text())
  size = {'height': 16, 'width': 16, 'channels': 1}
  assert record['inputs'] == {**size, 'polarity': 'any', 'fit': 'pad'}
  assert run_data.read_inputs(tmp_path).to_dict() == record['inputs']
  classes = record['split']['classes']
  assert [len(classes[s]) for s in ('train', 'valid', 'test')] == [8, 2, 2]
  assert sorted(''.join(map(''.join, classes.values()))) == sorted(LETTERS)


def test_what_drawings_in_folders_look_like_is_stored(tmp_path):
  for number, name in enumerate(LETTERS):
    for row in range(4):
      drawing = np.zeros((20, 10), np.uint8)
      drawing[5:15, 3 + row] = 255 - 10 * number
      image_sets.draw(tmp_path / 'set' / name / f'{row}.png', drawing)
  _, record = run_data.load_training(config_of(tmp_path, image_size=8))
  size = {'height': 8, 'width': 8, 'channels': 1}
  expected = {**size, 'polarity': 'light_on_dark', 'fit': 'squash'}
  assert record['inputs'] == expected


def test_a_run_that_does_not_say_what_its_images_are_is_refused(tmp_path):
  assert 'data.json' in errors.refusal(run_data.read_inputs, tmp_path)
  (tmp_path / run_data.FILE).write_text('{"inputs": {"height": 3}}')
  assert 'train again' in errors.refusal(run_data.read_inputs, tmp_path)


@pytest.mark.parametrize('split', ['train', 'valid', 'test'])
def test_a_class_added_after_training_is_refused_by_name(tmp_path, split):
  save(tmp_path, LETTERS)
  config = stored(tmp_path, config_of(tmp_path))
  run_data.load(config, split)
  save(tmp_path, LETTERS + 'z')
  assert "'z' is new" in errors.refusal(run_data.load, config, split)
  assert "'z' is new" in errors.refusal(run_data.load_training, config)


def test_new_classes_go_to_test_where_they_are_allowed(tmp_path):
  save(tmp_path, LETTERS)
  config = stored(tmp_path, config_of(tmp_path))
  train = run_data.load(config, 'train').class_names
  save(tmp_path, 'A' + LETTERS)
  allowed = run_data.attach(config, tmp_path, True)
  assert run_data.load(allowed, 'train').class_names == train
  assert 'A' in run_data.load(allowed, 'test').class_names
  dataset, record = run_data.load_training(allowed)
  assert dataset.class_names == train
  assert 'A' in record['split']['classes']['test']


def test_another_data_set_is_not_held_to_the_run(tmp_path):
  save(tmp_path, LETTERS)
  config = stored(tmp_path, config_of(tmp_path)).copy_and_resolve_references()
  with config.unlocked():
    config.data.dataset = 'other'
  image_sets.save(tmp_path, 'other', images=image_sets.pixels(9, 8, 16))
  assert len(run_data.load(config, 'train').class_names) == 6


def test_colour_photographs_are_refused_by_a_model_of_gray_ones(tmp_path):
  save(tmp_path, LETTERS)
  config = stored(tmp_path, config_of(tmp_path)).copy_and_resolve_references()
  with config.unlocked():
    config.data.dataset = 'photos'
  images = image_sets.pixels(9, 8, 16, channels=3)
  image_sets.save(tmp_path, 'photos', images=images)
  message = errors.refusal(run_data.load, config, 'test')
  assert 'images of 3 channels, and the run was trained on images of 1' in (
    message
  )


@pytest.mark.parametrize('text', ['', '{}', '[1]', '{"data": 3}', '{"split":'])
def test_a_damaged_record_is_one_line(tmp_path, text):
  save(tmp_path, LETTERS)
  config = stored(tmp_path, config_of(tmp_path))
  (tmp_path / run_data.FILE).write_text(text)
  message = errors.refusal(run_data.load, config, 'train')
  assert f'{tmp_path}/data.json: cannot be read' in message


def test_twelve_classes_are_refused_where_five_ways_cannot_be_tested(tmp_path):
  save(tmp_path, LETTERS, per_class=20)
  config = config_of(tmp_path)
  config.episode.way = 5
  message = errors.refusal(setup.prepare, config)
  assert message.startswith('valid: episode.way=5 takes 5 classes, there are 2')
  assert "(data.split_by='image')" in message
  config.data.split_by = 'image'
  config.episode.query = 1
  setup.prepare(config)


def test_the_smallest_class_is_named(tmp_path):
  images = image_sets.pixels(1, 25, 16)[0]
  labels = np.repeat(np.arange(9), [3, 3, 3, 2, 3, 3, 3, 3, 2])
  image_sets.save(tmp_path, images=images, labels=labels, split=['train'] * 9)
  message = errors.refusal(setup.prepare, config_of(tmp_path))
  assert "the smallest class is 'class0003'" in message


def test_a_set_without_a_valid_part_can_be_trained_on(tmp_path, warnings):
  split = ['train'] * 8 + ['test'] * 4
  save(tmp_path, LETTERS, split=split)
  setup.prepare(config_of(tmp_path))
  assert 'no class in split valid' in warnings[0]


def test_images_that_are_all_white_are_refused(tmp_path):
  images = np.full((12, 8, 16, 16), 255, np.uint8)
  image_sets.save(tmp_path, images=images)
  message = errors.refusal(setup.prepare, config_of(tmp_path))
  assert 'all pixels of all images are 255' in message


@pytest.mark.slow
def test_resume_and_evaluate_refuse_a_set_with_a_new_class(tmp_path):
  save(tmp_path, LETTERS)
  workdir = tmp_path / 'run'
  flags = runs.tiny_flags(
    workdir, f'--config.data.dir={tmp_path}', steps=10, variant='set'
  )
  flags.append('--config.episode.way=2')
  assert runs.call('train', *flags).code == 0
  save(tmp_path, LETTERS + 'z')
  longer = [*flags, '--config.steps=10', '--config.eval.batch=5']
  resumed, *evaluated = (
    runs.call('train', *longer),
    runs.call('evaluate', f'--workdir={workdir}', '--once'),
    runs.call('evaluate', f'--workdir={workdir}'),
    runs.call(
      'evaluate', f'--workdir={workdir}', '--once', '--allow_new_classes'
    ),
  )
  assert [r.code for r in (resumed, *evaluated)] == [2, 2, 2, 0]
  for result in (resumed, *evaluated[:2]):
    assert "('z' is new" in result.err.splitlines()[-1]
    assert 'Traceback' not in result.err
  again = runs.call('train', *longer, '--allow_new_classes')
  assert again.code == 0, again.err
  plain = runs.call('evaluate', f'--workdir={workdir}', '--once')
  assert plain.code == 0, plain.err
