"""Setting 'clusters' of `udl`: classification without any label.

The network is written from unlabelled images alone; its head starts at the
k-means centres of their features. Clusters get the names of classes by
`aligning.align` on the unlabelled images, and are scored on queries, which
are others. The names are used by the outer loss and the evaluation, never by
`adapt`.
"""

import jax
import jax.numpy as jnp

from hyperudl.ops import cluster_metrics
from hyperudl.ops import clustering
from hyperudl.ops import losses

SEED = 0  # of k-means, for every episode the same
COMPONENTS = 16  # of PCA


def unnamed(support):
  """The support without its labels: all y = -1."""
  return support._replace(y=jnp.full_like(support.y, -1))


def start(features, way):
  """k-means centres f32[N, D] of the directions of features f32[n, D]."""
  return centres(losses.unit(features), way)


def centres(x, way):
  """k-means centres f32[N, D] of all rows of f32[n, D]."""
  key = jax.random.key(SEED)
  return clustering.k_means(key, x, jnp.ones(x.shape[0]), way)


def true_classes(episode):
  """i32[n]: classes of all support rows; for losses and scores only."""
  hidden = episode.extra['unlabelled_y']
  labelled = episode.support.y[: episode.support.y.shape[0] - hidden.shape[0]]
  return jnp.concatenate([labelled, hidden])


def name(seen, logits, episode, way):
  """Query logits of classes from logits of clusters.

  Args:
    seen: f32[n, N], of the support rows.
    logits: f32[m, N], of the queries.
    episode: whose classes give the names.
    way: N.
  """
  log_p = jax.nn.log_softmax(seen)
  confusion = cluster_metrics.soft_confusion(log_p, true_classes(episode), way)
  return cluster_metrics.named(logits, cluster_metrics.align(confusion))


def scores(seen, logits, episode, way):
  """Metrics: accuracy and nll of named clusters, ARI and NMI of unnamed."""
  y = episode.query.y
  answers = name(seen, logits, episode, way)
  table = cluster_metrics.contingency(y, jnp.argmax(logits, axis=-1), way)
  return {
    **losses.classification_metrics(answers, y),
    'ari': cluster_metrics.adjusted_rand(table),
    'nmi': cluster_metrics.normalised_information(table),
    'clusters_used': jnp.sum(table.sum(axis=0) > 0).astype(jnp.float32),
  }


def baselines(episode, way, encode):
  """Accuracy and ARI of k-means by the same alignment: dict of f32[].

  Args:
    episode: one episode.
    way: N.
    encode: dict name -> (images f32[n, H, W, C] -> f32[n, D]).
  """
  x, queries = episode.support.x, episode.query.x
  flat = lambda images: images.reshape(images.shape[0], -1)
  mean = jnp.mean(flat(x), axis=0)
  _, _, axes = jnp.linalg.svd(flat(x) - mean, full_matrices=False)
  axes = axes[:COMPONENTS].T
  encode = {**encode, 'pixels': lambda images: (flat(images) - mean) @ axes}
  found = {}
  for title, function in encode.items():
    points, others = function(x), function(queries)
    middle = centres(points, way)
    # Hard assignments; the large factor makes a count of log p.
    answer = lambda rows, middle=middle: (
      1e3 * jax.nn.one_hot(_nearest(rows, middle), way)
    )
    result = scores(answer(points), answer(others), episode, way)
    found[f'accuracy_kmeans_{title}'] = result['accuracy']
    found[f'ari_kmeans_{title}'] = result['ari']
  return found


def _nearest(rows, middle):
  return jnp.argmin(losses.squared_distances(rows, middle), axis=1)
