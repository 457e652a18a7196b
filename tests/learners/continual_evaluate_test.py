"""What `evaluate` of `continual` says, from its own predictions."""

import numpy as np
import pytest

from tests.testing import by_hand
from tests.testing import continual as helper

WAY, TASKS = helper.WAY, helper.TASKS


@pytest.mark.parametrize('scenario', ['class', 'task', 'batches'])
def test_accuracy_and_nll_are_those_of_predictions_after_all_tasks(scenario):
  params, run = helper.built(scenario=scenario)
  episode = helper.episode_of()
  if scenario == 'batches':
    episode = helper.single(episode)
  _, logits, _, _, measured = run(params, episode)
  logits, y = np.asarray(logits), np.asarray(episode.query.y)
  if scenario == 'batches':
    logits, y = logits[None], y[None]
  parts = []
  for tau, (each, target) in enumerate(zip(logits, y)):
    own = slice(WAY * tau, WAY * tau + WAY)
    if scenario == 'task':  # which is known
      each = each[:, own]
    if scenario == 'class':  # among those of all tasks
      target = target + own.start
    parts.append((each, target))
  means = [
    np.mean([metric(*part) for part in parts])
    for metric in (by_hand.accuracy, by_hand.cross_entropy)
  ]
  np.testing.assert_allclose(measured['accuracy'], means[0], rtol=1e-5)
  np.testing.assert_allclose(measured['nll'], means[1], rtol=1e-4)
  assert 0 < means[0] < 1
