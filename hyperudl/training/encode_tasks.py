"""Embeds a whole set of tasks once, by the frozen encoder of a learner.

A learner with language reads images and strings only through its frozen
encoder (except with target='convnet'), so they are encoded once, not in every
update.
"""

import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np

from hyperudl import core
from hyperudl.data.language import task_set
from hyperudl.learners._language import dual_encoder

PART = 512  # images, or tasks, that are embedded at a time


def encode(
  settings: config_dict.ConfigDict,
  params: core.PyTree,
  tasks: task_set.TaskSet,
) -> task_set.TaskSet:
  """Return the tasks with features of images and vectors of strings.

  The learner's encoder passes features and vectors through unchanged.

  Args:
    settings: `config.learner`, of a learner on a frozen `contrastive`.
    params: of the frozen `contrastive`.
    tasks: images and strings; those that are embedded already stay.
  """
  encoder = dual_encoder.DualEncoder(
    dual_encoder.make_towers(settings, settings.inner_width),
    jax.tree.map(jnp.asarray, params),  # from a checkpoint
  )
  embedded = {}
  if tasks.images.ndim > 2:
    embed = lambda x: encoder.embed_images(task_set.as_floats(x))
    embedded['images'] = _in_parts(embed, tasks.images)
  if np.issubdtype(tasks.question.dtype, np.integer):
    for name in ('question', 'answers'):
      strings = getattr(tasks, name)
      embedded[name] = _in_parts(encoder.embed_strings, strings)
  return tasks._replace(**embedded)


def _in_parts(function, array):
  function = jax.jit(function)
  parts = [
    np.asarray(function(array[i : i + PART]))
    for i in range(0, len(array), PART)
  ]
  return np.concatenate(parts)
