"""Metrics: TensorBoard, JSON lines and result files.

No other file writes metrics. What is not finite becomes null (JSON has no
NaN) and is left out of TensorBoard. Training metrics never end a run: a file
that fails is told once, then left alone. Results of an evaluation are what an
evaluator is for: there a full disk raises core.Unwritable.
"""

import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import re
import socket
import time

from absl import logging
import numpy as np
from tensorboardX import record_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2

from hyperudl import core
from hyperudl.storage import filesystem

_FLUSH_SECONDS = 10


@dataclasses.dataclass
class Writer:
  """The files of one process; see `open_writer` and `close_writer`."""

  directory: str  # of the event file
  events: record_writer.RecordWriter | None  # None: failed or closed
  rows: str | None  # path of the JSON lines; None: failed
  flushed: float = 0.0


def open_writer(workdir, name, purge_step=None):
  """Opens `workdir/tb/<name>` and `workdir/<name>.jsonl`; never raises.

  Args:
    workdir: str.
    name: 'train' or 'eval'; two processes must not share one.
    purge_step: int or None, the first step that will be written again: what
      TensorBoard holds from there on is dropped by its readers.
  """
  workdir = os.path.abspath(workdir)
  directory = os.path.join(workdir, 'tb', name)
  writer = Writer(directory, None, os.path.join(workdir, f'{name}.jsonl'))
  with _harmless(writer):
    os.makedirs(directory, exist_ok=True)
    file = f'events.out.tfevents.{time.time_ns()}.{socket.gethostname()}'
    # Not SummaryWriter: on a full disk its thread dies with a traceback, and
    # the training would wait for ever on the queue.
    writer.events = record_writer.RecordWriter(os.path.join(directory, file))
    _write(writer, file_version='brain.Event:2')
    if purge_step is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      _write(writer, step=int(purge_step), session_log=start)
  return writer


def close_writer(writer):
  """Writes what is buffered and closes the file; never raises."""
  with _harmless(writer):
    if writer.events is not None:
      writer.events.close()
  writer.events = None


def write_scalars(writer, step, scalars):
  """Plots scalars; never raises.

  Args:
    writer: Writer.
    step: int.
    scalars: dict name -> number or array of one element.
  """
  _plot(writer, step, _scalar_summary, scalars)


def write_images(writer, step, name, images, columns=8):
  """Plots images side by side as one picture; never raises.

  Args:
    writer: Writer.
    step: int.
    name: str.
    images: [n, H, W, 1 or 3], uint8 or float in [0, 1].
    columns: int.
  """
  _plot(writer, step, _image_summary, name, images, columns)


def write_histogram(writer, step, name, values, bins=50):
  """Plots the distribution of the finite values of an array; never raises."""
  _plot(writer, step, _histogram_summary, name, values, bins)


def write_figure(writer, step, name, figure):
  """Plots a matplotlib figure, drawn without a display; never raises."""
  _plot(writer, step, _figure_summary, name, figure)


def write_row(writer, row):
  """Appends a line to the writer's JSON lines; never raises.

  Args:
    writer: Writer.
    row: dict with `step`, as in `append_jsonl`.
  """
  if writer.rows is None:
    return
  try:
    append_jsonl(writer.rows, row)
  except Exception as error:
    logging.warning('%s; no more rows are written', error)
    writer.rows = None


def append_jsonl(path, row):
  """Appends one JSON line, whole or not at all.

  Args:
    path: str.
    row: dict of numbers, strings, arrays, lists and dicts; what is not finite
      becomes null.

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


def read_jsonl(path):
  """The rows of a file of JSON lines; none if it is missing.

  A line that is not JSON, because a kill cut it short, is left out.
  """
  rows = []
  with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
    for line in file:
      with contextlib.suppress(ValueError):
        rows.append(json.loads(line))
  return rows


def truncate_jsonl(path, last_step):
  """Drops the rows after `last_step`, so that a resumed run adds each once.

  Args:
    path: str; a missing file stays missing.
    last_step: int.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  if os.path.exists(path):
    rows = [row for row in read_jsonl(path) if row['step'] <= last_step]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    filesystem.replace(path, text.encode())


