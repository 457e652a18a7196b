"""Draws the indices of the images of an episode, by key and under jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.data.datasets import Dataset
from hyperudl.data.episodes import groups
from hyperudl.data.episodes import spec as spec_lib
from hyperudl.data.episodes import varying


class Plan(NamedTuple):
  """E episodes as rows of a data set."""

  keys: jax.Array  # key[E, 5], for what is drawn after the rows
  class_ids: jax.Array  # i32[E, N], class of the data set behind each label
  support: jax.Array  # i32[E, N x shot], row of the data set
  support_y: jax.Array  # i32[E, N x shot], class by class unless 'joint'
  targets: jax.Array  # i32[E, n], rows of queries, then of unlabelled images
  target_y: jax.Array  # i32[E, n]; other classes have N, N + 1, ...
  # Rows to leave out, of support and targets: bool[E, N x shot], bool[E, n].
  empty: tuple[jax.Array, jax.Array] | None = None


def draw_plan(
  keys: jax.Array,
  spec: spec_lib.Spec,
  dataset: Dataset,
  excluded: jax.Array | None = None,
) -> Plan:
  """Draw episodes that have no class in common.

  With episode.group 'alphabet' the classes of each, distractors included, are
  of one alphabet.

  Args:
    keys: key[1 + E], one for the classes and one for each episode.
    spec: a `Spec` that passed `spec.check` with this data set.
    dataset: only its counts and starts are used.
    excluded: i32[...], classes that are not drawn; None for none.

  Returns:
    A `Plan`. No image comes twice in an episode, except that with
    data.support_query 'reference' a query may also be in the support, labelled
    or unlabelled. With 'joint' a class may have no image in the support, or no
    query.
  """
  scores = jax.random.uniform(keys[0], (len(dataset.counts),))
  if excluded is not None:
    scores = scores.at[excluded.ravel()].set(-1.0)
  count = len(keys) - 1
  if spec.group == 'alphabet':
    key, group = jax.random.fold_in(keys[0], 102), groups.numbers(dataset)
    classes = groups.draw(key, scores, group, count, spec.classes)
  else:
    # The largest uniform scores: without replacement and in random order.
    classes = jax.lax.top_k(scores, count * spec.classes)[1]
  draw = lambda key, classes: _draw_episode(key, classes, spec, dataset)
  return jax.vmap(draw)(keys[1:], classes.reshape(-1, spec.classes))


def draw_plan_of_other_classes(
  keys: jax.Array, spec: spec_lib.Spec, dataset: Dataset
) -> Plan:
  """Draw episodes whose unlabelled images are of N classes that have no label.

  Support and queries are those of `draw_plan` with these keys.

  Args:
    keys: as for `draw_plan`.
    spec: a `Spec` that passed `spec.check` with this data set.
    dataset: as for `draw_plan`.
  """
  own = draw_plan(keys, spec, dataset)
  fold = jax.vmap(lambda key: jax.random.fold_in(key, 101))
  other = draw_plan(fold(keys), spec, dataset, own.class_ids)
  queries = spec.way * spec.query
  join = lambda a, b: jnp.concatenate([a[:, :queries], b[:, queries:]], axis=1)
  return own._replace(
    targets=join(own.targets, other.targets),
    target_y=join(own.target_y, spec.way + other.target_y),
  )


def _draw_episode(key, classes, spec, dataset):
  """Draw one episode, a `Plan` without axis E; classes i32[N + distractors]."""
  keys = jax.random.split(key, 7)
  classes, distractors = classes[: spec.way], classes[spec.way :]
  longest = int(np.max(dataset.counts))
  shuffle = lambda scores: _shuffle_rows(
    scores.reshape(spec.way, longest), classes, spec.max_per_class, dataset
  )
  # One call for all random numbers, as XLA is slow to compile each call.
  size = spec.way * longest
  scores = jax.random.uniform(keys[0], (size + spec.targets,))
  order, rows = scores[size:], shuffle(scores[:size])
  if spec.varies:
    plan = _draw_varying(key, keys[1], order, rows, classes, spec, dataset)
    return Plan(keys[2:], classes, *plan)
  if spec.data.support_query == 'joint':
    split_key = jax.random.fold_in(key, 100)
    support, support_y, targets, y = _split_jointly(split_key, rows, spec)
  else:
    support = rows[:, : spec.shot].reshape(-1)
    support_y = jnp.repeat(jnp.arange(spec.way), spec.shot)
    capacity = jnp.asarray(dataset.counts, jnp.int32)[classes] - spec.shot
    y, place = _target_slots(keys[1], order, spec, capacity)
    if spec.data.support_query == 'reference':
      # Drawn independently, so that a query may be an image of the support.
      # (100, as folding in small numbers would give keys of the split above.)
      again = jax.random.uniform(
        jax.random.fold_in(key, 100), (spec.way, longest)
      )
      query_y, unlabelled_y = jnp.split(y, [spec.way * spec.query])
      query = shuffle(again)[query_y, _occurrence(query_y, spec.way)]
      place = spec.shot + _occurrence(unlabelled_y, spec.way)
      targets = jnp.concatenate([query, rows[unlabelled_y, place]])
    else:
      targets = rows[y, spec.shot + place]
  if spec.distractors:
    # A separate key, so that one task is the same with and without them.
    key = jax.random.fold_in(key, 1)
    targets, y = _add_distractors(key, targets, y, distractors, spec, dataset)
  return Plan(keys[2:], classes, support, support_y, targets, y)


def _draw_varying(key, slots_key, order, rows, classes, spec, dataset):
  """Return the other fields of the `Plan` of an episode of any size."""
  counts = jnp.asarray(dataset.counts, jnp.int32)[classes]
  shots = varying.draw_shots(jax.random.fold_in(key, 103), spec, counts)
  way, slots = jnp.sum(shots > 0), jnp.arange(spec.targets)
  total = way * (spec.targets // spec.way)
  if spec.is_balanced:
    place, y = jnp.divmod(slots, way)
    order += place < spec.query  # queries come first
  else:
    capacity = jnp.where(shots > 0, counts - shots, 0)
    concentrations = spec_lib.CONCENTRATIONS[spec.proportions]
    y, place = _dirichlet_slots(
      slots_key, slots, capacity, concentrations, total
    )
  order = jnp.where(slots < total, order, -1.0)
  order = jax.lax.top_k(order, spec.targets)[1]
  order, empty = varying.arrange(order, way, spec)
  y, place = jnp.minimum(y[order], spec.way - 1), place[order]
  # Rows beyond the images of a class do not exist: in their place the first.
  take = lambda y, place: rows[y, jnp.where(place < counts[y], place, 0)]
  targets = take(y, shots[y] + place)
  support_y = jnp.repeat(jnp.arange(spec.way), spec.shot)
  place = jnp.tile(jnp.arange(spec.shot), spec.way)
  no_image = place >= shots[support_y]
  support = take(support_y, place)
  return support, support_y, targets, y, (no_image, empty)


def _split_jointly(key, rows, spec):
  """Divide rows into support and queries at random, regardless of class."""
  per_class = spec.shot + spec.query
  rows = rows[:, :per_class].reshape(-1)
  y = jnp.repeat(jnp.arange(spec.way), per_class)
  order = jax.lax.top_k(jax.random.uniform(key, y.shape), len(y))[1]
  support, query = jnp.split(rows[order], [spec.way * spec.shot])
  support_y, query_y = jnp.split(y[order], [spec.way * spec.shot])
  return support, support_y, query, query_y


def _occurrence(y, way):
  """Count the earlier entries of i32[n] `y` of the same class: i32[n]."""
  one_hot = jax.nn.one_hot(y, way, dtype=jnp.int32)
  return jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=1)


def _shuffle_rows(scores, classes, limit, dataset):
  """Return at most `limit` rows of each class, in descending order of score.

  Args:
    scores: f32[n, images of the largest class] in [0, 1).
    classes: i32[n].
    limit: int.
    dataset: a `Dataset`.

  Returns:
    i32[n, min(limit, images of the largest class)].
  """
  longest = scores.shape[1]
  counts = jnp.asarray(dataset.counts, jnp.int32)[classes]
  # Places beyond the images of a class come last and are never used.
  scores = jnp.where(jnp.arange(longest) < counts[:, None], scores, -1.0)
  rows = jax.lax.top_k(scores, min(longest, limit))[1]
  return rows + jnp.asarray(dataset.starts, jnp.int32)[classes][:, None]


def _add_distractors(key, targets, y, classes, spec, dataset):
  """Mix images of the distractor classes into the unlabelled targets."""
  longest, per_class = int(np.max(dataset.counts)), spec.unlabelled
  size, added = spec.distractors * longest, spec.distractors * per_class
  scores = jax.random.uniform(key, (size + len(y) + added,))
  order = scores[size:]
  scores = scores[:size].reshape(spec.distractors, longest)
  rows = _shuffle_rows(scores, classes, per_class, dataset)
  labels = jnp.repeat(spec.way + jnp.arange(spec.distractors), per_class)
  targets = jnp.concatenate([targets, rows.reshape(-1)])
  y = jnp.concatenate([y, labels.astype(y.dtype)])
  # Queries stay first and in order; the unlabelled rows are shuffled.
  queries = spec.way * spec.query
  order = jnp.where(jnp.arange(len(y)) < queries, 2.0, order)
  order = jax.lax.top_k(order, len(y))[1]
  return targets[order], y[order]


def _target_slots(key, order, spec, capacity):
  """Draw the classes of queries and unlabelled rows, in random order.

  Queries come first. If balanced, they do not depend on the number of
  unlabelled rows, so that learners with and without such rows get the same
  queries.

  Args:
    key: key[].
    order: f32[n], uniform numbers in [0, 1) to sort by.
    spec: a `Spec`.
    capacity: i32[N], number of images of each class without its support.

  Returns:
    y i32[n] and place i32[n]: the class of each slot, and its number among the
    slots of that class.
  """
  slots = jnp.arange(spec.targets)
  if spec.is_balanced:
    place, y = jnp.divmod(slots, spec.way)
    # Shuffle the queries and the unlabelled rows separately.
    order += place < spec.query
  else:
    concentrations = spec_lib.CONCENTRATIONS[spec.proportions]
    y, place = _dirichlet_slots(
      key, slots, capacity, concentrations, spec.targets
    )
  order = jax.lax.top_k(order, spec.targets)[1]
  return y[order], place[order]


def _dirichlet_slots(key, slots, capacity, concentrations, total):
  """Return class (N from `total` on) and number within it of each slot."""
  limit = len(slots)
  counts = _dirichlet_counts(key, total, limit, capacity, concentrations)
  ends = jnp.cumsum(counts)
  y = jnp.sum(slots[:, None] >= ends, axis=1)
  return y, slots - (ends - counts)[y]


def _dirichlet_counts(key, total, limit, capacity, concentrations):
  """Draw Dirichlet-multinomial class counts with a cap on each class.

  Args:
    key: key[].
    total: int or i32[], sum of the counts.
    limit: int, at least `total`.
    capacity: i32[N], largest counts; any excess is drawn again among the
      classes with room left.
    concentrations: floats, one of which is drawn with equal probability.

  Returns:
    i32[N].
  """
  choice_key, weight_key, key = jax.random.split(key, 3)
  choice = jax.random.bits(choice_key) % len(concentrations)
  concentration = jnp.array(concentrations)[choice]
  log_weight = jax.random.loggamma(weight_key, concentration, capacity.shape)

  def redraw(state):
    counts, left, key = state
    key, draw_key = jax.random.split(key)
    logits = jnp.where(counts < capacity, log_weight, -jnp.inf)
    drawn = jax.random.categorical(draw_key, logits, shape=(limit,))
    one_hot = drawn[:, None] == jnp.arange(len(capacity))
    live = jnp.arange(limit) < left
    counts += jnp.sum(one_hot & live[:, None], axis=0)
    capped = jnp.minimum(counts, capacity)
    return capped, jnp.sum(counts - capped), key

  # A round that leaves an excess fills a class, so the loop ends within N
  # rounds if the classes can hold the total, which `spec.check` ensures.
  state = jnp.zeros_like(capacity), jnp.int32(total), key
  return jax.lax.while_loop(lambda state: state[1] > 0, redraw, state)[0]
