"""Defines sets of tasks with language: a question, images, string answers."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any
from typing import Literal
from typing import NamedTuple
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np

from hyperudl import core
from hyperudl.core import hyperparameters
from hyperudl.core.hyperparameters import field

LATENTS = 'latents.npz'  # file in the workdir of the run that made the latents
BY_TASK = (  # fields whose first axis is T
  *('support', 'support_y', 'query', 'query_y', 'question', 'answers'),
  *('mask', 'ids', 'groups'),
)


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
  """The `language` section of a config."""

  # For the data set `glyphvqa`; see `glyphvqa.py`.
  size: Literal['tiny', 'small', 'large'] = 'small'
  level: Literal['wording', 'semantic'] = 'wording'  # held out in valid, test
  # 'mixed' has each task twice: with answers as statements, and with question
  # and answer in one string; both name the referent. For training encoders.
  answers: Literal['bare', 'full', 'mixed'] = 'bare'
  seed: int = field(0, at_least=0)  # of scenes, pairs and images of each task
  # For the learner `contrastive`; see `questions.py`.
  asked: int = field(0, at_least=0)  # questions about each image in training
  captions: bool = False  # whether queries come with captions in training

  def __post_init__(self):
    hyperparameters.check(self, 'config.language.')


class Captions(NamedTuple):
  """Captions of images, in addition to the answers of tasks."""

  strings: np.ndarray  # i32[R, K, V, L] word ids, by subject, form and value
  labels: np.ndarray  # i16[R, n], value of each subject in an image, or -1


class TaskSet(NamedTuple):
  """One split of a family of tasks."""

  images: np.ndarray  # uint8[n, H, W, C] or f32[n, E] features
  support: np.ndarray  # i32[T, Ms], rows of `images`; -1 where there is none
  support_y: np.ndarray  # i32[T, Ms], number of the answer, or -1
  query: np.ndarray  # i32[T, Mq]
  query_y: np.ndarray  # i32[T, Mq]
  question: np.ndarray  # i32[T, L] word ids or f32[T, E]
  answers: np.ndarray  # i32[T, N, L] or f32[T, N, E]
  mask: np.ndarray  # bool[T, N], the answers that a task has
  names: tuple[str, ...]  # T questions
  answer_names: tuple[tuple[str, ...], ...]  # T times the answers
  ids: np.ndarray  # i32[T], numbers of the tasks in the whole family
  groups: np.ndarray  # i32[T], equal for wordings of one question
  total: int  # tasks of the family, all splits together
  words: tuple[str, ...] = ()  # the word with id i + 1 is words[i]
  latents: np.ndarray | None = None  # f32[M, T, Z], see `with_latents`
  # The answer in each image to each group of questions, i16[G, n], or -1; and
  # the row of `labels` of each task, i32[T]; see `with_labels`.
  labels: np.ndarray | None = None
  label_rows: np.ndarray | None = None
  captions: Captions | None = None


def make_task_set(
  images: np.ndarray,
  tasks: Sequence[dict[str, Any]],
  total: int,
  encode: Callable,
  words: Sequence[str] = (),
  ways: int = 0,
) -> TaskSet:
  """Pad the arrays of tasks to a `TaskSet`.

  Args:
    images: uint8[n, H, W, C] or f32[n, E].
    tasks: dicts with question (str), answers (list of str), support and query
      (lists of (row, answer number)), id (int) and optionally group (int),
      equal for wordings of one question.
    total: number of tasks of the whole family.
    encode: task -> (question i32[L] or f32[E], answers [N', L] or [N', E]).
    words: vocabulary of the word ids.
    ways: N, at least that of the largest task; 0 for exactly that.
  """
  counts = np.array([len(task['answers']) for task in tasks])
  ways = ways or counts.max()
  columns = {}
  for name in ('support', 'query'):
    pairs = [np.array(t[name], np.int32).reshape(-1, 2) for t in tasks]
    columns[name] = _padded(pairs, max(map(len, pairs)), -1)
  questions, answers = zip(*(encode(task) for task in tasks))
  return TaskSet(
    images,
    columns['support'][..., 0],
    columns['support'][..., 1],
    columns['query'][..., 0],
    columns['query'][..., 1],
    np.stack(questions),
    _padded(answers, ways, 0),
    np.arange(ways) < counts[:, None],
    tuple(task['question'] for task in tasks),
    tuple(tuple(task['answers']) for task in tasks),
    np.array([task['id'] for task in tasks], np.int32),
    np.array([task.get('group', task['id']) for task in tasks], np.int32),
    total,
    tuple(words),
  )


def _padded(rows, length, value):
  """Stack arrays [n, m] of different n, padded with rows of `value`."""
  pad = lambda row: ((0, length - len(row)), (0, 0))
  return np.stack(
    [np.pad(row, pad(row), constant_values=value) for row in rows]
  )


def reordered(tasks: TaskSet, order: np.ndarray) -> TaskSet:
  """Return the same tasks in the order given by indices i64[T]."""
  changed = {name: getattr(tasks, name)[order] for name in BY_TASK}
  for name in ('names', 'answer_names'):
    values = getattr(tasks, name)
    changed[name] = tuple(values[i] for i in order)
  if tasks.latents is not None:
    changed['latents'] = tasks.latents[:, order]
  if tasks.label_rows is not None:
    changed['label_rows'] = tasks.label_rows[order]
  return tasks._replace(**changed)


def as_floats(x: jax.Array) -> jax.Array:
  """Return uint8 images as f32 in [0, 1], and features unchanged."""
  return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def with_labels(tasks: TaskSet) -> TaskSet:
  """Return tasks with `labels`, made from support and query if missing."""
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


def with_latents(tasks: TaskSet, path: str | os.PathLike[str]) -> TaskSet:
  """Return tasks with the latents that `training.precompute` has saved.

  Args:
    tasks: training tasks.
    path: .npz file with latents f32[M, T', Z] and ids i32[T'].

  Raises:
    core.BadInput: no such file, tasks that it lacks, or faulty latents.
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
  rows = {int(number): i for i, number in enumerate(ids)}
  missing = [int(i) for i in tasks.ids if int(i) not in rows]
  if missing or latents.ndim != 3 or not np.isfinite(latents).all():
    raise core.BadInput(
      f'{path}: latents {latents.shape} lack {len(missing)} of '
      f'{len(tasks.ids)} tasks or are not finite; precompute them on the same '
      'data'
    )
  order = [rows[int(number)] for number in tasks.ids]
  return tasks._replace(latents=np.asarray(latents[:, order], np.float32))


def latents_step(folder: str | os.PathLike[str]) -> int | None:
  """Return the step of the network that made FOLDER/latents.npz, or None."""
  with np.load(pathlib.Path(folder) / LATENTS, allow_pickle=False) as file:
    return int(file['step']) if 'step' in file else None
