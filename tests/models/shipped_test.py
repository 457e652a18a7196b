"""The models that come with the library.

Guards: models/loading.py.
"""

import pathlib

import numpy as np
import pytest

from experiments import ship
from hyperudl.data.datasets import glyphs
from hyperudl.models import loading


def test_every_model_of_the_command_comes_with_the_library():
  assert set(loading.shipped()) == set(ship.SHIPPED)


@pytest.mark.parametrize('name', ship.SHIPPED)
def test_a_model_is_small_and_says_what_it_is(name):
  path = pathlib.Path(loading.__file__).with_name(f'{name}.npz')
  assert path.stat().st_size < 3e6
  about = loading.load(name).about
  shipped = ship.SHIPPED[name]
  assert about['card'] == shipped.card and about['licence'] == shipped.licence
  assert about['calibration'] and len(about['metrics']) > 1
  assert all(each['episodes'] >= 600 for each in about['metrics'].values())


def test_glyphs_reads_characters_it_never_saw_one_image_each():
  test = np.flatnonzero(glyphs.describe_classes()['split'] == 'test')[::40][:5]
  images = glyphs.generate()[test]  # u8[5, 20, 28, 28]
  labels = [str(c) for c in range(len(test))]
  task = loading.load('glyphs').adapt(images[:, 0], labels)
  queries = images[:, 10:].reshape(-1, 28, 28)
  found = task.predict(queries).reshape(len(test), -1)
  assert np.mean(found == np.array(labels)[:, None]) > 0.85
