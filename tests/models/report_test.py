"""What a task reports of itself, by hand and by adapting again."""

import math

import numpy as np
import pytest

from hyperudl.models import report
from tests.testing import models


@pytest.mark.parametrize('norm', ['batch', 'layer'])
def test_leave_one_out_is_adapting_without_each_image(norm):
  model, (x, y) = models.make(norm=norm), models.support()
  assert model.programs.skips_rows == (norm == 'layer')
  task = model.adapt(x, y)
  p = []
  for row in range(len(y)):
    rest = np.arange(len(y)) != row
    p.append(model.adapt(x[rest], y[rest]).predict_proba(x[row : row + 1])[0])
  np.testing.assert_allclose(task.left_out.p, p, atol=1e-6)
  found = task.report['leave_one_out']
  correct = (np.argmax(p, axis=1) == np.repeat(range(3), 2)).sum()
  assert found['accuracy'] == correct / 6 and found['images'] == 6
  assert found['ci95'] == report.interval(correct, 6)
  assert task.report['classes'] == dict.fromkeys(models.CLASSES, 2)
  assert task.report['label_next'] == [] and task.report['adaptation'] == {}


def test_the_interval_is_wilsons():
  n, p, z = 20, 15 / 20, 1.959963984540054
  centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
  half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
  np.testing.assert_allclose(
    report.interval(15, 20), (centre - half, centre + half)
  )


def test_one_image_of_each_class_cannot_be_left_out():
  task = models.make().adapt(*models.support(shots=1))
  found = task.report['leave_one_out']
  assert found['accuracy'] is None and 'only one image' in found['problem']
  x, y = models.support()
  some = models.make().adapt(x[1:], y[1:])
  assert some.left_out.y.tolist() == [1, 1, 2, 2]  # the first class has one


@pytest.mark.slow
def test_udl_reports_its_gate_and_steps_and_what_to_label_next():
  others = models.pixels(5, seed=2)
  task = models.make('udl').adapt(*models.support(), unlabelled=others)
  adaptation = task.report['adaptation']
  assert 0 < adaptation['gate'] < 1
  assert adaptation['inner_update_norm'] > 0
  p = task.predict_proba(others).astype(float)
  entropies = -(p * np.log(p)).sum(axis=1)
  rows, values = zip(*task.report['label_next'])
  assert list(rows) == np.argsort(-entropies).tolist()
  np.testing.assert_allclose(values, np.sort(entropies)[::-1], atol=1e-5)
