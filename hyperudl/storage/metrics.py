"""Writes metrics as JSON lines and results of evaluations as files.

NaN and infinity become null, since JSON has neither. A fault in writing metrics
never ends a training: it is reported once, and no more rows are written. An
evaluation is run for its results: there a full disk raises core.Unwritable.
"""

import contextlib
import errno
import io
import json
import math
import os
import re
from typing import Any

from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.storage import filesystem
from hyperudl.storage.filesystem import StrPath


class TrainingLog:
  """A file of JSON lines whose failure is reported once and ends no run."""

  def __init__(self, path: StrPath) -> None:
    """Append to the file at `path`, which is made by the first row."""
    self.path: StrPath | None = path  # None: failed

  def append(self, row: dict[str, Any]) -> None:
    """Append a line as `append_jsonl` does; never raise."""
    if self.path is None:
      return
    try:
      append_jsonl(self.path, row)
    except Exception as error:
      logging.warning('%s; no more rows are written', error)
      self.path = None


def append_jsonl(path: StrPath, row: dict[str, Any]) -> None:
  """Append one JSON line, whole or not at all.

  Args:
    path: made if absent.
    row: numbers, strings, arrays, lists and dicts; NaN and infinity become
      null.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  line = json.dumps(_plain(row)).encode() + b'\n'
  with filesystem.writing(path), open(path, 'ab+', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b'\n':
      line = b'\n' + line  # a line that a kill cut short
    try:
      if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, 'the disk took a part of the line only')
    except OSError:
      os.ftruncate(file.fileno(), size)
      raise


def read_jsonl(path: StrPath) -> list[dict[str, Any]]:
  """Return the rows of a file of JSON lines; none if it is missing.

  A line that is not JSON, because a kill cut it short, is left out.
  """
  rows = []
  with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
    for line in file:
      with contextlib.suppress(ValueError):
        rows.append(json.loads(line))
  return rows


def truncate_jsonl(path: StrPath, last_step: int) -> None:
  """Drop the rows after `last_step`, which a resumed run writes again.

  A missing file stays missing.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  if os.path.exists(path):
    rows = [row for row in read_jsonl(path) if row['step'] <= last_step]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    filesystem.replace(path, text.encode())


def evaluation_path(workdir: StrPath, tag: str) -> str:
  """Return the path of `workdir/eval/<tag>.jsonl`.

  Raises:
    core.BadInput: `tag` is not a file name.
  """
  if not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.+=-]*', tag):
    raise core.BadInput(
      f'tag {tag!r} names a file: use letters, digits and any of _.+=- only'
    )
  return os.path.abspath(os.path.join(workdir, 'eval', f'{tag}.jsonl'))


def evaluated_steps(workdir: StrPath, tag: str) -> set[int]:
  """Return the steps that have a row in `eval/<tag>.jsonl`."""
  return {row['step'] for row in read_jsonl(evaluation_path(workdir, tag))}


def write_evaluation(
  workdir: StrPath, tag: str, step: int, row: dict, arrays: dict
) -> None:
  """Write one result: a line, and the numbers of every episode behind it.

  Args:
    workdir: folder of the run.
    tag: for example 'test' or 'glyphs-test'.
    step: that was evaluated.
    row: of `eval/<tag>.jsonl`; `step` is added in front.
    arrays: name -> [episodes, ...] for `eval/<tag>_episodes.npz`, which holds
      the last evaluation only, with its `step`.

  Raises:
    core.BadInput: `tag` is not a file name.
    core.Unwritable: the disk is full or may not be written.
  """
  path = evaluation_path(workdir, tag)
  with filesystem.writing(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
  buffer = io.BytesIO()
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  np.savez_compressed(buffer, **{**arrays, 'step': np.int64(step)})
  # First the arrays: a reader that sees the line finds them too.
  episodes = path.removesuffix('.jsonl') + '_episodes.npz'
  filesystem.replace(episodes, buffer.getvalue())
  append_jsonl(path, {'step': step, **row})


def _plain(value):
  """Return numbers, arrays and containers as JSON; null if not finite."""
  if isinstance(value, dict):
    return {str(key): _plain(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(entry) for entry in value]
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if not isinstance(value, float):
    return _plain(np.asarray(value).tolist())
  return value if math.isfinite(value) else None