def evaluation_path(workdir, tag):
  """Path of `workdir/eval/<tag>.jsonl`; core.BadInput if `tag` is none."""
  if not re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.+=-]*', tag):
    raise core.BadInput(
      f'tag {tag!r} names a file: use letters, digits and any of _.+=- only'
    )
  return os.path.abspath(os.path.join(workdir, 'eval', f'{tag}.jsonl'))


def evaluated_steps(workdir, tag):
  """The set of steps that have a row in `eval/<tag>.jsonl`."""
  return {row['step'] for row in read_jsonl(evaluation_path(workdir, tag))}


def write_evaluation(workdir, tag, step, row, arrays):
  """Writes one result: a line, and the numbers of every episode behind it.

  Args:
    workdir: str.
    tag: str, for example 'test' or 'glyphs-test'.
    step: int.
    row: dict for the line of `eval/<tag>.jsonl`; `step` is added in front.
    arrays: dict name -> [episodes, ...] for `eval/<tag>_episodes.npz`, which
      holds the last evaluation only, with its `step`.

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
  # First the arrays: who sees the line finds what is behind it.
  episodes = path.removesuffix('.jsonl') + '_episodes.npz'
  filesystem.replace(episodes, buffer.getvalue())
  append_jsonl(path, {'step': step, **row})


def _scalar_summary(scalars):
  numbers = {n: np.asarray(v).astype(float).item() for n, v in scalars.items()}
  values = [
    summary.scalar(name, number).value[0]
    for name, number in numbers.items()
    if math.isfinite(number)
  ]
  return summary.Summary(value=values)


def _image_summary(name, images, columns):
  images = np.asarray(images)
  if images.dtype != np.uint8:
    images = np.clip(np.nan_to_num(images), 0, 1)
    images = np.round(images * 255).astype(np.uint8)
  n, height, width, channels = images.shape
  columns = min(columns, n)
  rows = -(-n // columns)
  grid = np.zeros((rows * columns, height, width, channels), np.uint8)
  grid[:n] = images
  grid = grid.reshape(rows, columns, height, width, channels)
  picture = grid.transpose(0, 2, 1, 3, 4)
  picture = picture.reshape(rows * height, columns * width, channels)
  return summary.image(name, picture, dataformats='HWC')


def _histogram_summary(name, values, bins):
  values = np.asarray(values, np.float64).reshape(-1)
  return summary.histogram(name, values[np.isfinite(values)], bins)


def _figure_summary(name, figure):
  from matplotlib.backends import backend_agg  # only for who draws

  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  picture = np.asarray(canvas.buffer_rgba())[..., :3]
  return summary.image(name, picture, dataformats='HWC')


def _plot(writer, step, summarise, *inputs):
  with _harmless(writer):
    if writer.events is not None:
      _write(writer, step=int(step), summary=summarise(*inputs))


def _write(writer, **content):
  """Adds an event, and flushes the file every few seconds."""
  event = event_pb2.Event(wall_time=time.time(), **content)
  writer.events.write(event.SerializeToString())
  if time.monotonic() - writer.flushed > _FLUSH_SECONDS:
    writer.events.flush()
    writer.flushed = time.monotonic()


@contextlib.contextmanager
def _harmless(writer):
  """Lets no fault out: tells the first one and drops the event file."""
  try:
    yield
  except Exception as error:
    logging.warning(
      'cannot write %s: %s; going on without TensorBoard',
      writer.directory,
      filesystem.reason(error),
    )
    with contextlib.suppress(Exception):
      writer.events.close()
    writer.events = None


def _plain(value):
  """The JSON form of numbers, arrays and containers; null if not finite."""
  if isinstance(value, dict):
    return {str(key): _plain(entry) for key, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(entry) for entry in value]
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if not isinstance(value, float):
    return _plain(np.asarray(value).tolist())
  return value if math.isfinite(value) else None
