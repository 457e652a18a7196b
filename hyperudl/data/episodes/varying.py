"""Varies the number of classes and of labelled images of training episodes.

Arrays keep the shape of the largest episode, so that one program serves all.
What is left over in the support has x = 0 and y = `core.NO_IMAGE`. Queries that
are left over repeat other queries with y = -1, which is not scored, so that
statistics of the queries are those of real images. The classes of an episode
have the labels 0 .. n - 1.
"""

import jax
import jax.numpy as jnp

from hyperudl import core
from hyperudl.data.episodes import spec as spec_lib


def draw_shots(
  key: jax.Array, spec: spec_lib.Spec, counts: jax.Array
) -> jax.Array:
  """Draw the number of labelled images of each class.

  The number of classes is uniform in `way_range`, that of labelled images in
  `shot_range`. With shots_per 'class', the latter is the largest of the
  episode, and each class's own is uniform up to it; small numbers are then the
  most frequent. A class gets fewer if too few would be left for queries.

  Args:
    key: key[].
    spec: a `Spec` that passed `spec.check`.
    counts: i32[N], images of each class.

  Returns:
    i32[N], 0 for classes that the episode does not have.
  """
  way_key, most_key, shot_key = jax.random.split(key, 3)
  low, high = spec.way_range or (spec.way, spec.way)
  way = jax.random.randint(way_key, (), low, high + 1)
  low, high = spec.shot_range or (spec.shot, spec.shot)
  left = jnp.clip(counts - spec.targets // spec.way, low, high)
  most = jax.random.randint(most_key, (), low, jnp.max(left) + 1)
  shots = jnp.minimum(most, left)
  if spec.shots_per == 'class':
    shots = jax.random.randint(shot_key, shots.shape, low, shots + 1)
  return jnp.where(jnp.arange(len(counts)) < way, shots, 0)


def arrange(
  order: jax.Array, way: jax.Array, spec: spec_lib.Spec
) -> tuple[jax.Array, jax.Array]:
  """Place the queries of an episode, then its unlabelled images.

  Args:
    order: i32[n], numbers to place; of those that count, which come first, the
      first are queries.
    way: i32[], number of classes of the episode.
    spec: a `Spec`.

  Returns:
    i32[n], and whether each place is left over, bool[n]; n places are those of
    an episode of N classes.
  """
  queries = spec.way * spec.query
  place = jnp.arange(len(order) - queries)
  query = jnp.arange(queries)
  source = jnp.concatenate(
    [query % (way * spec.query), way * spec.query + place]
  )
  unlabelled = len(order) // spec.way - spec.query
  empty = jnp.concatenate(
    [query >= way * spec.query, place >= way * unlabelled]
  )
  return order[jnp.minimum(source, len(order) - 1)], empty


def remove_empty(
  support: core.Examples,
  target_y: tuple[jax.Array, jax.Array],
  empty: tuple[jax.Array, jax.Array],
) -> tuple[core.Examples, tuple[jax.Array, jax.Array]]:
  """Remove images and labels of the rows that are left over.

  Args:
    support: labelled, then unlabelled rows.
    target_y: true classes of queries i32[Q] and of unlabelled rows i32[U].
    empty: as in `sampling.Plan`.

  Returns:
    (the support, the true classes).
  """
  query_y, unlabelled_y = target_y
  query, unlabelled = jnp.split(empty[1], [len(query_y)])
  no_image = jnp.concatenate([empty[0], unlabelled])
  x = jnp.where(no_image[:, None, None, None], 0.0, support.x)
  y = jnp.where(no_image, core.NO_IMAGE, support.y)
  return support._replace(x=x, y=y), (
    jnp.where(query, -1, query_y),
    jnp.where(unlabelled, core.NO_IMAGE, unlabelled_y),
  )
