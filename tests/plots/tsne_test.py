"""The features of an episode are drawn, or an error names what is missing."""

import numpy as np
import pytest

from hyperudl import core
from hyperudl.plots import tsne
from hyperudl.storage import tensorboard
from tests.testing import runs
from tests.testing.errors import refusal


def points(seed=0):
  rng = np.random.default_rng(seed)
  y, q = np.arange(3), np.repeat(np.arange(3), 4)
  centre = 20 * rng.normal(size=(3, 5))
  near = lambda labels: centre[labels] + rng.normal(size=(len(labels), 5))
  episode = core.Episode(core.Examples(None, y), core.Examples(None, q))
  visuals = {'points/support': near(y), 'points/query': near(q)}
  generated = near(np.repeat(y, 6)).reshape(3, 6, 5)
  return episode, {**visuals, 'points/hallucinated': generated}


def test_classes_far_apart_stay_apart_in_the_picture():
  figure = tsne.draw(*points(), {'diversity': 0.5, 'nll': 1.0}, 'run')
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
  message = refusal(tsne.draw, points()[0], {}, {})
  assert 'shows its features' in message


def test_features_that_are_all_the_same_are_one_line():
  episode, visuals = points()
  flat = {name: 0 * rows for name, rows in visuals.items()}
  message = refusal(tsne.draw, episode, flat, {})
  assert 'all the same or not finite' in message
  tsne.write(None, 0, episode, flat, {})  # warns and goes on


def test_tensorboard_has_the_picture_with_its_numbers(monkeypatch):
  drawn = []
  take = lambda *args: drawn.append(args)
  monkeypatch.setattr(tensorboard, 'write_figure', take)
  tsne.write('tb', 7, *points(), {'diversity': 0.5, 'nll': 1.0})
  ((writer, step, name, figure),) = drawn
  assert (writer, step, name) == ('tb', 7, 'features')
  assert figure.axes[0].get_title() == 'step 7\ndiversity 0.50'


@pytest.mark.slow
def test_a_trained_run_is_drawn(tmp_path):
  run = runs.finished_run()
  out = tmp_path / 'features.png'
  flags = ['--kind=tsne', f'--workdir={run}', f'--out={out}']
  # 15 queries a class do not fit into this set: its own number is drawn.
  done = runs.call('plots', *flags)
  assert done.code == 0 and out.stat().st_size > 5000
