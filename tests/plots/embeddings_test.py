"""t-SNE and shots are drawn, or say in one line what is missing."""

import numpy as np
import pytest

from hyperudl import core
from hyperudl.plots import embeddings
from hyperudl.storage import metrics
from tests.testing import runs


def points(seed=0):
  rng = np.random.default_rng(seed)
  y, q = np.arange(3), np.repeat(np.arange(3), 4)
  centre = 20 * rng.normal(size=(3, 5))
  near = lambda labels: centre[labels] + rng.normal(size=(len(labels), 5))
  episode = core.Episode(core.Examples(None, y), core.Examples(None, q))
  shown = {'points/support': near(y), 'points/query': near(q)}
  made = near(np.repeat(y, 6)).reshape(3, 6, 5)
  return episode, {**shown, 'points/hallucinated': made}


def test_classes_far_apart_stay_apart_in_the_picture():
  figure = embeddings.tsne(*points(), {'diversity': 0.5, 'nll': 1.0}, 'run')
  (axes,) = figure.axes
  assert axes.get_title() == 'run\ndiversity 0.50'
  groups = {c.get_label(): c for c in axes.collections}
  sizes = {name: len(c.get_offsets()) for name, c in groups.items()}
  assert sizes == {'query': 12, 'support': 3, 'hallucinated': 18}
  place = groups['query'].get_offsets().data.reshape(3, 4, 2)
  within = np.linalg.norm(place - place.mean(axis=1, keepdims=True), axis=-1)
  means = place.mean(axis=1)
  between = np.linalg.norm(means[:, None] - means[None], axis=-1)
  assert within.max() < between[~np.eye(3, dtype=bool)].min()


def test_a_learner_without_features_is_one_line():
  with pytest.raises(core.BadInput, match='shows its features'):
    embeddings.tsne(points()[0], {}, {})


def test_features_that_are_all_the_same_are_one_line():
  episode, shown = points()
  flat = {name: 0 * rows for name, rows in shown.items()}
  with pytest.raises(core.BadInput, match='all the same or not finite'):
    embeddings.tsne(episode, flat, {})
  embeddings.show_tsne(None, 0, episode, flat, {})  # says so and goes on


def test_tensorboard_has_the_picture_with_its_numbers(monkeypatch):
  drawn = []
  take = lambda *args: drawn.append(args)
  monkeypatch.setattr(metrics, 'write_figure', take)
  embeddings.show_tsne('tb', 7, *points(), {'diversity': 0.5, 'nll': 1.0})
  ((writer, step, name, figure),) = drawn
  assert (writer, step, name) == ('tb', 7, 'features')
  assert figure.axes[0].get_title() == 'step 7\ndiversity 0.50'


def test_accuracy_over_shots(tmp_path):
  for k, accuracy in ((1, 0.5), (10, 0.9), (5, 0.7)):
    row = {'accuracy': accuracy, 'accuracy_ci95': 0.01}
    metrics.write_evaluation(tmp_path / 'run', f'{k}shot-test', 9, row, {})
    metrics.write_evaluation(tmp_path / 'run', f'{k}shot-full-test', 9, row, {})
  metrics.write_evaluation(tmp_path / 'run', 'other-test', 9, row, {})
  metrics.write_evaluation(tmp_path / 'run', '7shot-full-test', 9, row, {})
  (axes,) = embeddings.shots([tmp_path / 'run']).axes
  x, y = axes.lines[0].get_data()
  assert list(x) == [1, 5, 10] and list(y) == [0.5, 0.7, 0.9]
  (axes,) = embeddings.shots([tmp_path / 'run'], 'full').axes
  assert list(axes.lines[0].get_data()[0]) == [1, 5, 7, 10]
  with pytest.raises(core.BadInput, match='results of 0 numbers of shots'):
    embeddings.shots([tmp_path])


@pytest.mark.slow
def test_a_trained_run_is_drawn(tmp_path):
  run = runs.finished()
  out = tmp_path / 'features.png'
  flags = ['--kind=tsne', f'--workdir={run}', f'--out={out}']
  # 15 queries a class do not fit into this set: its own number is drawn.
  done = runs.call('plots', *flags)
  assert done.code == 0 and out.stat().st_size > 5000
