"""The loss of the image-text encoder over all questions."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.learners import contrastive
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'contrastive': laws.Laws(
    slow='compiling and training it takes too long for every run'
  )
}

WAY, LENGTH = 3, 4
SIZES = {'vocabulary': 9, 'width': 10, 'hidden': (6,), 'inner': 4}


def episode_of(asked):
  rng = np.random.default_rng(0)
  words = lambda *shape: jnp.asarray(
    rng.integers(1, 9, (*shape, LENGTH)), jnp.int32
  )
  part = lambda rows: core.Examples(
    jnp.asarray(rng.uniform(size=(rows, 4, 4, 1)), jnp.float32),
    jnp.arange(rows) % WAY,
    {'question': words(), 'answers': words(WAY), 'mask': jnp.ones(WAY)},
  )
  support, query = part(3), part(5)
  query = query._replace(context=support.context)
  extra = {}
  if asked:
    extra['asked'] = {
      'answers': words(asked, WAY),
      'mask': jnp.array([[1.0, 1, 0]] * asked),
      'y': jnp.array([[0, 1, -1, -1, 1], [-1, 0, 0, 1, -1]]),
    }
  return core.Episode(support, query, extra)


def test_the_loss_is_the_mean_over_all_pairs_with_an_answer():
  learner = contrastive.make(contrastive.Config(WAY, **SIZES))
  episode = episode_of(asked=2)
  params = learner.init(jax.random.key(0), episode)
  key = jax.random.key(1)
  value, metrics = learner.loss(params, episode, key, 0)
  # Each question separately, as in an evaluation.
  asked = episode.extra['asked']
  questions = [(episode.support.context['answers'], jnp.ones(WAY))]
  questions += list(zip(asked['answers'], asked['mask']))
  losses, hits = [], []
  for (answers, mask), y in zip(questions, [episode.query.y, *asked['y']]):
    context = {**episode.support.context, 'answers': answers, 'mask': mask}
    support = episode.support._replace(context=context)
    task = learner.adapt(params, support, key, train=False)
    logits = learner.predict(params, task, episode.query.x, None)
    p = np.asarray(jax.nn.softmax(logits))
    for row, label in enumerate(np.asarray(y)):
      if label >= 0:
        losses.append(-np.log(p[row, label]))
        hits.append(p[row].argmax() == label)
  assert len(losses) == 5 + 3 + 3
  np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy_asked'], np.mean(hits))
  # Without other questions it is the cross-entropy of one question.
  value, metrics = learner.loss(params, episode_of(asked=0), key, 0)
  np.testing.assert_allclose(value, np.mean(losses[:5]), rtol=1e-5)
  assert 'accuracy_asked' not in metrics


def test_a_scale_that_is_not_positive_is_refused():
  message = errors.refusal(contrastive.Config, WAY, scale=0.0)
  assert message == 'scale = 0.0 must be above 0'


def test_a_width_that_is_no_number_of_pairs_is_refused():
  message = errors.refusal(contrastive.Config, WAY, width=128, error=ValueError)
  assert '128' in message and message.endswith(': choose 120 or 136')
