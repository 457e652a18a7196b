"""A model adapts to labelled images in any form, and is saved to the bit.

Guards: models/task.py, models/loading.py.
"""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

import hyperudl
from hyperudl.learners import protonet
from hyperudl.models import bundle
from hyperudl.models import loading
from tests.testing import errors
from tests.testing import image_sets
from tests.testing import models


@pytest.fixture(scope='module')
def task():
  return models.make().adapt(*models.support(), seed=3)


def test_predictions_are_those_of_the_nearest_class_mean():
  model = models.make(norm='layer')
  x, y = models.support()
  queries = models.pixels(5)
  found = model.adapt(x, y).predict_proba(queries)
  config = protonet.Config(way=3, channels=(6, 6), norm='layer')
  features = lambda x: np.asarray(
    protonet.embed(config, model.params, x[..., None].astype(np.float32) / 255)
  )
  means = [features(x)[y == name].mean(axis=0) for name in models.CLASSES]
  distances = ((features(queries)[:, None] - np.stack(means)) ** 2).sum(-1)
  expected = jax.nn.softmax(-np.exp(model.params['log_scale']) * distances)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_labels_may_be_strings_or_numbers(task):
  assert task.classes.tolist() == list(models.CLASSES)
  x, y = models.support()
  numbers = np.array([models.CLASSES.index(name) * 10 for name in y])
  other = models.make().adapt(list(x), numbers.tolist(), seed=3)
  assert other.classes.tolist() == [0, 10, 20]
  queries = models.pixels(4)
  p = task.predict_proba(queries)
  np.testing.assert_array_equal(other.predict_proba(queries), p)
  assert task.predict(queries).tolist() == [
    models.CLASSES[i] for i in p.argmax(axis=1)
  ]
  assert task.predict_proba(queries[:0]).shape == (0, 3)


def test_a_folder_of_class_folders_is_a_support(task, tmp_path):
  for number, (image, name) in enumerate(zip(*models.support())):
    image_sets.draw(tmp_path / name / f'{number}.png', image)
  from_folder = models.make().adapt(tmp_path, seed=3)
  queries = models.pixels(4)
  np.testing.assert_array_equal(
    from_folder.predict_proba(queries), task.predict_proba(queries)
  )


@pytest.mark.parametrize(
  'labels, words',
  [
    (None, 'give labels'),
    ([1, 2], 'one label for each image'),
    ([1] * 6, 'one class'),
    (list(range(6)), '6 classes, and this model takes at most 3'),
  ],
)
def test_faulty_labels_are_refused(labels, words):
  x, _ = models.support()
  assert words in errors.refusal(models.make().adapt, x, labels)


@pytest.mark.parametrize(
  'name', ['protonet', 'maml', pytest.param('udl', marks=pytest.mark.slow)]
)
def test_what_is_saved_predicts_to_the_bit(name, tmp_path):
  model = models.make(name)
  others = models.pixels(4, seed=9)
  task = model.adapt(*models.support(), unlabelled=others)
  queries = models.pixels(3)
  p = task.predict_proba(queries)
  task.save(tmp_path / 'task.npz')
  model.save(tmp_path / 'model.npz')
  loaded = hyperudl.load(tmp_path / 'model.npz')
  assert loaded.inputs == model.inputs and loaded.step == 7
  for other in (
    hyperudl.load_task(tmp_path / 'task.npz'),
    loaded.adapt(*models.support(), unlabelled=others),
    pickle.loads(pickle.dumps(task)),
  ):
    np.testing.assert_array_equal(other.predict_proba(queries), p)
    assert other.classes.tolist() == task.classes.tolist()


def test_a_task_is_no_model_and_a_damaged_one_is_refused(task, tmp_path):
  path = tmp_path / 'task.npz'
  task.save(path)
  assert "expected 'hyperudl-model'" in errors.refusal(hyperudl.load, path)
  arrays, meta = bundle.read(path, bundle.TASK)
  for change, words in (
    ({'classes': ['a']}, '1 classes'),
    ({'classes': list('abcd')}, '4 classes'),
    ({'seed': None}, 'damaged task'),
  ):
    bundle.write(path, arrays, {**meta, **change})
    assert words in errors.refusal(hyperudl.load_task, path)
  for name in ('adapted/task', 'support/y', 'support/x'):
    bundle.write(path, {**arrays, name: arrays[name][:1]}, meta)
    assert 'damaged task' in errors.refusal(hyperudl.load_task, path)


def test_an_unknown_model_is_refused_with_those_that_there_are(tmp_path):
  message = errors.refusal(hyperudl.load, 'glyfs')
  assert 'no model' in message
  assert all(name in message for name in loading.shipped())
  assert 'no run in' in errors.refusal(hyperudl.load, tmp_path)


def test_importing_the_library_imports_no_jax():
  code = (
    'import sys, hyperudl\n'
    "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
    "assert 'load' in dir(hyperudl)\n"
    'assert hyperudl.load.__module__ == "hyperudl.models.loading"\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  with pytest.raises(AttributeError, match='lode'):
    _ = hyperudl.lode
