"""The setting 'clusters' of `udl`: classification without any label.

The network is generated from unlabelled images alone; its prototypes begin as
k-means centroids of their features. Clusters get the names of classes by
`cluster_metrics.align` on the unlabelled images, and are scored on queries,
which are other images. The outer loss and the evaluation use the names, `adapt`
never does.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.ops import cluster_metrics
from hyperudl.ops import clustering
from hyperudl.ops import losses

SEED = 0  # of k-means, for every episode the same
COMPONENTS = 16  # principal components of pixels


def refuse_transductive(config: core.PyTree) -> None:
  """Refuse a run in which the scored queries would name clusters.

  Raises:
    core.BadInput: for transductive episodes.
  """
  if config.episode.transductive:
    raise core.BadInput(
      'config.episode.transductive would name clusters by the labels of the '
      'queries that are scored: set it to False and episode.unlabelled >= 1'
    )


def mask_labels(support: core.Examples) -> core.Examples:
  """Return the support without its labels: all y = -1."""
  return support._replace(y=jnp.full_like(support.y, -1))


def init_centroids(features: jax.Array, way: int) -> jax.Array:
  """Compute k-means centroids f32[N, D] of directions of features f32[n, D]."""
  return k_means(losses.unit(features), way)


def k_means(points: jax.Array, way: int) -> jax.Array:
  """Compute k-means centroids f32[N, D] of all rows of f32[n, D]."""
  key = jax.random.key(SEED)
  return clustering.k_means(key, points, jnp.ones(points.shape[0]), way)


def true_classes(episode: core.Episode) -> jax.Array:
  """Return i32[S], classes of all support rows; for losses and scores only."""
  hidden = episode.extra['unlabelled_y']
  labelled = episode.support.y[: episode.support.y.shape[0] - hidden.shape[0]]
  return jnp.concatenate([labelled, hidden])


def name(
  support_logits: jax.Array,
  query_logits: jax.Array,
  episode: core.Episode,
  way: int,
) -> jax.Array:
  """Return query logits of classes from logits of clusters.

  Args:
    support_logits: f32[S, N].
    query_logits: f32[m, N].
    episode: whose support's classes give the names.
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
  """Compute accuracy and nll of named clusters, ARI and NMI of unnamed ones.

  Args: as of `name`.
  """
  y = episode.query.y
  named = name(support_logits, query_logits, episode, way)
  clusters = jnp.argmax(query_logits, axis=-1)
  table = cluster_metrics.contingency(y, clusters, way)
  return {
    **losses.classification_metrics(named, y),
    'ari': cluster_metrics.adjusted_rand(table),
    'nmi': cluster_metrics.normalised_information(table),
    'clusters_used': jnp.sum(table.sum(axis=0) > 0).astype(jnp.float32),
  }


def baselines(
  episode: core.Episode, way: int, points: dict
) -> dict[str, jax.Array]:
  """Compute accuracy and ARI of k-means by the same alignment.

  Args:
    episode: one episode.
    way: N.
    points: {name: (f32[S, D] of the support, f32[m, D] of the queries)}; the
      principal components of the pixels are added.
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
    # Hard assignments; the large factor makes a count of log p.
    logits = [
      1e3 * jax.nn.one_hot(_nearest(rows, centroids), way) for rows in sets
    ]
    values = metrics(*logits, episode, way)
    scores[f'accuracy_kmeans_{title}'] = values['accuracy']
    scores[f'ari_kmeans_{title}'] = values['ari']
  return scores


def _nearest(rows, centroids):
  return jnp.argmin(losses.squared_distances(rows, centroids), axis=1)
