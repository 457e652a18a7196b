"""A set of noisy images that a learner can learn from, without any file."""

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl.data import arrays
from hyperudl.data import episodes
from hyperudl.data import protocol


def example_set(seed, classes=12, per_class=16, size=14, channels=1):
  """Classes are points of one smooth plane of images, under strong noise.

  New classes are new points of the same plane, so there is something to learn
  that helps with them: to look at the plane and not at the noise.

  Args:
    seed: int, chooses the points and the noise, not the plane.
    classes: int.
    per_class: int, images of each.
    size: int, pixels per side.
    channels: int, all alike but for the noise.

  Returns:
    An `arrays.Dataset`.
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
  return arrays.Dataset(
    np.clip(255 * images, 0, 255).astype(np.uint8),
    np.cumsum(counts) - counts,
    counts,
    tuple(f'c{i}' for i in range(classes)),
    None,
  )


def example_episode(config, size=14, channels=1):
  """One episode of an `example_set`, in the shapes that a config asks for.

  Args:
    config: as for `episodes.make_draw`.
    size: int, pixels per side.
    channels: int.

  Returns:
    A core.Episode without a batch axis.

  Raises:
    core.BadInput: a choice in the config that does not exist.
  """
  rules = protocol.read(config, train=True)
  classes = 2 * rules.classes * max(rules.tasks, 1)
  data = example_set(0, classes, rules.most_per_class, size, channels)
  draw = episodes.make_draw(config, data, train=True, others=data)
  batch = draw(jax.random.split(jax.random.key(0), 1))
  return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
