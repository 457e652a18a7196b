"""Anonymous clusters against classes: alignment and what needs none.

Clusters of an unsupervised network have no names. `align` gives them the
names that fit best on one set of images; an honest accuracy is that on OTHER
images. Aligned and scored on the same 16 images, random answers in 4 classes
already reach 46%.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

MOST = 7  # classes that can be aligned exhaustively, 5040 permutations


def permutations(way):
  """All orders of `way` clusters: i32[way!, way].

  Raises:
    ValueError: for more than 7 classes.
  """
  if not 1 <= way <= MOST:
    raise ValueError(
      f'exhaustive alignment is for 1 to {MOST} classes, not {way}'
    )
  return np.array(list(itertools.permutations(range(way))), np.int32)


def soft_confusion(log_p, y, way):
  """f32[N, N]: row c, column j: sum over images of class c of log p_j.

  Args:
    log_p: f32[n, N], log-probabilities of the clusters.
    y: i32[n], classes; an image of a class outside 0..N-1 does not count.
    way: N.
  """
  return jax.nn.one_hot(y, way).T @ log_p


def align(confusion):
  """The cluster of each class: i32[N] that maximises sum_c A[c, perm[c]].

  Exhaustive, so exactly what the Hungarian algorithm finds; no gradient.

  Args:
    confusion: f32[N, N], classes by clusters.
  """
  orders = jnp.asarray(permutations(confusion.shape[0]))
  classes = jnp.arange(confusion.shape[0])
  scores = confusion[classes, orders].sum(axis=-1)
  return orders[jnp.argmax(jax.lax.stop_gradient(scores))]


def named(logits, order):
  """Logits of classes f32[n, N] from those of clusters and `align`."""
  return logits[:, order]


def contingency(a, b, way):
  """f32[N, N]: how many images are in cluster i of `a` and j of `b`."""
  return jax.nn.one_hot(a, way).T @ jax.nn.one_hot(b, way)


def adjusted_rand(table):
  """Adjusted Rand index (Hubert and Arabie 1985) of a contingency table.

  1 for the same partition, 0 for independent ones; needs no alignment.
  """
  pairs = lambda counts: jnp.sum(counts * (counts - 1)) / 2
  rows, columns = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
  total = pairs(jnp.sum(table)[None])
  expected = rows * columns / jnp.maximum(total, 1.0)
  most = (rows + columns) / 2
  same = most == expected
  gap = jnp.where(same, 1.0, most - expected)
  return jnp.where(same, 1.0, (pairs(table) - expected) / gap)


def normalised_information(table):
  """Mutual information over the mean of the entropies, in [0, 1]."""
  p = table / jnp.maximum(jnp.sum(table), 1.0)
  plogp = lambda q: jnp.sum(jnp.where(q > 0, q * jnp.log(q + (q <= 0)), 0.0))
  rows, columns = -plogp(p.sum(axis=1)), -plogp(p.sum(axis=0))
  mean = (rows + columns) / 2
  shared = rows + columns + plogp(p)
  return jnp.where(mean > 0, shared / jnp.where(mean > 0, mean, 1.0), 1.0)
