"""ProtoNet: distances, refinement by unlabelled rows, and refused settings."""

import jax
import numpy as np
import pytest

from hyperudl import learners
from hyperudl.learners import protonet
from tests.testing import episodes
from tests.testing import errors

WAY, SHOT = 3, 2
TINY = {'channels': (4, 4)}


@pytest.mark.parametrize('distance', ['l2', 'cosine', 'dot'])
def test_logits_by_loops_and_with_finite_gradients(distance):
  rng = np.random.default_rng(0)
  z, c = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
  similarity = {
    'l2': lambda u, v: -np.sum((u - v) ** 2),
    'cosine': lambda u, v: u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) - 1,
    'dot': lambda u, v: u @ v,
  }[distance]
  expected = [[1.7 * similarity(u, v) for v in c] for u in z]
  config = protonet.Config(distance=distance, scale=1.7, learn_scale=False)
  logits = lambda z, c: protonet.classify(config, {}, c, z)
  np.testing.assert_allclose(logits(z, c), expected, rtol=1e-4, atol=1e-5)
  for same in (np.ones((3, 4)), np.zeros((3, 4))):
    grads = jax.grad(lambda z, c: logits(z, c).sum(), (0, 1))(same, same)
    assert all(np.isfinite(leaf).all() for leaf in grads)


def test_the_scale_is_a_parameter_only_where_it_is_learned():
  episode = episodes.episode_of()

  def names(**settings):
    learner = learners.make('protonet', WAY, {**TINY, **settings})
    return set(jax.eval_shape(learner.init, jax.random.key(0), episode))

  assert names() == {'net', 'log_scale'}
  assert names(learn_scale=False) == {'net'}


def test_prototypes_are_refined_by_soft_k_means():
  episode = episodes.episode_of(shot=SHOT, query=3, unlabelled=4)
  key = jax.random.key(0)
  learner = learners.make('protonet', WAY, {**TINY, 'refine': 2, 'scale': 0.3})
  params = jax.jit(learner.init)(key, episode)
  task = learner.adapt(params, episode.support, key, train=False)
  config = protonet.Config(WAY, **TINY)
  z = np.asarray(protonet.embed(config, params, episode.support.x), np.float64)
  labelled, unlabelled = z[: WAY * SHOT], z[WAY * SHOT :]
  class_means = np.stack([labelled[c::WAY].mean(axis=0) for c in range(WAY)])
  centres = class_means
  for _ in range(2):
    sums, totals = SHOT * class_means, np.full(WAY, SHOT, float)
    for row in unlabelled:
      distance = np.array([np.sum((row - c) ** 2) for c in centres])
      weights = np.exp(-0.3 * (distance - distance.min()))
      weights /= weights.sum()
      sums, totals = sums + weights[:, None] * row, totals + weights
    centres = sums / totals[:, None]
  np.testing.assert_allclose(task, centres, rtol=1e-3, atol=1e-4)
  plain = learners.make('protonet', WAY, {**TINY, 'scale': 0.3})
  np.testing.assert_allclose(
    plain.adapt(params, episode.support, key, train=False),
    class_means,
    rtol=1e-4,
  )


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'distance': 'l1'}, "distance = 'l1' is none of l2, cosine, dot"),
    ({'scale': 0.0}, 'scale = 0.0 must be above 0'),
    ({'refine': -1}, 'refine = -1 is below its minimum 0'),
    ({'backbone': 'resnet12', 'norm': 'none'}, 'resnet12 needs a norm'),
    ({'norm': 'instance'}, "norm = 'instance' is none of"),
  ],
  ids=str,
)
def test_wrong_settings_are_refused(settings, message):
  assert message in errors.refusal(learners.make, 'protonet', WAY, settings)
