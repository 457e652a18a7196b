"""`udl` on clusters: formed without labels, named for scores alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperudl import core
from hyperudl.learners.udl import cluster_setting
from tests.testing import udl as helper


def test_clusters_form_around_the_prototypes_of_unlabelled_images_alone():
  learner = helper.tiny_udl(inner_steps=0, cluster=2, gate='none')
  params = helper.random_params(learner)
  adapt, _ = helper.compiled(learner)
  generate, _ = helper.compiled(helper.tiny_udl(phase='base'))
  base, key = helper.without_inner(params), jax.random.key(1)
  unit = lambda rows: rows / jnp.linalg.norm(rows, axis=1, keepdims=True)

  def distance(support):
    before = unit(generate(base, support, key).prototypes)
    after = unit(adapt(params, support, key).prototypes)
    return float(jnp.abs(after - before).max())

  data = helper.episode()
  assert distance(data.support) > 1e-3
  labelled = core.Examples(
    data.support.x[: helper.WAY], data.support.y[: helper.WAY]
  )
  assert distance(labelled) < 1e-5


def clusters_episode(unlabelled=9):
  """Three clear classes, whose labels the learner does not read."""
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
    helper.logits(learner, params, data),
    helper.logits(learner, params, renamed),
  )
  metrics = jax.jit(learner.evaluate)(params, data, jax.random.key(1))
  for name in ('accuracy', 'ari', 'nmi', 'accuracy_kmeans_pixels'):
    np.testing.assert_allclose(metrics[name], 1.0, rtol=1e-5)
  # Other classes of the support: other names, so all predictions are wrong.
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


def test_the_clusters_that_queries_use_are_counted():
  y = jnp.array([0, 1, 2])
  rows = core.Examples(jnp.zeros((3, 1, 1, 1)), y)
  episode = core.Episode(rows, rows, {'unlabelled_y': y[:0]})
  logits = lambda clusters: 9.0 * jax.nn.one_hot(jnp.array(clusters), 3)
  metrics = cluster_setting.metrics(
    logits([1, 2, 0]), logits([1, 2, 2]), episode, 3
  )
  assert metrics['clusters_used'] == 2
  np.testing.assert_allclose(metrics['accuracy'], 2 / 3, rtol=1e-6)


def test_classes_that_the_learner_does_not_see_name_clusters_too():
  hidden = jnp.array([0, 1, 2, 0, 1, 2])
  rows = lambda y: core.Examples(jnp.zeros((len(y), 1, 1, 1)), jnp.array(y))
  episode = core.Episode(
    rows([0, 1, 2, *[-1] * 6]), rows([0, 1, 2]), {'unlabelled_y': hidden}
  )
  logits = lambda clusters: 9.0 * jax.nn.one_hot(jnp.array(clusters), 3)
  # The three labelled images alone would name the clusters otherwise.
  support = logits([1, 2, 0, *hidden])
  ordered = cluster_setting.order_by_class(
    support, logits([0, 1, 2]), episode, 3
  )
  np.testing.assert_array_equal(ordered.argmax(axis=1), [0, 1, 2])


def test_k_means_on_pixels_tells_classes_by_their_brightness():
  rng = np.random.default_rng(0)

  def bright(y):
    x = 0.6 + 0.1 * y[:, None, None, None]
    x = x + 0.01 * rng.normal(size=(len(y), 4, 4, 1))
    return core.Examples(jnp.asarray(x), jnp.asarray(y))

  y = np.arange(12) % 3
  episode = core.Episode(bright(y), bright(y), {'unlabelled_y': y[:0]})
  scores = cluster_setting.baselines(episode, 3, {})
  for name in ('accuracy_kmeans_pixels', 'ari_kmeans_pixels'):
    np.testing.assert_allclose(scores[name], 1, rtol=1e-6)


def test_clusters_of_many_classes_can_be_named():
  """The Hungarian algorithm has no limit; all permutations would be 10^18."""
  y = jnp.arange(20)
  episode = core.Episode(
    core.Examples(jnp.zeros((20, 1, 1, 1)), y),
    core.Examples(jnp.zeros((20, 1, 1, 1)), y),
    {'unlabelled_y': y[:0]},
  )
  logits = 5 * jax.nn.one_hot((y + 7) % 20, 20)
  ordered = cluster_setting.order_by_class(logits, logits, episode, 20)
  np.testing.assert_array_equal(ordered.argmax(axis=1), y)
