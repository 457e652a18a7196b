"""Accuracy, forgetting and transfer of a sequence, computed by hand.

That the matrices are those of a loop over tasks is in `continual_test`.
"""

import functools

import jax.numpy as jnp
import numpy as np

from hyperudl.learners.hypertransformer import continual_metrics


def test_the_summary_of_a_matrix_by_hand():
  matrix = jnp.array(
    [[0.9, 0.7, 0.7], [0.8, 0.6, 0.7], [0.5, 0.7, 0.4]], jnp.float32
  )
  metrics = continual_metrics.summarize('class', matrix)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  near(metrics['accuracy_class'], (0.5 + 0.7 + 0.4) / 3)
  near(metrics['accuracy_class_when_met'], (0.9 + 0.6 + 0.4) / 3)
  # Entries above the diagonal were measured before the task was met.
  near(metrics['forgetting_class'], ((0.9 - 0.5) + (0.6 - 0.7)) / 2)
  near(metrics['backward_transfer_class'], ((0.5 - 0.9) + (0.7 - 0.6)) / 2)
  near(metrics['matrix_class'][0], [0.9, 0, 0])
  assert 'forgetting_class' not in continual_metrics.summarize(
    'class', matrix[:1, :1]
  )
