"""Implements the setting 'clusters' of `udl`: classification without labels.

The network is generated from images without labels; its initial prototypes are
k-means centroids of their features. `cluster_metrics.align` then assigns a
class to each cluster, by the true classes of the support, and queries, which
are other images, are scored. Only the outer loss and the evaluation use this
assignment, never `adapt`.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.ops import cluster_metrics
from hyperudl.ops import clustering
from hyperudl.ops import losses

SEED = 0  # of k-means, the same for all episodes
COMPONENTS = 16  # principal components for k-means on pixels


def refuse_transductive(config: core.PyTree) -> None:
  """Refuse a run whose clusters would get classes from the scored queries.

  Raises:
    core.BadInput: for transductive episodes.
  """
  if config.episode.transductive:
    raise core.BadInput(
      'config.episode.transductive would name clusters by the labels of the '
      'queries that are scored: set it to False and episode.unlabelled >= 1'
    )


def mask_labels(support: core.Examples) -> core.Examples:
  """Return the support without labels: y = -1 in all rows."""
  return support._replace(y=jnp.full_like(support.y, -1))


def init_centroids(features: jax.Array, way: int) -> jax.Array:
  """Compute k-means centroids f32[N, D] of features f32[n, D], normalised."""
  return k_means(losses.unit(features), way)


def k_means(points: jax.Array, way: int) -> jax.Array:
  """Compute k-means centroids f32[N, D] of points f32[n, D]."""
  key = jax.random.key(SEED)
  return clustering.k_means(key, points, jnp.ones(points.shape[0]), way)


def true_classes(episode: core.Episode) -> jax.Array:
  """Return the classes i32[S] of the support, for losses and metrics only."""
  hidden = episode.extra['unlabelled_y']
  labelled = episode.support.y[: episode.support.y.shape[0] - hidden.shape[0]]
  return jnp.concatenate([labelled, hidden])


def order_by_class(
  support_logits: jax.Array,
  query_logits: jax.Array,
  episode: core.Episode,
  way: int,
) -> jax.Array:
  """Return query logits ordered by class instead of by cluster.

  Args:
    support_logits: f32[S, N], by cluster.
    query_logits: f32[m, N], by cluster.
    episode: the true classes of its support assign classes to clusters.
    way: N.
  """
  log_p = jax.nn.log_softmax(support_logits)
  confusion = cluster_metrics.soft_confusion(log_p, true_classes(episode), way)
  return query_logits[:, cluster_metrics.align(confusion)]


def metrics(
  support_logits: jax.Array,
  query_logits: jax.Array,
  episode: core.Episode,
  way: int,
) -> dict[str, jax.Array]:
  """Compute accuracy and nll by class, and ARI and NMI of the clusters.

  The arguments are those of `order_by_class`, which gives the classes.
  """
  y = episode.query.y
  by_class = order_by_class(support_logits, query_logits, episode, way)
  clusters = jnp.argmax(query_logits, axis=-1)
  table = cluster_metrics.contingency(y, clusters, way)
  return {
    **losses.classification_metrics(by_class, y),
    'ari': cluster_metrics.adjusted_rand(table),
    'nmi': cluster_metrics.normalised_information(table),
    'clusters_used': jnp.sum(table.sum(axis=0) > 0).astype(jnp.float32),
  }


def baselines(
  episode: core.Episode, way: int, points: dict
) -> dict[str, jax.Array]:
  """Compute the accuracy (after `order_by_class`) and the ARI of k-means.

  Args:
    episode: one episode.
    way: N.
    points: {title: (f32[S, D] of the support, f32[m, D] of the queries)};
      'pixels', principal components of the images, is added.
  """
  pixels = episode.support.x.reshape(episode.support.x.shape[0], -1)
  queries = episode.query.x.reshape(episode.query.x.shape[0], -1)
  mean = jnp.mean(pixels, axis=0)
  _, _, axes = jnp.linalg.svd(pixels - mean, full_matrices=False)
  axes = axes[:COMPONENTS].T
  pixels = ((pixels - mean) @ axes, (queries - mean) @ axes)
  scores = {}
  for title, sets in {**points, 'pixels': pixels}.items():
    centroids = k_means(sets[0], way)
    # The assignments are hard: with such large logits they have probability 1.
    logits = [
      1e3 * jax.nn.one_hot(_nearest(rows, centroids), way) for rows in sets
    ]
    values = metrics(*logits, episode, way)
    scores[f'accuracy_kmeans_{title}'] = values['accuracy']
    scores[f'ari_kmeans_{title}'] = values['ari']
  return scores


def _nearest(rows, centroids):
  return jnp.argmin(losses.squared_distances(rows, centroids), axis=1)
