"""Sets of noisy images that a learner can learn from, without any file."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.data import datasets
from hyperudl.data import episodes
from hyperudl.data.episodes import spec
from hyperudl.data.language import task_set


def example_set(seed, classes=12, per_class=16, size=14, channels=1):
  """Make classes that are points of one plane of images, under strong noise.

  New classes are new points of the same plane, so it helps with them to learn
  what the plane is and to ignore the noise.

  Args:
    seed: int, chooses the points and the noise, not the plane.
    classes: int.
    per_class: int, images of each.
    size: int, pixels per side.
    channels: int, all alike but for the noise.

  Returns:
    A `Dataset`.
  """
  rng = np.random.default_rng(seed)
  grid = np.arange(size) * 2 * np.pi / size
  waves = [np.cos(k * grid)[:, None] * np.sin(grid + k) for k in (1, 2)]
  waves += [np.sin(k * grid + 1) * np.ones((size, 1)) for k in (1, 2)]
  points = rng.normal(size=(classes, 4))
  images = 0.5 + 0.12 * np.einsum('ck,khw->chw', points, np.stack(waves))
  images = np.repeat(images, per_class, axis=0)[..., None]
  images = images + 0.3 * rng.normal(size=(*images.shape[:3], channels))
  counts = np.full(classes, per_class)
  return datasets.Dataset(
    np.clip(255 * images, 0, 255).astype(np.uint8),
    np.cumsum(counts) - counts,
    counts,
    tuple(f'c{i}' for i in range(classes)),
    None,
  )


def example_tasks(seed, ways=3, count=8, words=6, rows=24, size=14, channels=1):
  """Make tasks with language: each word has an image, under noise.

  The words and their images are the same for every seed; a task asks which of
  `ways` of them an image shows.

  Args:
    seed: int, chooses the answers of each task and the noise.
    ways: N, answers of a task.
    count: T, tasks.
    words: that there are.
    rows: images of each task, half of them support.
    size: int, pixels per side.
    channels: int.

  Returns:
    A `TaskSet`.
  """
  means = np.random.default_rng(7).normal(size=(words, size, size, channels))
  rng = np.random.default_rng(seed)
  images, tasks = [], []
  for number in range(count):
    chosen = rng.permutation(words)[:ways]
    labels = np.arange(rows) % ways
    noise = rng.normal(size=(rows, size, size, channels))
    image = 0.5 + 0.12 * means[chosen[labels]] + 0.1 * noise
    images.append(np.clip(255 * image, 0, 255).astype(np.uint8))
    pool = [(number * rows + i, int(y)) for i, y in enumerate(labels)]
    tasks.append(
      {
        'question': f'question {number}',
        'answers': [f'word {word}' for word in chosen],
        'support': pool[: rows // 2],
        'query': pool[rows // 2 :],
        'id': number,
        'words': chosen,
      }
    )
  encode = lambda task: (
    np.array([1, 3 + words + task['id']], np.int32),
    np.stack([np.full(ways, 2), 3 + task['words']], axis=1).astype(np.int32),
  )
  return task_set.make_task_set(np.concatenate(images), tasks, count, encode)


def example_data(config, seed, size=14, channels=1):
  """Make `example_tasks` for a config with language, else `example_set`."""
  if 'language' in config:
    way, tasks = config.episode.way, max(8, config.episode.tasks)
    words = max(6, way)
    return example_tasks(seed, way, tasks, words, size=size, channels=channels)
  return example_set(seed, size=size, channels=channels)


def example_episode(config, size=14, channels=1):
  """Draw one episode of an `example_set`, in the shapes of a config.

  Args:
    config: as for `episodes.make_draw`.
    size: int, pixels per side.
    channels: int.

  Returns:
    A core.Episode without a batch axis.

  Raises:
    core.BadInput: a choice in the config that does not exist.
  """
  if 'language' in config:
    data = example_data(config, 0, size, channels)
  else:
    sizes = spec.read(config, train=True)
    classes = 2 * sizes.classes * max(sizes.tasks, 1)
    data = example_set(0, classes, sizes.max_per_class, size, channels)
  draw = episodes.make_draw(config, data, train=True, training_set=data)
  batch = draw(jax.random.split(jax.random.key(0), 1))
  return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
