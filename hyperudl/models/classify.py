"""Classifies image files: `hyperudl classify --model=M --support=DIR ...`.

SUPPORT is a folder of class folders, or a CSV file with the columns path,label:
a few images of each class. QUERY is a folder, at any depth, a CSV file with the
column path, or one image. A task that was saved by --save=FILE is used again by
--task=FILE, in place of --model and --support. --export=FILE writes the adapted
network for other programs, see `hyperudl export`.

OUT is a CSV file in UTF-8, with the columns path, label, confidence (the
probability of that label), unknown (1: of no class, by --unknown), error, and
`p:<class>`, the probability of each class. A file that cannot be read has an
error in place of these. The same images give the same bytes, whatever the order
in which a folder lists them.

Exit codes: 0 done; 2 bad flag, model or support (nothing written); 3 no
checkpoint is readable; 5 disk full or unwritable; 8 a device has too little
memory; 130 Ctrl-C.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import csv
import io
import time
from typing import Any

from absl import flags
from absl import logging
import numpy as np

from hyperudl import core
from hyperudl.core import cli
from hyperudl.core import paths
from hyperudl.data.datasets import image_file
from hyperudl.data.datasets import image_inputs
from hyperudl.evaluation import calibration
from hyperudl.models import files
from hyperudl.models import formats
from hyperudl.models import loading
from hyperudl.models import report
from hyperudl.models import task as task_lib
from hyperudl.storage import filesystem
from hyperudl.storage.filesystem import StrPath

_SECONDS = 5.0  # between two lines that tell how far the work is
_LABEL_NEXT = 5  # of the least certain images that are named


def main(argv: list[str]) -> None:
  """Classify the files that the flags name."""
  del argv
  values = flags.FLAGS
  _check_flags(values)
  cli.set_up()
  queries = files.unlabelled(values.query) if values.query else []
  task = _make_task(values)
  report.check_unknown(task, values.unknown)
  if values.loo:
    _log_leave_one_out(task)
  if values.save:
    task.save(values.save)
    logging.info('wrote %s', values.save)
  if values.export:
    task.export(values.export)
    logging.info('wrote %s', values.export)
  if queries:
    write_predictions(task, queries, values.out, values.unknown)


def _check_flags(values):
  """Refuse flags that contradict each other, before anything is loaded."""
  own = ('model', 'support', 'unlabelled', 'step', 'seed', 'temperature')
  given = [name for name in own if values[name].present]
  if values.task and given:
    raise core.BadInput(
      f'--task has a model and a support already: drop --{given[0]}'
    )
  if not values.task and not (values.model and values.support):
    raise core.BadInput('give --model and --support, or --task')
  if bool(values.query) != bool(values.out):
    raise core.BadInput('--query and --out go together: give both')
  if not (values.query or values.loo or values.save or values.export):
    raise core.BadInput(
      'nothing to do: give --query and --out, --loo, --save or --export'
    )
  if values.export:
    formats.check(values.export)


def _make_task(values) -> task_lib.Task:
  if values.task:
    return loading.load_task(values.task)
  model = loading.load(values.model, values.step)
  if values.unknown == 'auto' and 'calibration' not in model.about:
    model = model.calibrate()
  task = model.adapt(
    values.support, unlabelled=values.unlabelled, seed=values.seed
  )
  return task.calibrate(values.temperature)


def _log_leave_one_out(task):
  """Print how many images of the support are classified by the others."""
  found = task.report['leave_one_out']
  if found['accuracy'] is None:
    logging.info('leave-one-out: cannot be had, %s', found['problem'])
    return
  low, high = found['ci95']
  logging.info(
    'leave-one-out: %.1f%% of %d images (95%% interval %.1f to %.1f%%)',
    *(100 * found['accuracy'], found['images'], 100 * low, 100 * high),
  )


def write_predictions(
  task: task_lib.Task,
  queries: Sequence[str],
  out: StrPath,
  unknown: float | str | None = None,
  batch: int = task_lib.BATCH,
) -> None:
  """Classify image files and write the CSV file, whole or not at all.

  Args:
    task: adapted.
    queries: paths, in the order of the rows.
    out: the file.
    unknown: see `report.are_unknown`; such predictions are marked.
    batch: files in memory at the same time.

  Raises:
    core.Unwritable: the disk is full or may not be written.
  """
  start = told = time.monotonic()
  errors, uncertain, done = 0, [], 0
  columns = [f'p:{name}' for name in task.classes]
  header = ['path', 'label', 'confidence', 'unknown', 'error', *columns]
  with filesystem.replacing(out) as file:
    text = io.TextIOWrapper(
      file, 'utf-8', errors='backslashreplace', newline=''
    )
    writer = csv.writer(text)
    writer.writerow(header)
    for rows in _classified(task, queries, batch, unknown):
      for path, (p, is_unknown), problem in rows:
        writer.writerow(_row(task, path, p, problem, is_unknown))
        errors += bool(problem)
        if not problem:
          uncertain.append((-calibration.entropy(p), path))
      uncertain = sorted(uncertain)[:_LABEL_NEXT]
      done += len(rows)
      now = time.monotonic()
      if now - told > _SECONDS:
        told, left = now, (now - start) / done * (len(queries) - done)
        logging.info('%d of %d files, %d s left', done, len(queries), left)
    text.flush()
    text.detach()
  logging.info('wrote %s: %d files, %d unreadable', out, done, errors)
  if uncertain:
    names = ', '.join(path for _, path in uncertain)
    logging.info('to be labelled next, the least certain: %s', names)


def _classified(
  task, queries, batch, unknown
) -> Iterator[list[tuple[str, Any, str]]]:
  """Yield [(path, (probabilities f32[C], unknown), error)] of each batch."""
  inputs = task.model.inputs
  for start in range(0, len(queries), batch):
    read, rows = [], []
    with image_file.without_warnings():
      for path in queries[start : start + batch]:
        try:
          read.append(image_inputs.read(path, inputs))
          rows.append((path, ''))
        except core.BadInput as error:
          logging.warning('%s', error)
          rows.append((path, str(error)))
    found = iter(())
    if read:
      x = np.stack(read).astype(np.float32) / 255
      p = task.probabilities(x)
      found = zip(p, report.are_unknown(task, x, p, unknown))
    yield [
      (path, (None, False) if problem else next(found), problem)
      for path, problem in rows
    ]


def _row(task, path, p, problem, is_unknown):
  if problem:
    return [path, '', '', '', problem, *[''] * len(task.classes)]
  best = p.argmax()
  # Nine digits tell all f32 apart.
  numbers = [f'{value:.9g}' for value in p]
  label = task.classes[best]
  return [path, label, numbers[best], int(is_unknown), '', *numbers]


class _NumberOrAuto(flags.FloatParser):
  """Reads a number in a range, or the word auto."""

  def parse(self, argument):
    """Return 'auto' or a float."""
    return argument if argument == 'auto' else super().parse(argument)


def _define_number(name, default, text, **bounds):
  flags.DEFINE(_NumberOrAuto(**bounds), name, default, text)


def define_flags() -> None:
  """Define the flags of this command."""
  paths.define(
    'model', None, 'Name of a shipped model, run folder, or file of a model.'
  )
  paths.define('support', None, 'Labelled images: class folders or a CSV file.')
  paths.define('unlabelled', None, 'Further images of these classes.')
  paths.define('query', None, 'Images to classify.')
  paths.define('out', None, 'CSV file of the predictions.')
  paths.define('task', None, 'File that --save has written.')
  paths.define('save', None, 'File to keep the adapted task in.')
  paths.define(
    'export', None, 'File for other programs; its ending chooses the format.'
  )
  _define_number(
    'unknown',
    None,
    'Mark predictions with a smaller probability as unknown; auto: those below '
    'the threshold of the largest logit that the model carries.',
    lower_bound=0,
    upper_bound=1,
  )
  _define_number(
    'temperature',
    'auto',
    'That logits are divided by; auto: one that suits the support.',
    lower_bound=1e-3,
    upper_bound=1e3,
  )
  flags.DEFINE_boolean(
    'loo',
    False,
    'Print the accuracy of each labelled image after adapting to the others.',
  )
  flags.DEFINE_string(
    'step', 'best', 'Checkpoint of a run folder: best, latest or a number.'
  )
  flags.DEFINE_integer(
    'seed',
    0,
    "Of the learner's own random numbers.",
    lower_bound=0,
    upper_bound=2**32 - 1,
  )


if __name__ == '__main__':
  define_flags()
  cli.run(main)
