"""Which images make up an episode: indices, drawn by key under jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.data.episodes import spec


class Tasks(NamedTuple):
  """Episodes as rows of a data set; leaves have a leading axis E."""

  keys: jax.Array  # key[E, 5], for what is drawn after the rows
  class_ids: jax.Array  # i32[E, N], class of the data set behind each label
  support: jax.Array  # i32[E, N x shot], row of the data set
  support_y: jax.Array  # i32[E, N x shot], class by class if not 'joint'
  targets: jax.Array  # i32[E, n], queries, then unlabelled rows
  target_y: jax.Array  # i32[E, n], N, N + 1, ... for distractors


def draw_tasks(keys, rules, dataset):
  """Draws episodes that have no class in common.

  Args:
    keys: key[1 + E], one for the classes and one for each episode.
    rules: `protocol.Rules`, which `protocol.check` found to fit.
    dataset: an `arrays.Dataset`; only counts and starts are read.

  Returns:
    `Tasks`; no image comes twice in an episode, but that under
    support_query='reference' a query may be in the support, labelled or not.
    Under 'joint' a class may have no image in the support, or no query.
  """
  scores = jax.random.uniform(keys[0], (len(dataset.counts),))
  # The largest of uniform numbers: without replacement, in random order.
  classes = jax.lax.top_k(scores, (len(keys) - 1) * rules.classes)[1]
  draw = lambda *args: _draw_task(*args, rules, dataset)
  return jax.vmap(draw)(keys[1:], classes.reshape(-1, rules.classes))


def _draw_task(key, classes, rules, dataset):
  """The `Tasks` of one episode without E; classes i32[N + distractors]."""
  keys = jax.random.split(key, 7)
  classes, distractors = classes[: rules.way], classes[rules.way :]
  counts = jnp.asarray(dataset.counts, jnp.int32)[classes]
  longest = int(np.max(dataset.counts))
  # All in one call, since XLA takes long to compile each.
  size = rules.way * longest
  scores = jax.random.uniform(keys[0], (size + rules.targets,))
  order = scores[size:]
  rows = _in_random_order(
    scores[:size].reshape(rules.way, longest), classes, rules, dataset
  )
  support = rows[:, : rules.shot].reshape(-1)
  support_y = jnp.repeat(jnp.arange(rules.way), rules.shot)
  if rules.support_query == 'joint':
    rows = rows[:, : rules.shot + rules.query].reshape(-1)
    y = jnp.repeat(jnp.arange(rules.way), rules.shot + rules.query)
    again = jax.random.uniform(jax.random.fold_in(key, 100), y.shape)
    order = jax.lax.top_k(again, len(y))[1]
    support, targets = jnp.split(rows[order], [len(support)])
    support_y, y = jnp.split(y[order], [len(support)])
  elif rules.support_query == 'reference':
    # Drawn anew, so that a query may be an image of the support.
    # (Small numbers folded in would be the keys of the split above.)
    again = jax.random.fold_in(key, 100)
    again = jax.random.uniform(again, (rules.way, longest))
    others = _in_random_order(again, classes, rules, dataset)
    y, _ = _target_slots(keys[1], order, rules, counts - rules.shot)
    asked, unlabelled = jnp.split(y, [rules.way * rules.query])
    targets = jnp.concatenate(
      [
        others[asked, _number(asked, rules.way)],
        rows[unlabelled, rules.shot + _number(unlabelled, rules.way)],
      ]
    )
  else:
    y, place = _target_slots(keys[1], order, rules, counts - rules.shot)
    targets = rows[y, rules.shot + place]
  if rules.distractors:
    # A key of its own: a single task is the same with and without them.
    key = jax.random.fold_in(key, 1)
    targets, y = _mix_in(key, targets, y, distractors, rules, dataset)
  return Tasks(
    keys=keys[2:],
    class_ids=classes,
    support=support,
    support_y=support_y,
    targets=targets,
    target_y=y,
  )


def _number(y, way):
  """i32[n]: how many earlier entries of i32[n] `y` are of the same class."""
  one_hot = jax.nn.one_hot(y, way, dtype=jnp.int32)
  return jnp.sum((jnp.cumsum(one_hot, axis=0) - 1) * one_hot, axis=1)


def _in_random_order(scores, classes, rules, dataset):
  """i32[N, most]: rows of each class, those with the largest scores first."""
  longest = scores.shape[1]
  counts = jnp.asarray(dataset.counts, jnp.int32)[classes]
  # What a class has less than the longest one comes last and is never used.
  scores = jnp.where(jnp.arange(longest) < counts[:, None], scores, -1.0)
  rows = jax.lax.top_k(scores, min(longest, rules.most_per_class))[1]
  return rows + jnp.asarray(dataset.starts, jnp.int32)[classes][:, None]


def _mix_in(key, targets, y, classes, rules, dataset):
  """Targets with images of the distractor classes among the unlabelled."""
  counts = jnp.asarray(dataset.counts, jnp.int32)[classes]
  longest, each = int(np.max(dataset.counts)), rules.unlabelled
  size = rules.distractors * longest
  scores = jax.random.uniform(key, (size + len(y) + rules.distractors * each,))
  order = scores[size:]
  scores = scores[:size].reshape(rules.distractors, longest)
  scores = jnp.where(jnp.arange(longest) < counts[:, None], scores, -1.0)
  rows = jax.lax.top_k(scores, each)[1]
  rows += jnp.asarray(dataset.starts, jnp.int32)[classes][:, None]
  labels = jnp.repeat(rules.way + jnp.arange(rules.distractors), each)
  targets = jnp.concatenate([targets, rows.reshape(-1)])
  y = jnp.concatenate([y, labels.astype(y.dtype)])
  # Queries stay first, in their order; the unlabelled rows are shuffled.
  queries = rules.way * rules.query
  order = jnp.where(jnp.arange(len(y)) < queries, 2.0, order)
  order = jax.lax.top_k(order, len(y))[1]
  return targets[order], y[order]


def _target_slots(key, order, rules, capacity):
  """Draws the classes of queries and unlabelled rows, in random order.

  Queries come first and, balanced, do not depend on the number of unlabelled
  rows, so that learners with and without such rows meet the same episodes.

  Args:
    key: key[].
    order: f32[n], uniform numbers in [0, 1) to be sorted by.
    rules: `protocol.Rules`.
    capacity: i32[N], images that each class has for them.

  Returns:
    y i32[n] and place i32[n]: each slot's class, and its number among the
    slots of that class.
  """
  slots = jnp.arange(rules.targets)
  if rules.proportions == 'balanced':
    place, y = jnp.divmod(slots, rules.way)
    # Shuffled within the queries and within the unlabelled rows.
    order += place < rules.query
  else:
    concentrations = spec.PROPORTIONS[rules.proportions]
    held = _shares(key, rules.targets, capacity, concentrations)
    ends = jnp.cumsum(held)
    y = jnp.sum(slots[:, None] >= ends, axis=1)
    place = slots - (ends - held)[y]
  order = jax.lax.top_k(order, rules.targets)[1]
  return y[order], place[order]


def _shares(key, total, capacity, concentrations):
  """i32[N] with the sum `total`: Dirichlet-multinomial counts, capped.

  The concentration is one of `concentrations` (floats) with equal
  probability. What a class cannot hold (i32[N] `capacity`) is drawn again
  among those with room left.
  """
  choice_key, share_key, key = jax.random.split(key, 3)
  choice = jax.random.bits(choice_key) % len(concentrations)
  concentration = jnp.array(concentrations)[choice]
  log_share = jax.random.loggamma(share_key, concentration, capacity.shape)

  def redraw(state):
    held, left, key = state
    key, draw_key = jax.random.split(key)
    logits = jnp.where(held < capacity, log_share, -jnp.inf)
    drawn = jax.random.categorical(draw_key, logits, shape=(total,))
    one_hot = drawn[:, None] == jnp.arange(len(capacity))
    live = jnp.arange(total) < left
    held += jnp.sum(one_hot & live[:, None], axis=0)
    kept = jnp.minimum(held, capacity)
    return kept, jnp.sum(held - kept), key

  # A round that leaves a rest fills a class, so it ends within N rounds if
  # the classes can hold the total, which `protocol.check` makes sure of.
  state = jnp.zeros_like(capacity), jnp.int32(total), key
  return jax.lax.while_loop(lambda state: state[1] > 0, redraw, state)[0]
