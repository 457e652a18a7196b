"""Tasks with language: a question, images, and answers as strings."""

import pathlib
from typing import NamedTuple
from zipfile import BadZipFile

import jax.numpy as jnp
import numpy as np

from hyperudl import core

LATENTS = 'latents.npz'  # in the workdir of the run that they adapt


class Captions(NamedTuple):
  """What can be said of images beside the answers of tasks."""

  strings: np.ndarray  # i32[R, K, V, L] word ids: subject, form, what it is
  labels: np.ndarray  # i16[R, n], what each subject is in an image, or -1


class TaskSet(NamedTuple):
  """One split of a family of tasks."""

  images: np.ndarray  # uint8[n, H, W, C] or f32[n, E] features
  support: np.ndarray  # i32[T, Ms], rows of `images`; -1 where there is none
  support_y: np.ndarray  # i32[T, Ms], number of the answer; -1
  query: np.ndarray  # i32[T, Mq]
  query_y: np.ndarray  # i32[T, Mq]
  question: np.ndarray  # i32[T, L] word ids or f32[T, E]
  answers: np.ndarray  # i32[T, N, L] or f32[T, N, E]
  mask: np.ndarray  # bool[T, N], the answers that a task has
  names: tuple[str, ...]  # T questions
  answer_names: tuple[tuple[str, ...], ...]  # T times the answers
  ids: np.ndarray  # i32[T], numbers of the tasks in the whole family
  groups: np.ndarray  # i32[T], equal for tasks that say the same otherwise
  total: int  # tasks of the family, all splits together
  words: tuple[str, ...] = ()  # word i + 1 of the ids
  latents: np.ndarray | None = None  # f32[M, T, Z], see `with_latents`
  # Numbers of the answers of each image to what tasks ask, i16[G, n], -1 where
  # there is none, and the row of each task, i32[T]; see `with_labels`.
  labels: np.ndarray | None = None
  label_rows: np.ndarray | None = None
  captions: Captions | None = None


def make_task_set(images, tasks, total, encode, words=(), ways=0):
  """A `TaskSet` of padded arrays.

  Args:
    images: uint8[n, H, W, C] or f32[n, E].
    tasks: list of dicts with question (str), answers (list of str), support
      and query (lists of (row, answer number)), id (int) and, where tasks
      depend on each other, group (int).
    total: tasks of the whole family.
    encode: task -> (question i32[L] or f32[E], answers [N', L] or [N', E]).
    words: the vocabulary behind word ids.
    ways: N, at least that of the largest task, which it is by default.
  """
  most = ways or max(len(task['answers']) for task in tasks)
  columns = {'support': [], 'query': []}
  for name, pairs in columns.items():
    width = max(len(task[name]) for task in tasks)
    for task in tasks:
      rest = [(-1, -1)] * (width - len(task[name]))
      pairs.append([*task[name], *rest])
  arrays = {name: np.array(p, np.int32) for name, p in columns.items()}
  questions, answers = zip(*(encode(task) for task in tasks))
  answers = [
    np.pad(a, ((0, most - len(a)), (0, 0))) for a in map(np.asarray, answers)
  ]
  counts = np.array([len(task['answers']) for task in tasks])
  return TaskSet(
    images,
    arrays['support'][..., 0],
    arrays['support'][..., 1],
    arrays['query'][..., 0],
    arrays['query'][..., 1],
    np.stack(questions),
    np.stack(answers),
    np.arange(most) < counts[:, None],
    tuple(task['question'] for task in tasks),
    tuple(tuple(task['answers']) for task in tasks),
    np.array([task['id'] for task in tasks], np.int32),
    np.array([task.get('group', task['id']) for task in tasks], np.int32),
    total,
    tuple(words),
  )


def reordered(tasks, order):
  """The same tasks in another order, i64[T]."""
  names = {'names': tasks.names, 'answer_names': tasks.answer_names}
  changed = {k: tuple(v[i] for i in order) for k, v in names.items()}
  for name in (
    *('support', 'support_y', 'query', 'query_y'),
    *('question', 'answers', 'mask', 'ids', 'groups'),
  ):
    changed[name] = getattr(tasks, name)[order]
  if tasks.latents is not None:
    changed['latents'] = tasks.latents[:, order]
  if tasks.label_rows is not None:
    changed['label_rows'] = tasks.label_rows[order]
  return tasks._replace(**changed)


def as_floats(x):
  """Images uint8 -> f32 in [0, 1]; features as they are."""
  return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def with_labels(tasks):
  """`tasks` with `labels`: those of the images of each task, if it has none.

  Args:
    tasks: a `TaskSet`.
  """
  if tasks.labels is not None:
    return tasks
  count = len(tasks.names)
  labels = np.full((count, len(tasks.images)), -1, np.int16)
  for rows, y in (
    (tasks.support, tasks.support_y),
    (tasks.query, tasks.query_y),
  ):
    task, place = np.nonzero(rows >= 0)
    labels[task, rows[task, place]] = y[task, place]
  return tasks._replace(labels=labels, label_rows=np.arange(count))


def with_latents(tasks, path):
  """`tasks` with the latents of the file that `precompute` has written.

  Args:
    tasks: a `TaskSet`.
    path: of a .npz with latents f32[M, T', Z] and ids i32[T'].

  Raises:
    core.BadInput: no such file, or tasks that are not in it.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      latents, ids = file['latents'], file['ids']
  except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
    raise core.BadInput(
      f'{path}: no latents ({error}); make them with python -m '
      'hyperudl.training.precompute --workdir=RUN, or leave '
      'config.data.latents empty'
    ) from error
  place = {int(number): i for i, number in enumerate(ids)}
  missing = [int(i) for i in tasks.ids if int(i) not in place]
  if missing or latents.ndim != 3 or not np.isfinite(latents).all():
    raise core.BadInput(
      f'{path}: latents {latents.shape} lack {len(missing)} of '
      f'{len(tasks.ids)} tasks or are not finite; precompute them on the same '
      'data'
    )
  rows = [place[int(number)] for number in tasks.ids]
  return tasks._replace(latents=np.asarray(latents[:, rows], np.float32))


def latents_step(folder):
  """Of the network whose latents FOLDER/latents.npz has: int or None."""
  with np.load(pathlib.Path(folder) / LATENTS, allow_pickle=False) as file:
    return int(file['step']) if 'step' in file else None
