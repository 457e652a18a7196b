"""`udl` on clusters: found without labels, named for scores alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners import udl
from tests.testing import udl as helper


def test_clusters_form_around_the_prototypes_of_unlabelled_images_alone():
  learner = helper.tiny_udl(inner_steps=0, cluster=2, gate='none')
  params = helper.fresh(learner)
  adapt, _ = helper.compiled(learner)
  written, _ = helper.compiled(helper.tiny_udl(phase='base'))
  base = {k: v for k, v in params.items() if k != 'inner'}
  key = jax.random.key(1)
  unit = lambda head: head / jnp.linalg.norm(head, axis=1, keepdims=True)

  def turned(support):
    before = unit(written(base, support, key)['head'])
    after = unit(adapt(params, support, key)['head'])
    return float(jnp.abs(after - before).max())

  data = helper.episode()
  assert turned(data.support) > 1e-3
  labelled = core.Examples(
    data.support.x[: helper.WAY], data.support.y[: helper.WAY]
  )
  assert turned(labelled) < 1e-5


def clusters_episode(unlabelled=9):
  """Three clear classes, of which the learner is told nothing."""
  rng = np.random.default_rng(0)
  middle = rng.uniform(size=(helper.WAY, 10, 10, 1))

  def images(y):
    noise = 0.05 * rng.normal(size=(len(y), 10, 10, 1))
    return jnp.asarray(middle[y] + noise, jnp.float32)

  hidden = np.arange(unlabelled) % helper.WAY
  y = np.arange(12) % helper.WAY
  support = core.Examples(
    images(np.concatenate([np.arange(helper.WAY), hidden])),
    jnp.array([*range(helper.WAY), *[-1] * unlabelled]),
  )
  extra = {'unlabelled_y': jnp.asarray(hidden)}
  return core.Episode(support, core.Examples(images(y), jnp.asarray(y)), extra)


def test_clusters_are_made_without_labels_and_named_for_scores_alone():
  learner = helper.tiny_udl(setting='clusters', phase='base')
  data = clusters_episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  renamed = data._replace(
    support=data.support._replace(y=(data.support.y + 1) % helper.WAY)
  )
  np.testing.assert_array_equal(
    helper.answer(learner, params, data),
    helper.answer(learner, params, renamed),
  )
  metrics = jax.jit(learner.evaluate)(params, data, jax.random.key(1))
  for name in ('accuracy', 'ari', 'nmi', 'accuracy_kmeans_pixels'):
    np.testing.assert_allclose(metrics[name], 1.0, rtol=1e-5)
  # Other classes of the support: other names, so all answers are wrong.
  extra = {'unlabelled_y': (data.extra['unlabelled_y'] + 1) % helper.WAY}
  wrong = renamed._replace(extra=extra)
  metrics = jax.jit(learner.evaluate)(params, wrong, jax.random.key(1))
  assert metrics['accuracy'] == 0
  np.testing.assert_allclose(metrics['ari'], 1.0, rtol=1e-5)


@pytest.mark.slow
def test_clusters_can_be_trained_through_their_alignment():
  learner = helper.tiny_udl(setting='clusters')
  data = clusters_episode()
  params = jax.jit(learner.init)(jax.random.key(0), data)
  loss = lambda p: learner.loss(p, data, jax.random.key(1), 0)[0]
  grads = jax.jit(jax.grad(loss))(params)
  for name in ('cnn', 'inner', 'log_scale'):
    leaves = jax.tree.leaves(grads[name])
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in leaves) > 0


def test_clusters_of_too_many_classes_cannot_be_named():
  with pytest.raises(ValueError, match='1 to 7 classes'):
    udl.make(20, setting='clusters')
