"""CAML: its tokens and its logits, computed again without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl import learners
from hyperudl.nets import conv
from hyperudl.nets import label_encodings
from hyperudl.nets import transformer
from tests.testing import episodes
from tests.testing import errors
from tests.testing import laws

LAWS = {
  'caml': laws.Laws(
    slow='training it takes too long for every run',
    learning_rate=0.002,
    steps=1000,
    reason='it compares images only after a plateau of some 500 updates',
  )
}

WAY = 3
TINY = {'channels': (4, 5), 'width': 24, 'heads': 2, 'layers': 2}
SIZES = {**TINY, 'label_width': 20, 'norm': 'layer'}


def built(**settings):
  learner = learners.make('caml', WAY, {**SIZES, **settings})
  episode = episodes.episode_of(shot=2)
  return learner, jax.jit(learner.init)(jax.random.key(1), episode), episode


def logits_of(learner, params, episode):
  @jax.jit
  def run(params, episode):
    task = learner.adapt(params, episode.support, None, train=False)
    return learner.predict(params, task, episode.query.x, None)

  return run(params, episode)


def features_of(params, x):
  net = conv.ConvNet(channels=(4, 5), head=None, norm='layer')
  return net.apply({'params': params['net']}, x)


@pytest.mark.parametrize('kind', ['equiangular', 'random_table'])
def test_logits_are_read_from_the_token_of_the_query(kind):
  learner, params, episode = built(label_encoding=kind)
  support, reader = episode.support, params['reader']
  slots = label_encodings.assign(support.x, support.y, WAY)
  if kind == 'equiangular':
    vectors = label_encodings.equiangular(20) * 20**0.5
    unknown = reader['no_label']
  else:
    vectors, unknown = reader['labels'][:20], reader['labels'][20:]
  labels = jnp.stack([vectors[slots[y]] for y in support.y.tolist()])
  dense = lambda layer, x: x @ layer['kernel'] + layer['bias']
  encoder = transformer.Encoder(2, 2, inner=2.0, activation='gelu', norm='pre')
  expected = []
  for query in episode.query.x:
    x = jnp.concatenate([query[None], support.x])
    tokens = jnp.concatenate(
      [
        dense(reader['in'], features_of(params, x)),
        jnp.concatenate([unknown, labels]),
      ],
      axis=1,
    )
    read = encoder.apply({'params': reader['transformer']}, tokens)[0]
    expected.append(dense(reader['out'], read)[slots])
  got = logits_of(learner, params, episode)
  np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-4, atol=1e-5)


def test_names_and_order_of_classes_do_not_matter():
  learner, params, episode = built()
  before = logits_of(learner, params, episode)
  renamed = jnp.array([2, 0, 1])
  rows = jnp.array([3, 5, 0, 4, 1, 2])
  support = core.Examples(
    episode.support.x[rows], renamed[episode.support.y[rows]]
  )
  after = logits_of(learner, params, episode._replace(support=support))
  np.testing.assert_allclose(after[:, renamed], before, rtol=1e-4, atol=1e-5)


def test_unlabelled_images_are_read_and_other_queries_are_not():
  learner, params, episode = built()
  support = episode.support._replace(y=episode.support.y.at[5].set(-1))
  hidden = episode._replace(support=support)
  before = logits_of(learner, params, hidden)
  moved = support._replace(x=support.x.at[5].add(1.0))
  after = logits_of(learner, params, hidden._replace(support=moved))
  assert float(jnp.abs(after - before).max()) > 1e-4
  query = episode.query
  first = hidden._replace(query=core.Examples(query.x[:1], query.y[:1]))
  alone = logits_of(learner, params, first)
  np.testing.assert_allclose(alone[0], before[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'way, settings, message',
  [
    (3, {'label_width': 24}, 'above label_width = 24'),
    (3, {'heads': 5}, 'a multiple of heads = 5'),
    (3, {'label_width': 8}, 'needs a width of 20 or more'),
    (21, {}, 'has 20 vectors, and there are 21'),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(way, settings, message):
  assert message in errors.refusal(
    learners.make, 'caml', way, {**SIZES, **settings}
  )


def test_features_of_another_encoder_are_centred():
  learner, support = learners.make('caml', WAY, SIZES), jnp.arange(WAY)
  draw = lambda seed: jax.random.normal(jax.random.key(seed), (WAY, 7))
  examples = core.Examples(draw(0), support)
  episode = core.Episode(examples, core.Examples(draw(1), support))
  params = jax.jit(learner.init)(jax.random.key(2), episode)
  center = params['net']['center']
  np.testing.assert_allclose(center, draw(0).mean(axis=0), atol=1e-6)
  task = learner.adapt(params, examples, None, train=False)
  np.testing.assert_allclose(task.features, draw(0) - center, atol=1e-6)
  logits = learner.predict(params, task, draw(1), None)
  assert logits.shape == (WAY, WAY) and jnp.abs(logits).max() > 0
