"""Accuracy over shots goes through the results of one run."""

from hyperudl.plots import shots
from hyperudl.storage import metrics
from tests.testing.errors import refusal


def test_accuracy_over_shots(tmp_path):
  for k, accuracy in ((1, 0.5), (10, 0.9), (5, 0.7)):
    row = {'accuracy': accuracy, 'accuracy_ci95': 0.01}
    metrics.write_evaluation(tmp_path / 'run', f'{k}shot-test', 9, row, {})
    metrics.write_evaluation(tmp_path / 'run', f'{k}shot-full-test', 9, row, {})
  metrics.write_evaluation(tmp_path / 'run', 'other-test', 9, row, {})
  metrics.write_evaluation(tmp_path / 'run', '7shot-full-test', 9, row, {})
  (axes,) = shots.draw([tmp_path / 'run']).axes
  x, y = axes.lines[0].get_data()
  assert list(x) == [1, 5, 10] and list(y) == [0.5, 0.7, 0.9]
  (axes,) = shots.draw([tmp_path / 'run'], 'full').axes
  assert list(axes.lines[0].get_data()[0]) == [1, 5, 7, 10]
  message = refusal(shots.draw, [tmp_path])
  assert 'results of 0 numbers of shots' in message
