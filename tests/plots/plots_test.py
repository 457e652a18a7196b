"""Figures show the numbers of runs; nothing to plot is an error.

Guards: plots/episode.py, plots/figure.py.
"""

import numpy as np
from PIL import Image
import pytest

from hyperudl.plots import adaptation
from hyperudl.plots import clock
from hyperudl.plots import curves
from hyperudl.plots import episode as episode_plot
from hyperudl.plots import sequences
from hyperudl.storage import metrics
from hyperudl.storage import selection
from hyperudl.training import setup
from tests.testing import runs
from tests.testing.errors import refusal


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
  """(folder, results) of drawing curves and an episode."""
  folder = tmp_path_factory.mktemp('plots')
  workdir = runs.finished_run()
  copy = runs.copy(workdir, folder / 'copy')
  (folder / 'empty').mkdir()
  commands = [
    ['--kind=curves', f'--workdir={workdir},{copy}', f'--out={folder}/c.png'],
    ['--kind=episode', f'--workdir={copy}'],
    ['--kind=curves', f'--workdir={folder}/empty'],
    ['--kind=episode', f'--workdir={folder}/empty'],
    ['--kind=pie', f'--workdir={copy}'],
    [f'--workdir={copy}', f'--out={folder}/nowhere/c.png'],
  ]
  return folder, runs.call_many('plots', commands)


def test_curves_and_episodes_are_drawn(drawn):
  folder, results = drawn
  assert [result.code for result in results[:2]] == [0, 0], results[:2]
  curves = np.asarray(Image.open(folder / 'c.png').convert('RGB'))
  assert curves.shape == (480, 1200, 3)
  assert 5 < curves.std() < 127
  episode = np.asarray(Image.open(folder / 'copy' / 'episode.png'))
  assert episode.shape[1] == 1200 and episode.shape[0] >= 300
  assert episode[..., :3].std() > 5


def test_labels_have_the_names_of_their_images():
  workdir = runs.finished_run()
  config = setup.read_config(workdir)
  checkpoint = selection.restore_step(workdir, 'latest')
  drawn = episode_plot.evaluate_first(config, checkpoint)[0]
  data = setup.load_data(config, 'test')
  names = episode_plot.name_labels(drawn, data)
  assert len(names) == 3
  images = np.load(runs.data_dir() / 'tiny.npz')['images'][..., None]
  for image, label in zip(drawn.query.x, drawn.query.y):
    same = (images == np.round(image * 255)).all(axis=(2, 3, 4))
    (number,) = np.flatnonzero(same.any(axis=1))  # of the class
    name = data.class_names[number - 18]  # test classes are the last six
    assert names[label] == f'{label}: {name}' and str(number) in name


def test_nothing_to_plot_is_one_line(drawn):
  folder, results = drawn
  assert [result.code for result in results[2:]] == [2, 2, 2, 5]
  words = ('has neither train.jsonl', 'no run in', '--kind=pie', 'nowhere')
  for result, word in zip(results[2:], words):
    assert word in result.err.splitlines()[-1]
    assert 'Traceback' not in result.err
  assert not list((folder / 'empty').iterdir())


def test_adaptation_is_drawn_by_step_and_by_family(tmp_path):
  rng = np.random.default_rng(0)
  start = rng.uniform(0.2, 0.6, size=40)
  arrays = {
    'accuracy_unadapted': start,
    'accuracy_step_1': start + 0.1,
    'accuracy_step_2': start + 0.2,
    'accuracy': start + np.where(np.arange(40) < 20, 0.3, 0.1),
    'family': np.repeat([1, 11], 20),
  }
  row = {'accuracy': 0.6}
  metrics.write_evaluation(str(tmp_path), 'heldout-test', 5, row, arrays)
  figure = adaptation.draw(tmp_path)
  line = figure.axes[0].lines[0]
  np.testing.assert_allclose(
    line.get_ydata() - start.mean(), [0, 0.1, 0.2, 0.2], atol=1e-6
  )
  gains = figure.axes[1].lines[0].get_xdata()
  np.testing.assert_allclose(gains, [0.3, 0.1])
  names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
  assert names == ['contrast', 'shear']
  message = refusal(adaptation.draw, tmp_path / 'eval')
  assert 'no result with unsupervised inner steps' in message


def test_training_is_drawn_over_minutes_with_its_test_result(tmp_path):
  for name in ('small-0', 'small-1', 'large'):
    folder = tmp_path / name
    folder.mkdir()
    # 60 steps in a minute, then 60 in half a minute.
    (folder / 'train.jsonl').write_text(
      '{"step": 60, "steps_per_second": 1.0, "accuracy": 0.2}\n'
      '{"step": 120, "steps_per_second": 2.0, "accuracy": 0.6}\n'
    )
  row = {'accuracy': 0.5, 'accuracy_ci95': 0.1}
  values = {'accuracy': np.full(4, 0.5)}
  metrics.write_evaluation(str(tmp_path / 'small-1'), 'test', 120, row, values)
  folders = [tmp_path / name for name in ('small-0', 'small-1', 'large')]
  figure = clock.draw(folders)
  curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
  for line in curves:
    np.testing.assert_allclose(line.get_xdata(), [1.0, 1.5])
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.6])
  colors = [line.get_color() for line in curves]
  assert len(curves) == 3 and colors[0] == colors[1] != colors[2]
  legend = figure.axes[0].get_legend().get_texts()
  assert [text.get_text() for text in legend] == ['small', 'large']
  lines = figure.axes[0].lines
  points = [line for line in lines if len(line.get_xdata()) == 1]
  assert [1.5, 0.5] in [
    [*line.get_xdata(), *line.get_ydata()] for line in points
  ]
  message = refusal(clock.draw, [tmp_path])
  assert 'no train.jsonl with accuracies' in message


def test_sequences_are_drawn_as_the_mean_over_the_tasks_so_far(tmp_path):
  matrix = np.tril([[0.9, 0, 0], [0.7, 0.5, 0], [0.6, 0.6, 0.3]])
  noise = np.array([-0.1, 0.1])[:, None, None] * (matrix > 0)
  values = {'matrix_class': matrix + noise, 'matrix_task': matrix + noise}
  row = {'accuracy': 0.5}
  metrics.write_evaluation(str(tmp_path), 'ten-test', 5, row, values)
  figure = sequences.draw([tmp_path], 'ten')
  for axes in figure.axes:
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [0.9, 0.6, 0.5])
  message = refusal(sequences.draw, [tmp_path])
  assert "no result 'test' of sequences" in message


def test_a_curve_goes_through_the_last_result_of_each_step(tmp_path):
  path = tmp_path / 'eval' / 'test.jsonl'
  path.parent.mkdir()
  for step, value in ((10, 0.5), (20, 0.7), (10, 0.4)):
    row = {'step': step, 'accuracy': value, 'accuracy_ci95': None}
    metrics.append_jsonl(str(path), row)
  (line,) = curves.draw([tmp_path]).axes[1].lines
  assert line.get_xdata().tolist() == [10, 20]
  assert line.get_ydata().tolist() == [0.4, 0.7]
  assert 'has neither' in refusal(curves.draw, [tmp_path / 'eval'])
