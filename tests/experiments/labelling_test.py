"""Rounds of labelling, on points whose answer is known."""

import numpy as np

from experiments import labelling


def test_a_label_moves_the_mean_and_the_accuracy_by_hand():
  features = np.zeros((labelling.WAY, labelling.POOL + 2, 1))
  features += 10.0 * np.arange(labelling.WAY)[:, None, None]
  features[0, 0] = 9.0  # the labelled image of class 0 lies beside class 1
  seen = []

  def first(p):
    seen.append(p)
    return 0  # the pool is in the order of the classes

  found = labelling.curve(features, 0.1, first)
  # Means are 9, 10, 20, ...; class 0 is nearest to 9 already.
  assert found.tolist() == [1.0] * (labelling.ROUNDS + 1)
  others = labelling.WAY * (labelling.POOL - 1)
  assert [len(p) for p in seen] == [
    others - done for done in range(labelling.ROUNDS + 1)
  ]
  weights = np.exp(-0.1 * (np.array([9, 10, 20, 30, 40.0]) ** 2))
  np.testing.assert_allclose(seen[0][0], weights / weights.sum())
  weights[0] = np.exp(-0.1 * 4.5**2)  # the mean of 9 and 0
  np.testing.assert_allclose(seen[1][0], weights / weights.sum())
