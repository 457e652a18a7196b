"""Tasks that are embedded once give the learner what it would compute."""

import jax
import numpy as np
import pytest

from configs import hypernet as hypernet_config
from hyperudl import learners
from hyperudl.data import episodes
from hyperudl.learners._language import dual_encoder
from hyperudl.training import encode_tasks
from tests.testing import example
from tests.testing import tiny_sizes


@pytest.mark.slow
def test_embedded_tasks_give_the_same_loss_and_stay_as_they_are():
  config = hypernet_config.get_config().unlock()
  config.episode.update({'way': 3, 'shot': 3, 'query': 3})
  config.learner.update(tiny_sizes.HYPERNET)
  learner = learners.make('hypernet', 3, dict(tiny_sizes.HYPERNET))
  tasks, key = example.example_tasks(0), jax.random.key(0)
  episode_of = lambda tasks: jax.tree.map(
    lambda leaf: leaf[0],
    episodes.make_draw(config, tasks, train=True)(episodes.train_keys(0, 0, 1)),
  )
  params = learner.init(key, episode_of(tasks))
  encoder = params['frozen']['contrastive']
  embedded = encode_tasks.encode(config.learner, encoder, tasks)
  assert embedded.images.shape == (len(tasks.images), config.learner.width)
  values = [
    learner.loss(params, episode_of(each), key, 0)[0]
    for each in (tasks, embedded)
  ]
  np.testing.assert_allclose(*values, rtol=1e-5)
  towers = dual_encoder.make_towers(config.learner, config.learner.inner_width)
  words = dual_encoder.DualEncoder(towers, encoder).embed_words(
    episode_of(tasks).support.context
  )
  context = episode_of(embedded).support.context
  np.testing.assert_allclose(words.question, context['question'], rtol=1e-5)
  again = encode_tasks.encode(config.learner, encoder, embedded)
  jax.tree.map(np.testing.assert_array_equal, again, embedded)
