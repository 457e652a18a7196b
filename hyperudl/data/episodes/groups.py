"""Draws the classes of an episode from one group, such as one alphabet."""

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.core import BadInput
from hyperudl.data.datasets import Dataset


def numbers(dataset: Dataset) -> np.ndarray:
  """Return the number of each class's alphabet, i32[classes].

  Alphabets are numbered in the order of their names.

  Args:
    dataset: with alphabets.
  """
  return np.unique(dataset.alphabets, return_inverse=True)[1].astype(np.int32)


def sizes(dataset: Dataset) -> dict[str, int]:
  """Return the number of classes of each alphabet, {} without alphabets."""
  names, counts = np.unique(dataset.alphabets or (), return_counts=True)
  return dict(zip(names.tolist(), counts.tolist()))


def log_left_out(dataset: Dataset, size: int) -> None:
  """Log which alphabets are never drawn, having fewer than `size` classes.

  Args:
    dataset: with alphabets.
    size: classes of one draw.
  """
  small = [key for key, count in sizes(dataset).items() if count < size]
  if small:
    logging.info(
      "episode.group='alphabet' leaves out alphabets with fewer than %d "
      'classes: %s',
      *(size, ', '.join(small)),
    )


def check(dataset: Dataset, draws: int, size: int, name: str) -> None:
  """Check that a data set has enough classes in its alphabets.

  Args:
    dataset: the images to draw from.
    draws: number of groups of classes that `draw` takes from it.
    size: classes of each.
    name: name of the data set in error messages.

  Raises:
    BadInput: no alphabets, or too few classes in them.
  """
  by_name = sizes(dataset)
  if not by_name:
    raise BadInput(
      f"{name}: episode.group='alphabet', but its classes have no alphabets: "
      "set episode.group='none', or add the array `alphabets` to its file"
    )
  possible = sum(count // size for count in by_name.values())
  if possible < draws:
    largest = max(by_name, key=lambda key: by_name[key])
    raise BadInput(
      f"{name}: episode.group='alphabet' takes {draws} x {size} classes, each "
      f'{size} of one alphabet; there are {possible} x {size} (the largest, '
      f'{largest!r}, has {by_name[largest]} classes): lower episode.way or set '
      "episode.group='none'"
    )


def draw(
  key: jax.Array, scores: jax.Array, group: np.ndarray, draws: int, size: int
) -> jax.Array:
  """Draw classes without replacement, each time `size` of one group.

  Each draw takes one of the groups that still have `size` classes, all with
  equal probability, and then its classes with the highest scores.

  Args:
    key: key[].
    scores: f32[classes], uniform in [0, 1); negative for classes that must not
      be drawn.
    group: i32[classes], the number of each class's group; static.
    draws: number of draws, at most what `check` allows.
    size: classes of each draw.

  Returns:
    i32[draws, size].
  """
  count = int(group.max()) + 1
  member = jnp.asarray(group == np.arange(count)[:, None])  # bool[G, classes]

  def step(scores, key):
    left = jnp.sum(member & (scores >= 0), axis=1)
    chance = jax.random.uniform(key, (count,))
    drawn = jnp.argmax(jnp.where(left >= size, chance, -1.0))
    classes = jax.lax.top_k(jnp.where(member[drawn], scores, -1.0), size)[1]
    return scores.at[classes].set(-1.0), classes

  return jax.lax.scan(step, scores, jax.random.split(key, draws))[1]
