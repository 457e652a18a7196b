"""Writes TensorBoard's event files; a file that fails never ends a run.

The first fault is reported, and nothing is written after it. Of tensorboardX
only parts are used, not `SummaryWriter`: on a full disk its thread dies with a
traceback, and training would wait for ever on its queue.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
import os
import socket
import sys
import time
from typing import Any

from absl import logging
import numpy as np

from hyperudl.storage import filesystem


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
  """Let tensorboardX find no torch, which it imports where there is one.

  It is not needed here, takes seconds to import, and may be broken.
  """
  absent = 'torch' not in sys.modules
  if absent:
    sys.modules['torch'] = None  # type: ignore[assignment]
  try:
    yield
  finally:
    if absent:
      del sys.modules['torch']


with _without_torch():
  from tensorboardX import record_writer
  from tensorboardX import summary
  from tensorboardX import utils
  from tensorboardX.proto import event_pb2


@dataclasses.dataclass
class Writer:
  """An event file; see `open_writer` and `close_writer`."""

  directory: str  # of the event file
  events: record_writer.RecordWriter | None  # None: failed or closed
  flush_seconds: float = 10.0
  flushed: float = 0.0  # time of the last flush
  failed: bool = False


def open_writer(
  workdir: filesystem.StrPath, name: str, purge_step: int | None = None
) -> Writer:
  """Open a new event file in `workdir/tb/<name>`; never raise.

  Args:
    workdir: folder of the run.
    name: 'train' or 'eval'; two processes must not share one.
    purge_step: first step that will be written again: readers drop what
      TensorBoard holds from there on.
  """
  directory = os.path.join(os.path.abspath(workdir), 'tb', name)
  writer = Writer(directory, None)
  with _harmless(writer):
    os.makedirs(directory, exist_ok=True)
    file = f'events.out.tfevents.{time.time_ns()}.{socket.gethostname()}'
    writer.events = record_writer.RecordWriter(os.path.join(directory, file))
    _write(writer, file_version='brain.Event:2')
    if purge_step is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      _write(writer, step=int(purge_step), session_log=start)
  return writer


def close_writer(writer: Writer) -> None:
  """Write what is buffered and close the file; never raise."""
  with _harmless(writer):
    if writer.events is not None:
      writer.events.close()
  writer.events = None


def write_scalars(writer: Writer, step: int, scalars: dict) -> None:
  """Plot numbers by name; those that are not finite are left out."""
  with _harmless(writer):
    numbers = {k: np.asarray(v, float).item() for k, v in scalars.items()}
    values = [
      summary.scalar(name, number).value[0]
      for name, number in numbers.items()
      if math.isfinite(number)
    ]
    _write(writer, step=int(step), summary=summary.Summary(value=values))


def write_images(
  writer: Writer, step: int, name: str, images: np.ndarray, columns: int = 8
) -> None:
  """Plot images side by side as one picture.

  Args:
    writer: an open one.
    step: of the training.
    name: of the picture.
    images: [n, H, W, 1 or 3], uint8 or float in [0, 1].
    columns: images in a row.
  """
  with _harmless(writer):
    images = np.asarray(images)
    if images.dtype != np.uint8:
      images = np.clip(np.nan_to_num(images), 0, 1)
      images = np.round(images * 255).astype(np.uint8)
    picture = utils.make_grid(images.transpose(0, 3, 1, 2), columns)
    _write(writer, step=int(step), summary=summary.image(name, picture))


def write_histogram(
  writer: Writer, step: int, name: str, values: np.ndarray, bins: int = 50
) -> None:
  """Plot the distribution of the finite values of an array."""
  with _harmless(writer):
    values = np.asarray(values, np.float64).reshape(-1)
    histogram = summary.histogram(name, values[np.isfinite(values)], bins)
    _write(writer, step=int(step), summary=histogram)


def write_figure(writer: Writer, step: int, name: str, figure: Any) -> None:
  """Plot a figure of matplotlib, drawn without a display."""
  with _harmless(writer):
    picture = utils.figure_to_image(figure, close=False)
    _write(writer, step=int(step), summary=summary.image(name, picture))


def _write(writer, **content):
  """Add an event, and flush the file every few seconds."""
  if writer.events is None:
    return
  event = event_pb2.Event(wall_time=time.time(), **content)
  writer.events.write(event.SerializeToString())
  if time.monotonic() - writer.flushed > writer.flush_seconds:
    writer.events.flush()
    writer.flushed = time.monotonic()


@contextlib.contextmanager
def _harmless(writer):
  """Report a fault and drop the event file instead of raising."""
  try:
    yield
  except Exception as error:
    if not writer.failed:
      logging.warning(
        'cannot write %s: %s; going on without TensorBoard',
        writer.directory,
        filesystem.reason(error),
      )
    writer.failed = True
    with contextlib.suppress(Exception):
      writer.events.close()
    writer.events = None
